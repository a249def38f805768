-- Extensions, as far as the installation has them.

--- an extension with configuration tables: rows of the user's in tables of the extension {needs=kinds_config}
CREATE SCHEMA ext;
CREATE EXTENSION kinds_config SCHEMA ext;
INSERT INTO ext.kinds_setting VALUES ('mine', 'it''s'), ('mine too', NULL);
INSERT INTO ext.kinds_partly VALUES (1001, 'mine'), (1002, 'to change');
SELECT setval('ext.kinds_numbers', 77);
GRANT SELECT ON ext.kinds_setting TO kinds_readers;
REVOKE EXECUTE ON FUNCTION ext.kinds_answer() FROM PUBLIC;
COMMENT ON EXTENSION kinds_config IS 'with settings';
CREATE TABLE public.uses_extension (v ext.kinds_word DEFAULT 'it');
INSERT INTO public.uses_extension DEFAULT VALUES;
CREATE FUNCTION public.goes_with_extension() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER FUNCTION public.goes_with_extension() DEPENDS ON EXTENSION kinds_config;

--- types and operators of an extension in columns, indexes and defaults {needs=hstore}
CREATE SCHEMA ext_hstore;
CREATE EXTENSION hstore SCHEMA ext_hstore;
CREATE TABLE public.hstores (v ext_hstore.hstore DEFAULT 'a=>1'::ext_hstore.hstore);
INSERT INTO public.hstores VALUES ('"k k"=>"v\"", n=>NULL'), ('');
CREATE INDEX hstores_v ON public.hstores USING gin (v);

--- indexes by trigrams, text without case, exclusion by a scalar {needs=pg_trgm needs=citext needs=btree_gist}
CREATE SCHEMA ext_text;
CREATE EXTENSION pg_trgm SCHEMA ext_text;
CREATE EXTENSION citext SCHEMA ext_text;
CREATE EXTENSION btree_gist SCHEMA ext_text;
CREATE TABLE public.trigrams (v text, w ext_text.citext UNIQUE, room int, during int4range, EXCLUDE USING gist (room WITH =, during WITH &&));
INSERT INTO public.trigrams VALUES ('word', 'Word', 1, '[1,2)'), ('another', 'other', 1, '[2,3)');
CREATE INDEX trigrams_v ON public.trigrams USING gin (v ext_text.gin_trgm_ops);

--- an extension whose trigger looks after large objects {needs=lo}
CREATE EXTENSION lo SCHEMA public;
CREATE TABLE public.managed_objects (id int, image public.lo);
CREATE TRIGGER manage BEFORE UPDATE OR DELETE ON public.managed_objects FOR EACH ROW EXECUTE FUNCTION public.lo_manage(image);

--- an extension's wrapper for foreign data {needs=postgres_fdw}
CREATE EXTENSION postgres_fdw SCHEMA public;
CREATE SERVER kinds_postgres FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere.invalid', dbname 'x');
CREATE FOREIGN TABLE public.far_postgres (a int) SERVER kinds_postgres OPTIONS (table_name 'x');

--- vectors and their indexes {needs=vector}
CREATE SCHEMA ext_vector;
CREATE EXTENSION vector SCHEMA ext_vector;
CREATE TABLE public.vectors (v ext_vector.vector(3));
INSERT INTO public.vectors VALUES ('[1,2.5,-0]'), (NULL);
CREATE INDEX vectors_v ON public.vectors USING hnsw (v ext_vector.vector_l2_ops);
