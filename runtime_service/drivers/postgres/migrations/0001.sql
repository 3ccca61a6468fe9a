-- Tables and functions of the first release; never changed after it, only followed by another file.
-- `{schema}` is replaced.  Old versions run while a newer one migrates: what follows may add, and
-- gives a function that must differ another number.
--
-- Every function is one statement of its client, so that nobody's pause holds a row; each statement
-- within sees what was committed before it began.  Work on a name waits for the row of its lock, in
-- the order of names; only then are sessions read.  A session that is not there holds nothing.

CREATE TABLE {schema}.sessions (
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    session_id text COLLATE "C" PRIMARY KEY,
    owner text NOT NULL,
    ttl interval NOT NULL,
    lock_delay interval NOT NULL,
    labels text NOT NULL,
    opened timestamptz NOT NULL,
    expires timestamptz NOT NULL
) WITH (fillfactor = 50);

-- No foreign key to sessions: emptying `holder` would lock names in whatever order.
CREATE TABLE {schema}.locks (
    name text COLLATE "C" PRIMARY KEY,
    token bigint NOT NULL CHECK (token >= 0),
    holder text COLLATE "C",
    granted timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE {schema}.states (
    name text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    token bigint NOT NULL CHECK (token > 0),
    written timestamptz NOT NULL
);

-- Texts of events are the inside of a JSON string: PostgreSQL takes no NUL.  `size` counts bytes in
-- an answer.  An index entry has room for 2,700 bytes.
CREATE TABLE {schema}.events (
    sequence bigint PRIMARY KEY,
    event_id text COLLATE "C" NOT NULL UNIQUE,
    time timestamptz NOT NULL,
    preset text COLLATE "C" NOT NULL,
    vm_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    rest text NOT NULL,
    size integer NOT NULL
);
CREATE INDEX events_by_preset ON {schema}.events (left(preset, 100), sequence);
CREATE INDEX events_by_vm ON {schema}.events (left(vm_id, 100), sequence);

-- One row: whoever appends holds it until its commit, so that sequences become visible in order.
CREATE TABLE {schema}.journal (
    newest bigint NOT NULL,
    forgotten bigint NOT NULL,
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row)
) WITH (fillfactor = 10);
INSERT INTO {schema}.journal VALUES (0, 0);

CREATE FUNCTION {schema}.refuse_1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a token must not shrink, and a lock must not be deleted';
END $$;
CREATE TRIGGER tokens_only_grow BEFORE UPDATE OF token ON {schema}.locks
    FOR EACH ROW WHEN (NEW.token < OLD.token) EXECUTE FUNCTION {schema}.refuse_1();
CREATE TRIGGER tokens_are_kept BEFORE DELETE ON {schema}.locks
    FOR EACH ROW EXECUTE FUNCTION {schema}.refuse_1();
CREATE TRIGGER all_tokens_are_kept BEFORE TRUNCATE ON {schema}.locks
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse_1();

-- Sessions

CREATE FUNCTION {schema}.open_session_1(
    _id text, _owner text, _ttl interval, _lock_delay interval, _labels text
) RETURNS SETOF {schema}.sessions LANGUAGE plpgsql AS $$
DECLARE
    _now timestamptz;
BEGIN
    -- Those whose locks are free are forgotten; one that somebody is busy with may wait.
    DELETE FROM {schema}.sessions s WHERE s.session_id IN (
        SELECT o.session_id FROM {schema}.sessions o
        WHERE o.expires + o.lock_delay <= clock_timestamp() FOR UPDATE SKIP LOCKED
    );
    _now := clock_timestamp();
    RETURN QUERY
        INSERT INTO {schema}.sessions AS s
            (session_id, owner, ttl, lock_delay, labels, opened, expires)
        VALUES (_id, _owner, _ttl, _lock_delay, _labels, _now, _now + _ttl) RETURNING s.*;
END $$;

-- The row is locked before the clock is read: whoever took a lock over held it meanwhile.
CREATE FUNCTION {schema}.refresh_session_1(_id text, _labels text)
RETURNS SETOF {schema}.sessions LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM {schema}.sessions s WHERE s.session_id = _id FOR NO KEY UPDATE;
    RETURN QUERY
        UPDATE {schema}.sessions s
        SET expires = clock_timestamp() + s.ttl, labels = coalesce(_labels, s.labels)
        WHERE s.session_id = _id AND clock_timestamp() < s.expires RETURNING s.*;
END $$;

CREATE FUNCTION {schema}.close_session_1(_id text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM {schema}.sessions s WHERE s.session_id = _id FOR UPDATE;
    DELETE FROM {schema}.sessions s WHERE s.session_id = _id AND clock_timestamp() < s.expires;
    RETURN FOUND;
END $$;

-- Whether the asker's session is alive; it cannot be closed before this transaction ends.
CREATE FUNCTION {schema}.is_live_1(_id text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _expires timestamptz;
BEGIN
    SELECT s.expires INTO _expires FROM {schema}.sessions s
    WHERE s.session_id = _id FOR KEY SHARE;
    RETURN coalesce(clock_timestamp() < _expires, false);
END $$;

CREATE FUNCTION {schema}.demand_live_1(_id text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT {schema}.is_live_1(_id) THEN
        RAISE EXCEPTION 'the session has expired or was closed' USING ERRCODE = 'VS001';
    END IF;
END $$;

-- Locks

CREATE FUNCTION {schema}.wait_for_locks_1(_names text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM unnest(_names) AS w (name) JOIN {schema}.locks k ON k.name = w.name
    ORDER BY k.name FOR NO KEY UPDATE OF k;
END $$;

-- Each name once.  One row a wish, in order: the token, or else who has it and for how long.
CREATE FUNCTION {schema}.try_lock_1(_id text, _names text[], _floors bigint[])
RETURNS TABLE (token bigint, owner text, remaining interval) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _now timestamptz;
BEGIN
    INSERT INTO {schema}.locks (name, token, granted)
        SELECT w.name, 0, clock_timestamp() FROM unnest(_names) AS w (name)
        WHERE NOT EXISTS (SELECT FROM {schema}.locks k WHERE k.name = w.name)
        ORDER BY w.name COLLATE "C" ON CONFLICT DO NOTHING;
    PERFORM {schema}.wait_for_locks_1(_names);
    PERFORM {schema}.demand_live_1(_id);
    -- A holder that looks over may be under refresh, by a commit that is slow: its row is waited
    -- for, and what is over by this moment afterwards stays over.
    _now := clock_timestamp();
    PERFORM FROM {schema}.sessions s
    WHERE s.expires + s.lock_delay <= _now AND s.session_id <> _id AND s.session_id IN (
        SELECT k.holder FROM unnest(_names) AS w (name) JOIN {schema}.locks k ON k.name = w.name
    ) FOR SHARE;
    RETURN QUERY
        WITH wishes AS MATERIALIZED (
            SELECT w.place, k.name, w.floor, k.token, k.holder = _id AS is_mine,
                h.owner, h.expires + h.lock_delay - _now AS remaining
            FROM unnest(_names, _floors) WITH ORDINALITY AS w (name, floor, place)
            JOIN {schema}.locks k ON k.name = w.name
            LEFT JOIN {schema}.sessions h
                ON h.session_id = k.holder AND h.expires + h.lock_delay > _now
        ), granted AS (
            UPDATE {schema}.locks k
            SET token = greatest(k.token, w.floor) + 1, holder = _id, granted = _now
            FROM wishes w
            WHERE k.name = w.name
                AND CASE WHEN w.is_mine THEN k.token <= w.floor ELSE w.owner IS NULL END
            RETURNING k.name, k.token
        )
        SELECT coalesce(g.token, CASE WHEN w.is_mine THEN w.token END), w.owner, w.remaining
        FROM wishes w LEFT JOIN granted g ON g.name = w.name ORDER BY w.place;
END $$;

-- Each pair once.  The pairs that were held, and are free now.
CREATE FUNCTION {schema}.unlock_1(_id text, _names text[], _tokens bigint[])
RETURNS TABLE (name text, token bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM {schema}.wait_for_locks_1(_names);
    IF {schema}.is_live_1(_id) THEN
        RETURN QUERY
            UPDATE {schema}.locks k SET holder = NULL
            FROM unnest(_names, _tokens) AS w (name, token)
            WHERE k.name = w.name AND k.token = w.token AND k.holder = _id
            RETURNING k.name, k.token;
    END IF;
END $$;

-- States

-- Each name once.  One row a write, in order: whether its lock is held under that token, the newest
-- token, and the version before; it is written if it is held and that version was expected.
CREATE FUNCTION {schema}.put_states_1(
    _id text, _names text[], _values bytea[], _tokens bigint[], _versions bigint[]
) RETURNS TABLE (is_held boolean, newest bigint, version bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM {schema}.wait_for_locks_1(_names);
    PERFORM {schema}.demand_live_1(_id);
    RETURN QUERY
        WITH judged AS MATERIALIZED (
            SELECT w.place, w.name, w.value, w.token, w.version AS expected,
                coalesce(k.holder = _id AND k.token = w.token, false) AS is_held,
                coalesce(k.token, 0) AS newest, coalesce(s.version, 0) AS version
            FROM unnest(_names, _values, _tokens, _versions) WITH ORDINALITY
                AS w (name, value, token, version, place)
            LEFT JOIN {schema}.locks k ON k.name = w.name
            LEFT JOIN {schema}.states s ON s.name = w.name
        ), written AS (
            INSERT INTO {schema}.states AS s (name, value, version, token, written)
            SELECT j.name, j.value, j.version + 1, j.token, clock_timestamp()
            FROM judged j
            WHERE j.is_held AND j.version = j.expected
            ON CONFLICT (name) DO UPDATE SET value = excluded.value,
                version = excluded.version, token = excluded.token, written = excluded.written
        )
        SELECT j.is_held, j.newest, j.version FROM judged j ORDER BY j.place;
END $$;

-- Journal

-- The sequence of each event, in order.  All or none.
CREATE FUNCTION {schema}.append_events_1(
    _ids text[], _times timestamptz[], _presets text[], _vm_ids text[], _kinds text[],
    _rests text[], _sizes integer[], _kept bigint
) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    _journal {schema}.journal;
    _newest bigint;
    _forgotten bigint;
BEGIN
    SELECT j.* INTO _journal FROM {schema}.journal j FOR UPDATE;
    INSERT INTO {schema}.events
        SELECT _journal.newest + row_number() OVER (ORDER BY n.place),
            n.id, n.time, n.preset, n.vm_id, n.kind, n.rest, n.size
        FROM (
            SELECT DISTINCT ON (w.id) w.*
            FROM unnest(_ids, _times, _presets, _vm_ids, _kinds, _rests, _sizes)
                WITH ORDINALITY AS w (id, time, preset, vm_id, kind, rest, size, place)
            WHERE NOT EXISTS (SELECT FROM {schema}.events e WHERE e.event_id = w.id)
            ORDER BY w.id, w.place
        ) n;
    GET DIAGNOSTICS _newest = ROW_COUNT;
    _newest := _journal.newest + _newest;
    _forgotten := greatest(_journal.forgotten, _newest - _kept);
    UPDATE {schema}.journal j SET newest = _newest, forgotten = _forgotten;
    RETURN QUERY
        SELECT e.sequence FROM unnest(_ids) WITH ORDINALITY AS w (id, place)
        JOIN {schema}.events e ON e.event_id = w.id ORDER BY w.place;
    -- Bounded at both ends: what was trimmed before is not searched for again.
    DELETE FROM {schema}.events e
    WHERE e.sequence > _journal.forgotten AND e.sequence <= _forgotten;
    PERFORM pg_notify('{schema}_events', _newest::text);
END $$;
