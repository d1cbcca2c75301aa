-- How long each life of a job with a deadline lasts, from the first redrive on; before it, `deadline - created_at` says it.
ALTER TABLE job ADD COLUMN ttl INTEGER;
