-- Triggers of every kind and state; event triggers.

--- before, after, of a statement, of some columns, with conditions and arguments
CREATE SCHEMA fires;
CREATE TABLE fires.watched (id int PRIMARY KEY, v text, n int);
INSERT INTO fires.watched VALUES (1, 'a', 1);
CREATE FUNCTION fires.pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN COALESCE(NEW, OLD); END $$;
CREATE FUNCTION fires.pass_too() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE FUNCTION fires.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no row may come in'; END $$;
CREATE TRIGGER before_row BEFORE INSERT OR UPDATE OF v, n ON fires.watched FOR EACH ROW WHEN (NEW.v IS DISTINCT FROM 'it''s' AND NEW.n > 0) EXECUTE FUNCTION fires.pass('one', 'it''s', E'two\\\nlines', '');
CREATE TRIGGER after_statement AFTER DELETE OR TRUNCATE ON fires.watched EXECUTE FUNCTION fires.pass();
CREATE TRIGGER with_tables AFTER UPDATE ON fires.watched REFERENCING OLD TABLE AS gone NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION fires.pass();
CREATE CONSTRAINT TRIGGER at_the_end AFTER INSERT ON fires.watched FROM rules.egg DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fires.pass();
CREATE VIEW fires.view AS SELECT id, v FROM fires.watched;
CREATE TRIGGER instead INSTEAD OF INSERT OR UPDATE OR DELETE ON fires.view FOR EACH ROW EXECUTE FUNCTION fires.pass();
COMMENT ON TRIGGER before_row ON fires.watched IS 'of a row';

--- disabled, always, on a replica only; a trigger that would refuse the restored rows
CREATE TRIGGER disabled BEFORE INSERT ON fires.watched FOR EACH ROW EXECUTE FUNCTION fires.refuse();
ALTER TABLE fires.watched DISABLE TRIGGER disabled;
CREATE TRIGGER always AFTER INSERT ON fires.watched FOR EACH ROW EXECUTE FUNCTION fires.pass();
ALTER TABLE fires.watched ENABLE ALWAYS TRIGGER always;
CREATE TRIGGER replica AFTER INSERT ON fires.watched FOR EACH ROW EXECUTE FUNCTION fires.pass();
ALTER TABLE fires.watched ENABLE REPLICA TRIGGER replica;
CREATE TABLE fires.closed (a int);
INSERT INTO fires.closed VALUES (1);
CREATE TRIGGER refuses BEFORE INSERT ON fires.closed FOR EACH ROW EXECUTE FUNCTION fires.refuse();
ALTER TABLE fires.closed ENABLE ALWAYS TRIGGER refuses;
ALTER TABLE fires.closed ENABLE TRIGGER refuses;

--- on partitioned tables: inherited, in another state on one partition
CREATE TABLE fires.parted (a int) PARTITION BY LIST (a);
CREATE TABLE fires.parted_1 PARTITION OF fires.parted FOR VALUES IN (1);
CREATE TABLE fires.parted_2 PARTITION OF fires.parted FOR VALUES IN (2);
CREATE TRIGGER inherited AFTER INSERT ON fires.parted FOR EACH ROW EXECUTE FUNCTION fires.pass();
ALTER TABLE fires.parted_1 DISABLE TRIGGER inherited;
CREATE TRIGGER only_here AFTER INSERT ON fires.parted_2 FOR EACH ROW EXECUTE FUNCTION fires.pass();

--- one trigger for each way to change it
CREATE TABLE fires.changes (a int, b int);
CREATE TRIGGER function_changes BEFORE INSERT ON fires.changes FOR EACH ROW EXECUTE FUNCTION fires.pass();
CREATE TRIGGER condition_changes BEFORE UPDATE ON fires.changes FOR EACH ROW WHEN (NEW.a > 1) EXECUTE FUNCTION fires.pass();
CREATE TRIGGER columns_change BEFORE UPDATE OF a ON fires.changes FOR EACH ROW EXECUTE FUNCTION fires.pass();
CREATE TRIGGER argument_changes BEFORE INSERT ON fires.changes FOR EACH ROW EXECUTE FUNCTION fires.pass('one');
CREATE TRIGGER timing_changes BEFORE INSERT ON fires.changes FOR EACH ROW EXECUTE FUNCTION fires.pass();
CREATE TRIGGER disable_me AFTER INSERT ON fires.changes FOR EACH ROW EXECUTE FUNCTION fires.pass();
CREATE TRIGGER always_me AFTER INSERT ON fires.changes FOR EACH ROW EXECUTE FUNCTION fires.pass();
CREATE TRIGGER replica_me AFTER INSERT ON fires.changes FOR EACH ROW EXECUTE FUNCTION fires.pass();
CREATE TRIGGER goes AFTER INSERT ON fires.changes FOR EACH ROW EXECUTE FUNCTION fires.pass();
CREATE TRIGGER comment_goes AFTER INSERT ON fires.changes FOR EACH ROW EXECUTE FUNCTION fires.pass();
COMMENT ON TRIGGER comment_goes ON fires.changes IS 'for now';

--- event triggers: each event, with tags, in each state; they do nothing
CREATE FUNCTION fires.on_event() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE FUNCTION fires.on_event_too() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE EVENT TRIGGER kinds_start ON ddl_command_start WHEN tag IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION fires.on_event();
CREATE EVENT TRIGGER kinds_end ON ddl_command_end EXECUTE FUNCTION fires.on_event();
CREATE EVENT TRIGGER kinds_drop ON sql_drop EXECUTE FUNCTION fires.on_event();
CREATE EVENT TRIGGER kinds_rewrite ON table_rewrite EXECUTE FUNCTION fires.on_event();
ALTER EVENT TRIGGER kinds_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER kinds_rewrite DISABLE;
CREATE EVENT TRIGGER "kinds odd.name" ON ddl_command_end EXECUTE FUNCTION fires.on_event();
CREATE EVENT TRIGGER kinds_to_drop ON ddl_command_end EXECUTE FUNCTION fires.on_event();
CREATE EVENT TRIGGER kinds_to_change ON ddl_command_end EXECUTE FUNCTION fires.on_event();
COMMENT ON EVENT TRIGGER kinds_end IS 'at the end';

--- an event trigger for every login {since=17}
CREATE EVENT TRIGGER kinds_login ON login EXECUTE FUNCTION fires.on_event();
