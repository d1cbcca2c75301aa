-- The newest changes of `entity`, as JSON: pairs of a generation and an id.
ALTER TABLE carillon ADD COLUMN recent TEXT NOT NULL DEFAULT '[]';
