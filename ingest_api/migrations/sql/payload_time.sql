-- payload_time: a time as payloads carry it: RFC 3339, UTC, microseconds. (Marked immutable, which to_char over a
-- timestamp is not in general, but is for this format: no name of a month or day in it.)
CREATE FUNCTION payload_time(moment timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
