-- The audit log: a chain of entries for each node. The columns up to `name` repeat members of `doc`, by which entries are found.
CREATE TABLE audit (
    id       BLOB    PRIMARY KEY,
    at       INTEGER NOT NULL,
    node     TEXT    NOT NULL,
    number   INTEGER NOT NULL,
    tenant   INTEGER NOT NULL,
    actor    TEXT    NOT NULL,
    verb     TEXT    NOT NULL,
    kind     TEXT    NOT NULL,
    name     TEXT,
    previous TEXT    NOT NULL,
    digest   TEXT    NOT NULL,
    doc      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX audit_place ON audit (node, number);
CREATE INDEX audit_tenant ON audit (tenant, id);
CREATE INDEX audit_age ON audit (at);

-- The newest entry of each chain.
CREATE TABLE audit_chain (
    node   TEXT    PRIMARY KEY,
    number INTEGER NOT NULL,
    digest TEXT    NOT NULL,
    at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
