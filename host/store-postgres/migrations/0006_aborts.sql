-- An attempt that is to be cut off, because a newer run of its schedule takes its place.
ALTER TABLE job ADD COLUMN abort_requested BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX job_abort ON job (id) WHERE abort_requested;
