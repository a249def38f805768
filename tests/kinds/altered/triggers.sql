-- Triggers and event triggers.

--- a trigger calls another function => TRIGGER fires.changes function_changes
CREATE OR REPLACE TRIGGER function_changes BEFORE INSERT ON fires.changes FOR EACH ROW EXECUTE FUNCTION fires.pass_too();

--- a condition => TRIGGER fires.changes condition_changes
CREATE OR REPLACE TRIGGER condition_changes BEFORE UPDATE ON fires.changes FOR EACH ROW WHEN (NEW.a > 2) EXECUTE FUNCTION fires.pass();

--- columns => TRIGGER fires.changes columns_change
CREATE OR REPLACE TRIGGER columns_change BEFORE UPDATE OF b ON fires.changes FOR EACH ROW EXECUTE FUNCTION fires.pass();

--- an argument => TRIGGER fires.changes argument_changes
CREATE OR REPLACE TRIGGER argument_changes BEFORE INSERT ON fires.changes FOR EACH ROW EXECUTE FUNCTION fires.pass('two');

--- when it fires => TRIGGER fires.changes timing_changes
DROP TRIGGER timing_changes ON fires.changes;
CREATE TRIGGER timing_changes AFTER INSERT ON fires.changes FOR EACH ROW EXECUTE FUNCTION fires.pass();

--- a trigger is disabled => TRIGGER fires.changes disable_me
ALTER TABLE fires.changes DISABLE TRIGGER disable_me;

--- a trigger fires always => TRIGGER fires.changes always_me
ALTER TABLE fires.changes ENABLE ALWAYS TRIGGER always_me;

--- a trigger fires on replicas only => TRIGGER fires.changes replica_me
ALTER TABLE fires.changes ENABLE REPLICA TRIGGER replica_me;

--- a disabled trigger is enabled => TRIGGER fires.watched disabled
ALTER TABLE fires.watched ENABLE TRIGGER disabled;

--- a trigger is gone => TRIGGER fires.changes goes
DROP TRIGGER goes ON fires.changes;

--- a trigger instead of a view's rows is gone => TRIGGER fires.view instead
DROP TRIGGER instead ON fires.view;

--- a constraint trigger fires at once => TRIGGER fires.watched at_the_end
DROP TRIGGER at_the_end ON fires.watched;
CREATE CONSTRAINT TRIGGER at_the_end AFTER INSERT ON fires.watched FROM rules.egg DEFERRABLE INITIALLY IMMEDIATE FOR EACH ROW EXECUTE FUNCTION fires.pass();

--- names of transition tables => TRIGGER fires.watched with_tables
DROP TRIGGER with_tables ON fires.watched;
CREATE TRIGGER with_tables AFTER UPDATE ON fires.watched REFERENCING OLD TABLE AS went NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION fires.pass();

--- a trigger that one partition had disabled => fires.parted_1 inherited
ALTER TABLE fires.parted_1 ENABLE TRIGGER inherited;

--- a trigger of one partition is gone => TRIGGER fires.parted_2 only_here
DROP TRIGGER only_here ON fires.parted_2;

--- a comment on a trigger is gone => COMMENT fires.TRIGGER comment_goes ON changes
COMMENT ON TRIGGER comment_goes ON fires.changes IS NULL;

--- an event trigger is disabled => EVENT TRIGGER kinds_end
ALTER EVENT TRIGGER kinds_end DISABLE;

--- an event trigger is enabled => EVENT TRIGGER kinds_rewrite
ALTER EVENT TRIGGER kinds_rewrite ENABLE;

--- an event trigger has other tags => EVENT TRIGGER kinds_start
DROP EVENT TRIGGER kinds_start;
CREATE EVENT TRIGGER kinds_start ON ddl_command_start WHEN tag IN ('CREATE TABLE') EXECUTE FUNCTION fires.on_event();

--- an event trigger calls another function => EVENT TRIGGER kinds_to_change
DROP EVENT TRIGGER kinds_to_change;
CREATE EVENT TRIGGER kinds_to_change ON ddl_command_end EXECUTE FUNCTION fires.on_event_too();

--- an event trigger is gone => EVENT TRIGGER kinds_to_drop
DROP EVENT TRIGGER kinds_to_drop;

--- a comment on an event trigger => COMMENT EVENT TRIGGER kinds_end
COMMENT ON EVENT TRIGGER kinds_end IS 'at its end';

--- an event trigger of logins is gone => EVENT TRIGGER kinds_login {since=17}
DROP EVENT TRIGGER kinds_login;
