-- Times are milliseconds since 1970 (UTC); ids of jobs are UUIDs of version 7, which sort by the time of acceptance. Texts that are
-- compared or sorted are so byte for byte (COLLATE "C"), whatever the locale of the database.

-- One row. Marks the schema as ours, so that another program's database is never written to. `generation` rises with every change of
-- `entity`. A program can work with this schema if it knows the one of version `needs`: a migration that takes away what older programs
-- need raises it.
CREATE TABLE carillon (
    one        BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one),
    generation BIGINT  NOT NULL DEFAULT 0,
    needs      BIGINT  NOT NULL DEFAULT 1
);
INSERT INTO carillon DEFAULT VALUES;

-- The nodes that live, or did a short while ago. Jobs do not depend on it.
CREATE TABLE node (
    id      UUID   PRIMARY KEY,
    since   BIGINT NOT NULL,
    beat_at BIGINT NOT NULL,
    doc     TEXT   NOT NULL
);

-- What is configured. Only groups are deleted in two steps: `deleted_at` frees the name at once, the row goes with its last job.
CREATE TABLE entity (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant     BIGINT NOT NULL,
    kind       TEXT   NOT NULL,
    name       TEXT   COLLATE "C" NOT NULL,
    version    BIGINT NOT NULL,
    doc        TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX entity_name ON entity (tenant, kind, name) WHERE deleted_at IS NULL;
CREATE INDEX entity_deleted ON entity (id) WHERE deleted_at IS NOT NULL;

CREATE TABLE component (
    digest TEXT  PRIMARY KEY,
    bytes  BYTEA NOT NULL
);

-- The jobs that are not over, and nothing else: what is claimed from stays as small as the work that is left, and is cheap to vacuum.
CREATE TABLE job (
    id               UUID    PRIMARY KEY,
    tenant           BIGINT  NOT NULL,
    grp              BIGINT  NOT NULL,
    -- A group has twenty lanes: ten priorities, the most urgent first, of jobs to deliver, and then ten of jobs to pull:
    -- grp * 20 + 10 (if it is to be pulled) + 9 - priority.
    lane             BIGINT  NOT NULL,
    run_at           BIGINT  NOT NULL,
    state            TEXT    NOT NULL CHECK (state IN ('scheduled', 'running')),
    -- An earlier job with the same order key is unfinished.
    blocked          BOOLEAN NOT NULL,
    cancel_requested BOOLEAN NOT NULL DEFAULT FALSE,
    lease_until      BIGINT,
    token            BIGINT  NOT NULL DEFAULT 0,
    lost_leases      BIGINT  NOT NULL DEFAULT 0,
    attempt_count    BIGINT  NOT NULL DEFAULT 0,
    attempt_base     BIGINT  NOT NULL DEFAULT 0,
    revision         BIGINT  NOT NULL DEFAULT 0,
    seed             BIGINT  NOT NULL,
    created_at       BIGINT  NOT NULL,
    deadline         BIGINT,
    max_delay        BIGINT,
    -- The sum is taken as NUMERIC because a delay may be as long as a number can say.
    expires_at       BIGINT  GENERATED ALWAYS AS (
        least(deadline, least(run_at::NUMERIC + max_delay, 9223372036854775807)::BIGINT)) STORED,
    schedule         BIGINT,
    last_status      BIGINT,
    name             TEXT COLLATE "C",
    order_key        TEXT COLLATE "C",
    last_error       TEXT,
    CHECK ((state = 'running') = (lease_until IS NOT NULL))
) WITH (
    -- Rows live a short time and are rewritten: room for that on their page, and a vacuum that comes early and is not slowed down.
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);
-- Claims in the order of priority, and what each group waits for.
CREATE INDEX job_due ON job (lane, run_at, id) WHERE state = 'scheduled' AND NOT blocked;
-- Leases that ended.
CREATE INDEX job_lease ON job (lease_until) WHERE lease_until IS NOT NULL;
-- Jobs that expire while they wait.
CREATE INDEX job_expiry ON job (expires_at) WHERE state = 'scheduled' AND expires_at IS NOT NULL;
-- Which job of a key is next; and that at most one of a key is not blocked.
CREATE INDEX job_order ON job (grp, order_key, blocked, id) WHERE order_key IS NOT NULL;
CREATE UNIQUE INDEX job_order_head ON job (grp, order_key) WHERE order_key IS NOT NULL AND NOT blocked;
-- The unfinished jobs of a schedule.
CREATE INDEX job_schedule ON job (schedule) WHERE schedule IS NOT NULL;
-- Lists, newest first; exact counts.
CREATE INDEX job_state ON job (grp, state, id);
-- Lists by name.
CREATE INDEX job_name ON job (grp, name, id) WHERE name IS NOT NULL;

-- What is kept of jobs, over or not, lies in partitions by the time of acceptance, which is what ids begin with: from `from_ms` on and
-- before `until_ms`, each three tables `job_done_<from_ms>`, `job_spec_<from_ms>`, `attempt_<from_ms>`. They are made ahead of time and
-- dropped when all that is in them is old. What falls into none of them is in the tables of the `_rest`.
CREATE TABLE era (
    from_ms  BIGINT PRIMARY KEY,
    until_ms BIGINT NOT NULL
);

-- The jobs that are over. A job moves here with the settlement that ends it.
CREATE TABLE job_done (
    id               UUID    PRIMARY KEY,
    tenant           BIGINT  NOT NULL,
    grp              BIGINT  NOT NULL,
    lane             BIGINT  NOT NULL,
    run_at           BIGINT  NOT NULL,
    state            TEXT    NOT NULL CHECK (state IN ('succeeded', 'dead', 'expired', 'cancelled')),
    finished_at      BIGINT  NOT NULL,
    cancel_requested BOOLEAN NOT NULL,
    token            BIGINT  NOT NULL,
    attempt_count    BIGINT  NOT NULL,
    attempt_base     BIGINT  NOT NULL,
    revision         BIGINT  NOT NULL,
    seed             BIGINT  NOT NULL,
    created_at       BIGINT  NOT NULL,
    deadline         BIGINT,
    max_delay        BIGINT,
    schedule         BIGINT,
    last_status      BIGINT,
    name             TEXT COLLATE "C",
    order_key        TEXT COLLATE "C",
    last_error       TEXT
) PARTITION BY RANGE (id);
CREATE TABLE job_done_rest PARTITION OF job_done DEFAULT;
-- Retention.
CREATE INDEX job_done_finished ON job_done (state, finished_at);
-- Lists, newest first; exact counts; what a deleted group still holds.
CREATE INDEX job_done_state ON job_done (grp, state, id);
CREATE INDEX job_done_name ON job_done (grp, name, id) WHERE name IS NOT NULL;

-- What never changes of a job, over or not. `spec` is JSON as text: a text may contain the character zero, which JSONB refuses.
-- `labels` are the metadata, made safe to ask for: `["name=value", …]`, percent-encoded.
CREATE TABLE job_spec (
    job    UUID  PRIMARY KEY,
    spec   TEXT  NOT NULL,
    labels JSONB,
    body   BYTEA NOT NULL
) PARTITION BY RANGE (job);
CREATE TABLE job_spec_rest PARTITION OF job_spec DEFAULT;

-- A number is used again as long as its attempt is not spent: the newer row replaces the older.
CREATE TABLE attempt (
    job           UUID   NOT NULL,
    number        BIGINT NOT NULL,
    started_at    BIGINT NOT NULL,
    finished_at   BIGINT NOT NULL,
    outcome       TEXT   NOT NULL,
    status        BIGINT,
    detail        TEXT   NOT NULL,
    response_body BYTEA  NOT NULL,
    PRIMARY KEY (job, number)
) PARTITION BY RANGE (job);
CREATE TABLE attempt_rest PARTITION OF attempt DEFAULT;

-- A job as it is shown.
CREATE VIEW job_shown AS
    SELECT id, tenant, grp, lane, run_at, state, NULL::BIGINT AS finished_at, cancel_requested, attempt_count, attempt_base, revision,
        seed, created_at, deadline, max_delay, last_status, name, order_key, last_error, spec, octet_length(body)::BIGINT AS body_len
    FROM job JOIN job_spec ON job_spec.job = job.id
    UNION ALL
    SELECT id, tenant, grp, lane, run_at, state, finished_at, cancel_requested, attempt_count, attempt_base, revision,
        seed, created_at, deadline, max_delay, last_status, name, order_key, last_error, spec, octet_length(body)::BIGINT
    FROM job_done JOIN job_spec ON job_spec.job = job_done.id;

-- The ticks of a schedule that were dealt with; without a job where it was skipped.
CREATE TABLE tick (
    schedule BIGINT NOT NULL,
    at       BIGINT NOT NULL,
    job      UUID,
    PRIMARY KEY (schedule, at)
);

-- What remains of a schedule's ticks when they are removed.
CREATE TABLE ticked (
    schedule BIGINT PRIMARY KEY,
    last     BIGINT NOT NULL,
    runs     BIGINT NOT NULL
);

-- What is remembered of producers for a while: answers by idempotency key, jobs by dedupe key, pushes by debounce key.
CREATE TABLE recent (
    tenant     BIGINT NOT NULL,
    kind       TEXT   COLLATE "C" NOT NULL,
    key        TEXT   COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL,
    job        UUID,
    doc        TEXT   NOT NULL,
    PRIMARY KEY (tenant, kind, key)
);
CREATE INDEX recent_expiry ON recent (expires_at);
