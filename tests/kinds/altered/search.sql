-- Text search.

--- a parser is gone => TEXT SEARCH PARSER search.parser_to_drop
DROP TEXT SEARCH PARSER search.parser_to_drop;

--- a template is gone => TEXT SEARCH TEMPLATE search.template_to_drop
DROP TEXT SEARCH TEMPLATE search.template_to_drop;

--- a dictionary is gone => TEXT SEARCH DICTIONARY search.dictionary_to_drop
DROP TEXT SEARCH DICTIONARY search.dictionary_to_drop;

--- an option of a dictionary => TEXT SEARCH DICTIONARY search.dictionary_to_change
ALTER TEXT SEARCH DICTIONARY search.dictionary_to_change (stopwords = 'german');

--- a configuration is gone => TEXT SEARCH CONFIGURATION search.configuration_to_drop
DROP TEXT SEARCH CONFIGURATION search.configuration_to_drop;

--- a mapping => TEXT SEARCH CONFIGURATION search.mapping_to_change
ALTER TEXT SEARCH CONFIGURATION search.mapping_to_change ALTER MAPPING FOR word WITH pg_catalog.english_stem;

--- an owner of a configuration => TEXT SEARCH CONFIGURATION search.copied
ALTER TEXT SEARCH CONFIGURATION search.copied OWNER TO kinds_bob;

--- a comment on a dictionary => COMMENT search.TEXT SEARCH DICTIONARY stems
COMMENT ON TEXT SEARCH DICTIONARY search.stems IS NULL;

--- a comment on a parser => COMMENT search.TEXT SEARCH PARSER parser
COMMENT ON TEXT SEARCH PARSER search.parser IS NULL;

--- a column uses another configuration => TABLE search.documents
ALTER TABLE search.documents DROP COLUMN words;
ALTER TABLE search.documents ADD COLUMN words tsvector GENERATED ALWAYS AS (to_tsvector('pg_catalog.simple', body)) STORED;

--- an index uses another configuration => INDEX search.documents_words
DROP INDEX search.documents_words;
CREATE INDEX documents_words ON search.documents USING gin (to_tsvector('pg_catalog.simple', body));
