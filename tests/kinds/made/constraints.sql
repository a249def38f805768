-- Constraints of every kind and state.

--- foreign keys in a circle, and of a table to itself
CREATE SCHEMA rules;
CREATE TABLE rules.chicken (id int PRIMARY KEY, egg int);
CREATE TABLE rules.egg (id int PRIMARY KEY, chicken int REFERENCES rules.chicken);
INSERT INTO rules.chicken VALUES (1, NULL), (2, NULL);
INSERT INTO rules.egg VALUES (1, 1), (2, 2);
UPDATE rules.chicken SET egg = 3 - id;
CREATE TABLE rules.tree (id int PRIMARY KEY, parent int REFERENCES rules.tree);
INSERT INTO rules.tree VALUES (1, NULL), (2, 1), (3, 2), (4, 4);
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE rules.chicken ADD CONSTRAINT from_an_egg FOREIGN KEY (egg) REFERENCES rules.egg;

--- foreign keys: actions, lists of columns, MATCH FULL, to a unique key
CREATE TABLE rules.target (a int, b int, c int, PRIMARY KEY (a, b), CONSTRAINT target_c UNIQUE (c));
CREATE TABLE rules.actions (
    a int, b int, c int, d int,
    CONSTRAINT set_some FOREIGN KEY (a, b) REFERENCES rules.target ON DELETE SET NULL (b) ON UPDATE CASCADE,
    CONSTRAINT by_unique FOREIGN KEY (c) REFERENCES rules.target (c) ON DELETE SET DEFAULT ON UPDATE RESTRICT,
    CONSTRAINT all_or_none FOREIGN KEY (c, d) REFERENCES rules.target MATCH FULL);
CREATE TABLE rules.action_to_change (c int, CONSTRAINT changes FOREIGN KEY (c) REFERENCES rules.target (c) ON DELETE CASCADE);
CREATE TABLE rules.key_to_lose (c int, CONSTRAINT loses FOREIGN KEY (c) REFERENCES rules.target (c));

--- deferrable: keys, unique, exclusion; deferred from the start or not
CREATE TABLE rules.deferrable (
    a int CONSTRAINT deferred_unique UNIQUE DEFERRABLE INITIALLY DEFERRED, b int CONSTRAINT deferrable_unique UNIQUE DEFERRABLE,
    c int CONSTRAINT deferred_key REFERENCES rules.chicken DEFERRABLE INITIALLY DEFERRED,
    d int CONSTRAINT immediate_key REFERENCES rules.chicken DEFERRABLE INITIALLY IMMEDIATE);

--- not valid: rows that break them came earlier
CREATE TABLE rules.not_valid (a int, b int);
INSERT INTO rules.not_valid VALUES (-5, 77);
ALTER TABLE rules.not_valid
    ADD CONSTRAINT never_negative CHECK (a > 0) NOT VALID, ADD CONSTRAINT no_such_chicken FOREIGN KEY (b) REFERENCES rules.chicken NOT VALID;
CREATE TABLE rules.not_valid_but_fits (a int);
ALTER TABLE rules.not_valid_but_fits ADD CONSTRAINT fits CHECK (a > 0) NOT VALID;

--- checks: on several columns, by functions, of the same name on two tables
CREATE FUNCTION rules.is_even(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 2 = 0';
CREATE TABLE rules.checks (a int, b int, c varchar(5), CONSTRAINT order_of CHECK (a < b), CONSTRAINT even CHECK (rules.is_even(a)), CONSTRAINT listed CHECK (c IN ('a', 'b')));
CREATE TABLE rules.checks_too (a int, CONSTRAINT even CHECK (rules.is_even(a)), CONSTRAINT goes CHECK (a <> 13));
CREATE TABLE rules.check_to_change (a int CONSTRAINT limited CHECK (a < 100));
INSERT INTO rules.checks VALUES (2, 3, 'a');
COMMENT ON CONSTRAINT order_of ON rules.checks IS 'a comes first';

--- exclusion constraints: several operators, partial, deferrable
CREATE TABLE rules.bookings (
    room int4range, during tstzrange, c circle,
    CONSTRAINT no_overlap EXCLUDE USING gist (room WITH &&, during WITH &&) WHERE (NOT isempty(room)),
    CONSTRAINT no_circles EXCLUDE USING gist (c WITH &&) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO rules.bookings VALUES ('[1,2)', '[2024-01-01 00:00+00,2024-01-02 00:00+00)', '<(0,0),1>');
CREATE TABLE rules.exclusion_to_lose (r int4range, CONSTRAINT apart EXCLUDE USING gist (r WITH &&));
CREATE TABLE rules.exclusion_by_hash (a int, CONSTRAINT different EXCLUDE USING hash (a WITH =));

--- unique: nulls that are equal, columns that come along, an index that was there first
CREATE TABLE rules.uniques (a int, b int, c int, CONSTRAINT one_null UNIQUE NULLS NOT DISTINCT (a), CONSTRAINT covering UNIQUE (b) INCLUDE (c) WITH (fillfactor = 80));
INSERT INTO rules.uniques VALUES (NULL, 1, 1);
CREATE TABLE rules.unique_to_change (a int, CONSTRAINT nulls_same UNIQUE NULLS NOT DISTINCT (a));
CREATE TABLE rules.key_by_index (a int NOT NULL, b int);
CREATE UNIQUE INDEX made_first ON rules.key_by_index (a);
ALTER TABLE rules.key_by_index ADD CONSTRAINT key_from_index PRIMARY KEY USING INDEX made_first;
CREATE TABLE rules.primary_key_to_lose (a int NOT NULL CONSTRAINT primary_loses PRIMARY KEY);

--- not null, and not null no more
CREATE TABLE rules.not_null (a int NOT NULL, b int);

--- not null by name, not valid, not inherited; constraints that are not enforced {since=18}
CREATE TABLE rules.named_not_null (a int CONSTRAINT a_is_there NOT NULL, b int, c int CONSTRAINT c_only_here NOT NULL NO INHERIT);
INSERT INTO rules.named_not_null VALUES (1, NULL, 1);
ALTER TABLE rules.named_not_null ADD CONSTRAINT b_from_now_on NOT NULL b NOT VALID;
CREATE TABLE rules.not_enforced (
    a int CONSTRAINT nobody_asks CHECK (a > 0) NOT ENFORCED, b int CONSTRAINT no_egg REFERENCES rules.egg NOT ENFORCED);
INSERT INTO rules.not_enforced VALUES (-1, 99);
COMMENT ON CONSTRAINT a_is_there ON rules.named_not_null IS 'by name';

--- keys over time, and references to them {since=18}
CREATE TABLE rules.over_time (id int4range, valid_at daterange, CONSTRAINT over_time_key PRIMARY KEY (id, valid_at WITHOUT OVERLAPS));
CREATE TABLE rules.over_time_child (
    id int4range, valid_at daterange, CONSTRAINT over_time_fk FOREIGN KEY (id, PERIOD valid_at) REFERENCES rules.over_time (id, PERIOD valid_at));
INSERT INTO rules.over_time VALUES ('[1,2)', '[2024-01-01,2025-01-01)');
INSERT INTO rules.over_time_child VALUES ('[1,2)', '[2024-02-01,2024-03-01)');
CREATE TABLE rules.over_time_unique (id int4range, valid_at tsrange, CONSTRAINT no_two UNIQUE (id, valid_at WITHOUT OVERLAPS));
