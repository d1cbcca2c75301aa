-- Times are milliseconds since 1970 (UTC); ids of jobs are the 16 bytes of a UUID of version 7.

-- "Carl": marks the file as ours, so that another program's database is never written to.
PRAGMA application_id = 1130459756;

-- What is configured. Only groups are deleted in two steps: `deleted_at` frees the name at once, the row goes with its last job.
CREATE TABLE entity (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant     INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    doc        TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
CREATE UNIQUE INDEX entity_name ON entity (tenant, kind, name) WHERE deleted_at IS NULL;
CREATE INDEX entity_deleted ON entity (id) WHERE deleted_at IS NOT NULL;

-- One row. Rises with every change of `entity`.
CREATE TABLE generation (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    number INTEGER NOT NULL
) STRICT;
INSERT INTO generation (one, number) VALUES (1, 0);

CREATE TABLE component (
    digest TEXT PRIMARY KEY,
    bytes  BLOB NOT NULL
) STRICT;

-- What changes while a job lives. Narrow, so that many rows share a page.
CREATE TABLE job (
    id               BLOB    PRIMARY KEY,
    tenant           INTEGER NOT NULL,
    grp              INTEGER NOT NULL REFERENCES entity (id),
    name             TEXT,
    state            TEXT    NOT NULL,
    run_at           INTEGER NOT NULL,
    lease_until      INTEGER,
    token            INTEGER NOT NULL DEFAULT 0,
    lost_leases      INTEGER NOT NULL DEFAULT 0,
    attempt_count    INTEGER NOT NULL DEFAULT 0,
    created_at       INTEGER NOT NULL,
    finished_at      INTEGER,
    deadline         INTEGER,
    seed             INTEGER NOT NULL,
    last_status      INTEGER,
    last_error       TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CHECK ((state IN ('scheduled', 'running')) = (finished_at IS NULL))
) STRICT, WITHOUT ROWID;
-- Claims, and what each group waits for.
CREATE INDEX job_due ON job (grp, run_at, id) WHERE state = 'scheduled';
-- Leases that ended.
CREATE INDEX job_lease ON job (lease_until) WHERE state = 'running';
-- Retention.
CREATE INDEX job_finished ON job (state, finished_at) WHERE finished_at IS NOT NULL;
-- Lists, newest first, of all states (by merging them) or of one; exact counts; what a deleted group still holds.
CREATE INDEX job_state ON job (grp, state, id);
-- Lists by name.
CREATE INDEX job_name ON job (grp, name, id) WHERE name IS NOT NULL;

-- What never changes. Has a rowid, because rows of this size would make the inner pages of a WITHOUT ROWID tree tiny in fan-out.
CREATE TABLE job_spec (
    job  BLOB PRIMARY KEY NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    spec TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- A number is used again as long as its attempt is not spent: the newer row replaces the older. Has a rowid for the same reason.
CREATE TABLE attempt (
    job           BLOB    NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number        INTEGER NOT NULL,
    started_at    INTEGER NOT NULL,
    finished_at   INTEGER NOT NULL,
    outcome       TEXT    NOT NULL,
    status        INTEGER,
    detail        TEXT    NOT NULL,
    response_body BLOB    NOT NULL,
    PRIMARY KEY (job, number)
) STRICT;

-- A job as it is shown.
CREATE VIEW job_shown AS
    SELECT job.*, job_spec.spec, length(job_spec.body) AS body_len
    FROM job JOIN job_spec ON job_spec.job = job.id;
