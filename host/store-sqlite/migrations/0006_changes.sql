-- The newest changes of `entity`, as JSON: pairs of a generation and an id.
ALTER TABLE generation ADD COLUMN recent TEXT NOT NULL DEFAULT '[]';
