-- Text search of one's own.

--- parsers, templates, dictionaries with options, configurations with mappings
CREATE SCHEMA search;
CREATE TEXT SEARCH PARSER search.parser (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end, lextypes = prsd_lextype, headline = prsd_headline);
CREATE TEXT SEARCH TEMPLATE search.template (init = dsimple_init, lexize = dsimple_lexize);
CREATE TEXT SEARCH DICTIONARY search.plain (template = search.template, accept = false);
CREATE TEXT SEARCH DICTIONARY search.stems (template = pg_catalog.snowball, language = 'german', stopwords = 'german');
CREATE TEXT SEARCH CONFIGURATION search.words (parser = search.parser);
ALTER TEXT SEARCH CONFIGURATION search.words ADD MAPPING FOR asciiword, word WITH search.plain, search.stems, pg_catalog.simple;
ALTER TEXT SEARCH CONFIGURATION search.words ADD MAPPING FOR numword WITH pg_catalog.simple;
CREATE TEXT SEARCH CONFIGURATION search.copied (copy = pg_catalog.english);
ALTER TEXT SEARCH CONFIGURATION search.copied DROP MAPPING FOR email, url;
COMMENT ON TEXT SEARCH PARSER search.parser IS 'p';
COMMENT ON TEXT SEARCH TEMPLATE search.template IS 't';
COMMENT ON TEXT SEARCH DICTIONARY search.stems IS 'd';
COMMENT ON TEXT SEARCH CONFIGURATION search.words IS 'c';

--- a generated column and an index that use them
CREATE TABLE search.documents (body text, words tsvector GENERATED ALWAYS AS (to_tsvector('search.words', body)) STORED);
INSERT INTO search.documents VALUES ('Die Häuser stehen 42 Jahre'), (NULL);
CREATE INDEX documents_words ON search.documents USING gin (to_tsvector('search.words', body));

--- some to take away
CREATE TEXT SEARCH PARSER search.parser_to_drop (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end, lextypes = prsd_lextype);
CREATE TEXT SEARCH TEMPLATE search.template_to_drop (lexize = dsimple_lexize);
CREATE TEXT SEARCH DICTIONARY search.dictionary_to_drop (template = pg_catalog.simple);
CREATE TEXT SEARCH DICTIONARY search.dictionary_to_change (template = pg_catalog.simple, stopwords = 'english');
CREATE TEXT SEARCH CONFIGURATION search.configuration_to_drop (copy = pg_catalog.simple);
CREATE TEXT SEARCH CONFIGURATION search.mapping_to_change (copy = pg_catalog.simple);
