-- Types, and values of them.

--- an enum gains a label => TYPE types.colour
ALTER TYPE types.colour ADD VALUE 'white' AFTER 'green';

--- a label of an enum is renamed => TYPE types.renamed_label
ALTER TYPE types.renamed_label RENAME VALUE 'two' TO 'zwei';

--- a value of an enum => table types.moods
UPDATE types.moods SET v = 'sad' WHERE v = 'ok';

--- an enum is gone => TYPE types.no_labels
DROP TYPE types.no_labels;

--- a check of a domain is another => DOMAIN types.word
ALTER DOMAIN types.word DROP CONSTRAINT no_blank;
ALTER DOMAIN types.word ADD CONSTRAINT no_blank CHECK (VALUE <> '');

--- a default of a domain => DOMAIN types.nullable
ALTER DOMAIN types.nullable DROP DEFAULT;

--- a domain may be NULL => DOMAIN types.small_positive
ALTER DOMAIN types.small_positive DROP NOT NULL;

--- a check that is not valid is gone from a domain => types.lax
ALTER DOMAIN types.lax DROP CONSTRAINT never_below;

--- a value of a domain => table types.of_domains
UPDATE types.of_domains SET a = 8 WHERE a = 7;

--- a composite gains an attribute => TYPE types.empty_composite
ALTER TYPE types.empty_composite ADD ATTRIBUTE a int;

--- a value inside of a composite => table types.composites
UPDATE types.composites SET d = ARRAY[(1, 'Q')::types.pair] WHERE d <> '{}';

--- a value of a composite with a dropped attribute => table types.of_shrunk
UPDATE types.of_shrunk SET v = (1, 3);

--- an attribute is renamed => TYPE types.shrunk
ALTER TYPE types.shrunk RENAME ATTRIBUTE c TO d;

--- a row inside of a row => table types.row_holder
UPDATE types.row_holder SET rs = '{}';

--- the lower bound of an array => table types.arrays
UPDATE types.arrays SET a = '{1,2}' WHERE a = '[2:3]={1,2}';

--- an empty range becomes one without ends => table types.ranges
UPDATE types.ranges SET e = '(,)' WHERE e = 'empty';

--- a multirange loses a range => table types.multiranges
UPDATE types.multiranges SET a = '{[1,3)}' WHERE a <> '{}';

--- a bound of a range of one's own => table types.own_ranges
UPDATE types.own_ranges SET a = '[1.5,2]';

--- a range type loses a function for distances => TYPE types.span
UPDATE pg_range SET rngsubdiff = 0 WHERE rngtypid = 'types.span'::regtype;

--- a value of a base type => table types.of_int42
UPDATE types.of_int42 SET v = '43';

--- a base type loses its category => TYPE types.int42
UPDATE pg_type SET typcategory = 'U' WHERE oid = 'types.int42'::regtype;

--- a shell of a type is gone => TYPE types.shell_only
DROP TYPE types.shell_only;
