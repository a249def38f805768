-- Sequences: their place, and what they are.

--- a sequence is set back => sequence seqs.used
SELECT setval('seqs.used', 7);

--- a value is not handed out yet => sequence seqs.down
SELECT setval('seqs.down', -1, false);

--- a fresh sequence has handed one out => sequence seqs.fresh
SELECT nextval('seqs.fresh');

--- a value is handed out already => sequence seqs.set_not_called
SELECT setval('seqs.set_not_called', 500, true);

--- the sequence of a serial column => sequence seqs.serials_c_seq
SELECT setval('seqs.serials_c_seq', 99);

--- the sequence of an identity => sequence parts.identity_id_seq {since=17}
SELECT setval('parts.identity_id_seq', 1, false);

--- another increment => SEQUENCE seqs.increment_to_change
ALTER SEQUENCE seqs.increment_to_change INCREMENT 3;

--- no cycle => SEQUENCE seqs.cycle_to_lose
ALTER SEQUENCE seqs.cycle_to_lose NO CYCLE;

--- another cache and type => SEQUENCE seqs.small
ALTER SEQUENCE seqs.small AS int CACHE 1;

--- a sequence is gone => SEQUENCE seqs.to_drop
DROP SEQUENCE seqs.to_drop;

--- a sequence has another owner => SEQUENCE seqs.owner_to_change
ALTER SEQUENCE seqs.owner_to_change OWNER TO kinds_bob;

--- a sequence belongs to no column => seqs.ownership_a_seq
ALTER SEQUENCE seqs.ownership_a_seq OWNED BY NONE;

--- an unlogged sequence is logged => SEQUENCE seqs.unlogged
ALTER SEQUENCE seqs.unlogged SET LOGGED;
