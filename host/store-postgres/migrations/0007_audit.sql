-- The audit log: a chain of entries for each node. The columns up to `name` repeat members of `doc`, by which entries are found.
CREATE TABLE audit (
    id       UUID   PRIMARY KEY,
    at       BIGINT NOT NULL,
    node     TEXT   COLLATE "C" NOT NULL,
    number   BIGINT NOT NULL,
    tenant   BIGINT NOT NULL,
    actor    TEXT   COLLATE "C" NOT NULL,
    verb     TEXT   COLLATE "C" NOT NULL,
    kind     TEXT   COLLATE "C" NOT NULL,
    name     TEXT   COLLATE "C",
    previous TEXT   NOT NULL,
    digest   TEXT   NOT NULL,
    doc      TEXT   NOT NULL
);
CREATE UNIQUE INDEX audit_place ON audit (node, number);
CREATE INDEX audit_tenant ON audit (tenant, id);
CREATE INDEX audit_age ON audit (at);

-- The newest entry of each chain. Its row is locked while an entry is added.
CREATE TABLE audit_chain (
    node   TEXT   COLLATE "C" PRIMARY KEY,
    number BIGINT NOT NULL,
    digest TEXT   NOT NULL,
    at     BIGINT NOT NULL
);
