-- Constraints.

--- one of the foreign keys of a circle is gone => FK CONSTRAINT rules.chicken from_an_egg
ALTER TABLE rules.chicken DROP CONSTRAINT from_an_egg;

--- a row of a circle points elsewhere => table rules.egg
UPDATE rules.egg SET chicken = 1 WHERE id = 2;

--- a table refers to itself no more => FK CONSTRAINT rules.tree tree_parent_fkey
ALTER TABLE rules.tree DROP CONSTRAINT tree_parent_fkey;

--- a foreign key deletes otherwise => FK CONSTRAINT rules.action_to_change changes
ALTER TABLE rules.action_to_change DROP CONSTRAINT changes;
ALTER TABLE rules.action_to_change ADD CONSTRAINT changes FOREIGN KEY (c) REFERENCES rules.target (c) ON DELETE SET NULL;

--- a foreign key is gone => FK CONSTRAINT rules.key_to_lose loses
ALTER TABLE rules.key_to_lose DROP CONSTRAINT loses;

--- a foreign key sets other columns to NULL => FK CONSTRAINT rules.actions set_some
ALTER TABLE rules.actions DROP CONSTRAINT set_some;
ALTER TABLE rules.actions ADD CONSTRAINT set_some FOREIGN KEY (a, b) REFERENCES rules.target ON DELETE SET NULL (a) ON UPDATE CASCADE;

--- a foreign key does not ask for all or none => FK CONSTRAINT rules.actions all_or_none
ALTER TABLE rules.actions DROP CONSTRAINT all_or_none;
ALTER TABLE rules.actions ADD CONSTRAINT all_or_none FOREIGN KEY (c, d) REFERENCES rules.target;

--- a deferred key is checked at once => FK CONSTRAINT rules.deferrable deferred_key
ALTER TABLE rules.deferrable ALTER CONSTRAINT deferred_key DEFERRABLE INITIALLY IMMEDIATE;

--- a deferrable key is not => FK CONSTRAINT rules.deferrable immediate_key
ALTER TABLE rules.deferrable ALTER CONSTRAINT immediate_key NOT DEFERRABLE;

--- a deferrable unique is not => CONSTRAINT rules.deferrable deferrable_unique
ALTER TABLE rules.deferrable DROP CONSTRAINT deferrable_unique;
ALTER TABLE rules.deferrable ADD CONSTRAINT deferrable_unique UNIQUE (b);

--- a check that is not valid is gone => CHECK CONSTRAINT rules.not_valid never_negative
ALTER TABLE rules.not_valid DROP CONSTRAINT never_negative;

--- a check is valid that was not => rules.not_valid_but_fits
ALTER TABLE rules.not_valid_but_fits VALIDATE CONSTRAINT fits;

--- a check is another => TABLE rules.check_to_change
ALTER TABLE rules.check_to_change DROP CONSTRAINT limited;
ALTER TABLE rules.check_to_change ADD CONSTRAINT limited CHECK (a < 101);

--- a check is gone => TABLE rules.checks_too
ALTER TABLE rules.checks_too DROP CONSTRAINT goes;

--- a comment on a constraint is gone => COMMENT rules.CONSTRAINT order_of ON checks
COMMENT ON CONSTRAINT order_of ON rules.checks IS NULL;

--- an exclusion constraint is gone => CONSTRAINT rules.exclusion_to_lose apart
ALTER TABLE rules.exclusion_to_lose DROP CONSTRAINT apart;

--- an exclusion constraint loses its condition => CONSTRAINT rules.bookings no_overlap
ALTER TABLE rules.bookings DROP CONSTRAINT no_overlap;
ALTER TABLE rules.bookings ADD CONSTRAINT no_overlap EXCLUDE USING gist (room WITH &&, during WITH &&);

--- an exclusion constraint is not deferred => CONSTRAINT rules.bookings no_circles
ALTER TABLE rules.bookings DROP CONSTRAINT no_circles;
ALTER TABLE rules.bookings ADD CONSTRAINT no_circles EXCLUDE USING gist (c WITH &&);

--- nulls are distinct => CONSTRAINT rules.unique_to_change nulls_same
ALTER TABLE rules.unique_to_change DROP CONSTRAINT nulls_same;
ALTER TABLE rules.unique_to_change ADD CONSTRAINT nulls_same UNIQUE (a);

--- a unique key takes no column along => CONSTRAINT rules.uniques covering
ALTER TABLE rules.uniques DROP CONSTRAINT covering;
ALTER TABLE rules.uniques ADD CONSTRAINT covering UNIQUE (b) WITH (fillfactor = 80);

--- a primary key is gone => CONSTRAINT rules.primary_key_to_lose primary_loses
ALTER TABLE rules.primary_key_to_lose DROP CONSTRAINT primary_loses;

--- a primary key has another name => CONSTRAINT rules.key_by_index key_from_index
ALTER TABLE rules.key_by_index RENAME CONSTRAINT key_from_index TO another;

--- a column may be NULL that might not => TABLE rules.not_null
ALTER TABLE rules.not_null ALTER COLUMN a DROP NOT NULL;

--- a constraint of not null has another name => TABLE rules.named_not_null {since=18}
ALTER TABLE rules.named_not_null RENAME CONSTRAINT a_is_there TO a_is_here;

--- a constraint of not null that is not valid is gone => rules.named_not_null b_from_now_on {since=18}
ALTER TABLE rules.named_not_null DROP CONSTRAINT b_from_now_on;

--- a check that nobody asked is gone => rules.not_enforced nobody_asks {since=18}
ALTER TABLE rules.not_enforced DROP CONSTRAINT nobody_asks;

--- a foreign key that nobody asked is gone => FK CONSTRAINT rules.not_enforced no_egg {since=18}
ALTER TABLE rules.not_enforced DROP CONSTRAINT no_egg;

--- a foreign key over time is gone => FK CONSTRAINT rules.over_time_child over_time_fk {since=18}
ALTER TABLE rules.over_time_child DROP CONSTRAINT over_time_fk;

--- a key over time is over time no more => CONSTRAINT rules.over_time_unique no_two {since=18}
ALTER TABLE rules.over_time_unique DROP CONSTRAINT no_two;
ALTER TABLE rules.over_time_unique ADD CONSTRAINT no_two UNIQUE (id, valid_at);
