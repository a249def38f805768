-- Extensions and what lies in them.

--- a row of a configuration table => table ext.kinds_setting {needs=kinds_config}
UPDATE ext.kinds_setting SET value = 'yours' WHERE name = 'mine';

--- a row of a configuration table that is dumped in part => table ext.kinds_partly {needs=kinds_config}
UPDATE ext.kinds_partly SET value = 'changed' WHERE id = 1002;

--- a sequence of an extension => sequence ext.kinds_numbers {needs=kinds_config}
SELECT setval('ext.kinds_numbers', 1);

--- a grant on an extension's table => ACL ext.TABLE kinds_setting {needs=kinds_config}
REVOKE SELECT ON ext.kinds_setting FROM kinds_readers;

--- a grant on an extension's function => ACL ext.FUNCTION kinds_answer() {needs=kinds_config}
GRANT EXECUTE ON FUNCTION ext.kinds_answer() TO PUBLIC;

--- a function goes with an extension no more => FUNCTION public.goes_with_extension() {needs=kinds_config}
ALTER FUNCTION public.goes_with_extension() NO DEPENDS ON EXTENSION kinds_config;

--- a comment on an extension => COMMENT EXTENSION kinds_config {needs=kinds_config}
COMMENT ON EXTENSION kinds_config IS 'without';

--- a value of an extension's type => table public.hstores {needs=hstore}
UPDATE public.hstores SET v = '"k k"=>"v", n=>NULL' WHERE v::text <> '';

--- an index by an extension's class => INDEX public.trigrams_v {needs=pg_trgm needs=citext needs=btree_gist}
DROP INDEX public.trigrams_v;

--- a text without case, in another case => table public.trigrams {needs=pg_trgm needs=citext needs=btree_gist}
UPDATE public.trigrams SET w = 'WORD' WHERE v = 'word';

--- a trigger of an extension's function => TRIGGER public.managed_objects manage {needs=lo}
DROP TRIGGER manage ON public.managed_objects;

--- an extension's wrapper => FOREIGN TABLE public.far_postgres {needs=postgres_fdw}
ALTER FOREIGN TABLE public.far_postgres OPTIONS (SET table_name 'y');

--- a vector => table public.vectors {needs=vector}
UPDATE public.vectors SET v = '[1,2.5,0]' WHERE v IS NOT NULL;

--- an index of vectors => INDEX public.vectors_v {needs=vector}
DROP INDEX public.vectors_v;
