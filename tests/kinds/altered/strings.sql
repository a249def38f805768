-- Texts, changed where COPY or a careless reader would change them.

--- a line end of two characters becomes one => table strings.texts
UPDATE strings.texts SET v = E'\n' WHERE v = E'\r\n';

--- NULL becomes an empty text => table strings.empty_or_null
UPDATE strings.empty_or_null SET v = '' WHERE v IS NULL;

--- an end mark disappears => table strings.end_marks
DELETE FROM strings.end_marks WHERE v = '\.';

--- a decomposed letter is composed => table strings.composed
UPDATE strings.composed SET v = normalize(v);

--- blanks at the end are cut => table strings.padded
UPDATE strings.padded SET c = rtrim(c);

--- a letter in another case => table strings.collated
UPDATE strings.collated SET b = 'b' WHERE b = 'B';

--- a default loses a backslash => TABLE strings.defaults
ALTER TABLE strings.defaults ALTER COLUMN a SET DEFAULT E'it''s  a\ttab\nand $$ %s';

--- one byte in the middle of 20 MB => table strings.wide
UPDATE strings.wide SET v = overlay(v PLACING 'W' FROM 12000001 FOR 1) WHERE id = 1;
