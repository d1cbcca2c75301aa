-- Priorities, order keys, pull jobs, expiry, schedules, redrives, edits; what is remembered of producers.

-- A group has twenty lanes: ten priorities, the most urgent first, of jobs to deliver, and then ten of jobs to pull:
-- grp * 20 + 10 (if it is to be pulled) + 9 - priority. A column that is generated would do, but no index covers one.
ALTER TABLE job ADD COLUMN lane         INTEGER NOT NULL DEFAULT 0;
UPDATE job SET lane = grp * 20 + 5;
ALTER TABLE job ADD COLUMN order_key    TEXT;
-- An earlier job with the same order key is unfinished. At most one unfinished job of a key is not blocked.
ALTER TABLE job ADD COLUMN blocked      INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN max_delay    INTEGER;
ALTER TABLE job ADD COLUMN schedule     INTEGER;
ALTER TABLE job ADD COLUMN attempt_base INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN revision     INTEGER NOT NULL DEFAULT 0;

ALTER TABLE job ADD COLUMN expires_at INTEGER GENERATED ALWAYS AS (
    CASE WHEN max_delay IS NULL THEN deadline
         WHEN deadline IS NULL THEN run_at + max_delay
         ELSE min(deadline, run_at + max_delay) END) VIRTUAL;

-- Claims in the order of priority, and what each group waits for.
DROP INDEX job_due;
CREATE INDEX job_due ON job (lane, run_at, id) WHERE state = 'scheduled' AND blocked = 0;
-- Which job of a key is next.
CREATE INDEX job_order ON job (grp, order_key, blocked, id) WHERE order_key IS NOT NULL AND finished_at IS NULL;
-- Jobs that expire while they wait.
CREATE INDEX job_expiry ON job (expires_at) WHERE state = 'scheduled' AND expires_at IS NOT NULL;
-- The unfinished jobs of a schedule.
CREATE INDEX job_schedule ON job (schedule) WHERE schedule IS NOT NULL AND finished_at IS NULL;

-- The numbers of the lanes within their ten.
CREATE TABLE level (number INTEGER PRIMARY KEY) STRICT;
INSERT INTO level (number) VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9);

-- The ticks of a schedule that were dealt with; without a job where it was skipped.
CREATE TABLE tick (
    schedule INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    job      BLOB,
    PRIMARY KEY (schedule, at)
) STRICT, WITHOUT ROWID;

-- What remains of a schedule's ticks when they are removed.
CREATE TABLE ticked (
    schedule INTEGER PRIMARY KEY,
    last     INTEGER NOT NULL,
    runs     INTEGER NOT NULL
) STRICT;

-- What is remembered of producers for a while: answers by idempotency key, jobs by dedupe key, pushes by debounce key.
CREATE TABLE recent (
    tenant     INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    job        BLOB,
    doc        TEXT    NOT NULL,
    PRIMARY KEY (tenant, kind, key)
) STRICT;
CREATE INDEX recent_expiry ON recent (expires_at);
