CREATE FUNCTION @extschema@.kinds_answer() RETURNS int LANGUAGE sql AS 'SELECT 42';
