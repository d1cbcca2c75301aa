-- Why a tick made no job, and the first and the number of the ticks that its row stands for.
ALTER TABLE tick ADD COLUMN reason TEXT;
ALTER TABLE tick ADD COLUMN skipped_from BIGINT;
ALTER TABLE tick ADD COLUMN skipped_count BIGINT;

-- How many of the runs were asked for, by hand or by a backfill, and how many ticks made no job.
ALTER TABLE ticked ADD COLUMN extra BIGINT NOT NULL DEFAULT 0;
ALTER TABLE ticked ADD COLUMN skipped BIGINT NOT NULL DEFAULT 0;
