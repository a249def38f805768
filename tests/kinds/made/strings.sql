-- What COPY must escape, and what a line of COPY must not be taken for.

--- texts with everything that means something to COPY
CREATE SCHEMA strings;
CREATE TABLE strings.texts (id int, v text);
INSERT INTO strings.texts VALUES
    (1, NULL), (2, ''), (3, '\'), (4, '\\'), (5, E'\t'), (6, E'\n'), (7, E'\r'), (8, E'\r\n'), (9, '\N'), (10, '\.'),
    (11, E'a\n\\.\nb'), (12, E'\\.\n'), (13, ' lead and trail '), (14, 'NULL'), (15, E'\b\f\v\x01\x7f'), (16, '"''$$%s{}'),
    (17, 'ä€𝄞'), (18, U&'a\0301'), (19, U&'\00e1'), (20, U&'\2028\0085\FEFF'), (21, '-- ; COPY x FROM stdin;');

--- nothing and empty are two things
CREATE TABLE strings.empty_or_null (v text);
INSERT INTO strings.empty_or_null VALUES (NULL), ('');

--- a single column of end marks: the row is the mark
CREATE TABLE strings.end_marks (v text);
INSERT INTO strings.end_marks VALUES ('\.'), (E'\\.\n\\.'), ('.');

--- composed and decomposed letters look the same
CREATE TABLE strings.composed (v text);
INSERT INTO strings.composed VALUES (U&'\00e1'), (U&'a\0301');

--- blanks at the end: char pads, varchar keeps, text keeps
CREATE TABLE strings.padded (a char(5), b varchar(5), c text, d char);
INSERT INTO strings.padded VALUES ('ab', 'ab  ', 'ab  ', ' '), ('', '', '', 'x'), ('     ', '     ', '     ', NULL);

--- collations of columns
CREATE TABLE strings.collated (a text COLLATE "C", b text COLLATE "POSIX", c varchar(3) COLLATE ucs_basic);
INSERT INTO strings.collated VALUES ('a', 'B', 'c'), ('Z', 'ä', 'Ä');

--- a default that needs quoting twice
CREATE TABLE strings.defaults (
    a text DEFAULT E'it''s \\ a\ttab\nand $$ %s', b text DEFAULT '', c text DEFAULT NULL, d bytea DEFAULT '\x00ff');
INSERT INTO strings.defaults DEFAULT VALUES;

--- a row of 20 MB that compresses and one of 8 MB that does not
CREATE TABLE strings.wide (id int, v text, raw bytea);
INSERT INTO strings.wide SELECT 1, repeat(E'wide \\ \t\n', 2000000), NULL;
INSERT INTO strings.wide
    SELECT 2, NULL, decode(string_agg(md5(i::text), '' ORDER BY i), 'hex') FROM generate_series(1, 500000) i;
