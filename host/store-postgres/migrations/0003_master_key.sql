-- A constant, sealed with the master key of the first server that served from this database: which key the others must have. One row.
CREATE TABLE master_key (
    id     BIGINT PRIMARY KEY CHECK (id = 1),
    sealed TEXT   NOT NULL
);
