-- Sequences of all sorts.

--- every type and option; handed out or not; at their end
CREATE SCHEMA seqs;
CREATE SEQUENCE seqs.fresh;
CREATE SEQUENCE seqs.used START 7;
SELECT nextval('seqs.used'), nextval('seqs.used');
CREATE SEQUENCE seqs.small AS smallint INCREMENT 3 MINVALUE -10 MAXVALUE 10 START 0 CACHE 5 CYCLE;
SELECT nextval('seqs.small');
CREATE SEQUENCE seqs.down AS int INCREMENT -1 START -1;
SELECT nextval('seqs.down');
CREATE SEQUENCE seqs.at_the_end MAXVALUE 9223372036854775807 START 9223372036854775807;
SELECT nextval('seqs.at_the_end');
CREATE SEQUENCE seqs.set_not_called;
SELECT setval('seqs.set_not_called', 500, false);
CREATE SEQUENCE seqs.increment_to_change INCREMENT 2;
CREATE SEQUENCE seqs.to_drop;
CREATE SEQUENCE seqs.owner_to_change;
CREATE SEQUENCE seqs.cycle_to_lose MAXVALUE 5 CYCLE;
CREATE UNLOGGED SEQUENCE seqs.unlogged;
SELECT nextval('seqs.unlogged');

--- serial columns, and a sequence that another table's column owns
CREATE TABLE seqs.serials (a smallserial, b serial, c bigserial);
INSERT INTO seqs.serials DEFAULT VALUES;
CREATE SEQUENCE seqs.owned_elsewhere OWNED BY seqs.serials.b;
CREATE TABLE seqs.ownership (a serial);
