-- What a fleet keeps beside procrastinate's own tables, in the schema opskit_fleet.

-- One row. `migration` is procrastinate's newest migration that is in here.
CREATE TABLE fleet (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    version int NOT NULL,
    migration text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    ticked_at timestamptz
);

-- Up to which due time the runs of a job have been put into the queue.
CREATE TABLE turns (
    operation text,
    source text,
    line text NOT NULL DEFAULT '', -- its times, as the timetable writes them
    known_since timestamptz NOT NULL,
    done_until timestamptz,
    failures int NOT NULL DEFAULT 0, -- in a row, for this due time
    seconds float8, -- of the last run that went well
    succeeded_at timestamptz, -- when that ended
    PRIMARY KEY (operation, source)
);

CREATE TABLE workers (
    id uuid PRIMARY KEY,
    engine bigint, -- its number in procrastinate_workers
    name text NOT NULL,
    host text NOT NULL,
    pid int NOT NULL,
    version text NOT NULL,
    labels text[] NOT NULL,
    capacity int NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    clock_offset float8 NOT NULL DEFAULT 0,
    state text NOT NULL, -- working, draining, clock-off
    reason text NOT NULL DEFAULT ''
);

CREATE TABLE sources (
    name text PRIMARY KEY,
    rule text NOT NULL,
    label text NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen timestamptz NOT NULL DEFAULT now(),
    gone_since timestamptz
);

-- What is wrong with a rule of [discover]; `since` is when that changed.
CREATE TABLE rules (
    name text PRIMARY KEY,
    fault text NOT NULL DEFAULT '',
    since timestamptz NOT NULL DEFAULT now(),
    answered_at timestamptz,
    reported boolean NOT NULL DEFAULT false
);

-- Whether an attempt at a job is still the current one: the fencing token.
CREATE FUNCTION holds_turn(job bigint, attempt int, worker bigint)
    RETURNS boolean LANGUAGE sql STABLE
    SET search_path = opskit_fleet
AS $$
    SELECT EXISTS (
        SELECT FROM procrastinate_jobs
        WHERE id = job AND attempts = attempt AND worker_id = worker
          AND status = 'doing'
    )
$$;
