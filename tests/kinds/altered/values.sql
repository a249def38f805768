-- One value of each type, changed to one that looks like it.

--- a numeric gains a zero at its end => table vals.numerics
UPDATE vals.numerics SET a = 1.100 WHERE a = 1.1 AND scale(a) = 1;

--- not a number becomes a number => table vals.numeric_nan
UPDATE vals.numeric_nan SET v = 0 WHERE v = 'NaN';

--- the largest smallint shrinks by one => table vals.integers
UPDATE vals.integers SET a = 32766 WHERE a = 32767;

--- the last digit of a float => table vals.floats
UPDATE vals.floats SET b = 0.3 WHERE b = 0.30000000000000004;

--- an infinity becomes the largest float => table vals.float_infinity
UPDATE vals.float_infinity SET v = '1.7976931348623157e308' WHERE v = 'Infinity';

--- a negative zero loses its sign, and is equal still => table vals.float_negative_zero
UPDATE vals.float_negative_zero SET v = 0 WHERE v::text = '-0';

--- not a number becomes NULL => table vals.float_nan
UPDATE vals.float_nan SET v = NULL;

--- a cent => table vals.moneys
UPDATE vals.moneys SET v = v + 0.01::numeric::money WHERE v = 12.34::numeric::money;

--- unknown becomes false => table vals.booleans
UPDATE vals.booleans SET v = false WHERE v IS NULL;

--- a date before Christ comes after => table vals.dates
UPDATE vals.dates SET v = '4713-01-01' WHERE v = '4713-01-01 BC';

--- a microsecond => table vals.timestamps
UPDATE vals.timestamps SET v = v - interval '1 microsecond' WHERE v = '294276-12-31 23:59:59.999999';

--- a moment without end becomes one => table vals.timestamps_with_zone
UPDATE vals.timestamps_with_zone SET v = '294276-12-31 23:59:59.999999+00' WHERE v = 'infinity';

--- midnight at the end of a day becomes that at its start => table vals.times
UPDATE vals.times SET a = '00:00:00' WHERE a = '24:00:00';

--- a month becomes 30 days, and is equal still => table vals.intervals
UPDATE vals.intervals SET v = '30 days' WHERE v::text = '1 mon';

--- a limited interval loses its milliseconds => table vals.intervals_limited
UPDATE vals.intervals_limited SET a = date_trunc('second', a);

--- an interval without end => table vals.intervals_infinite {since=17}
UPDATE vals.intervals_infinite SET v = '178000000 years' WHERE v = 'infinity';

--- json loses a blank => table vals.jsons
UPDATE vals.jsons SET v = replace(v::text, '  ', ' ')::json WHERE v::text LIKE '%"b": 1,  %';

--- jsonb: the scale of a number => table vals.jsonbs
UPDATE vals.jsonbs SET v = '{"b": 1.0, "a": 1.0}' WHERE v ? 'b';

--- jsonpath: a flag => table vals.jsonpaths
UPDATE vals.jsonpaths SET v = 'strict $.a[*] ? (@.b > 1 && @ like_regex "^x\\d")';

--- xml loses a blank => table vals.xmls {needs=xml}
UPDATE vals.xmls SET v = '<a b="1"/>' WHERE v::text = '<a  b="1"/>';

--- no bytes become nothing => table vals.byteas
UPDATE vals.byteas SET v = NULL WHERE v = '';

--- bits lose a leading zero => table vals.bits
UPDATE vals.bits SET b = B'001' WHERE b = B'0001';

--- an address without its host bits => table vals.inets
UPDATE vals.inets SET a = '192.168.0.0/24' WHERE a = '192.168.0.1/24';

--- a hardware address => table vals.macaddrs
UPDATE vals.macaddrs SET a = '08:00:2b:01:02:04';

--- a weight of a lexeme => table vals.tsvectors
UPDATE vals.tsvectors SET v = 'fat:2,4 rat:5B,12B' WHERE v @@ 'rat';

--- a prefix mark of a query => table vals.tsqueries
UPDATE vals.tsqueries SET v = 'fat & (rat | !cat:AB) <2> dog' WHERE v <> '';

--- an open path is closed => table vals.shapes
UPDATE vals.shapes SET e = pclose(e) WHERE isopen(e);

--- one digit of a uuid => table vals.uuids
UPDATE vals.uuids SET v = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12' WHERE v::text LIKE 'a0%';

--- an access list loses an option => table vals.inner_types
UPDATE vals.inner_types SET l = 'kinds_alice=rw/kinds_bob' WHERE l IS NOT NULL;

--- the name of a function => table vals.reg_types
UPDATE vals.reg_types SET b = 'pg_catalog.version' WHERE a = 'vals.uuids'::regclass;
