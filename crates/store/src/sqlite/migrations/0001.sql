-- The first schema. `rec` numbers records within this file only; it stands for (realm, id) where that saves space.

CREATE TABLE record (
    rec      INTEGER PRIMARY KEY,
    realm    INTEGER NOT NULL,
    id       BLOB    NOT NULL,
    policy   INTEGER NOT NULL,
    created  INTEGER NOT NULL, -- Unix seconds
    modified INTEGER NOT NULL, -- Unix seconds
    derived  BLOB    NOT NULL, -- its terms and elements, so that an update knows which rows to remove
    data     BLOB    NOT NULL
) STRICT;

CREATE UNIQUE INDEX record_by_id ON record (realm, id);

CREATE TABLE term (
    realm INTEGER NOT NULL,
    kind  INTEGER NOT NULL,
    text  BLOB    NOT NULL,
    rec   INTEGER NOT NULL,
    PRIMARY KEY (realm, kind, text, rec)
) STRICT, WITHOUT ROWID;

-- In the order of its bytes this is the durable prefix tree. It holds ids, not `rec`, so that the whole tree
-- can be read in one pass over one B-tree.
CREATE TABLE element (
    dataset INTEGER NOT NULL,
    bytes   BLOB    NOT NULL,
    id      BLOB    NOT NULL,
    realm   INTEGER NOT NULL,
    PRIMARY KEY (dataset, bytes, id, realm)
) STRICT, WITHOUT ROWID;

-- One row a transaction that changed anything: the elements that came and went, numbered up to `newest`, and the
-- records of each realm after it. `log.rs` describes both lists.
CREATE TABLE change (
    newest   INTEGER PRIMARY KEY,
    time     INTEGER NOT NULL, -- Unix seconds
    counts   BLOB    NOT NULL,
    elements BLOB    NOT NULL
) STRICT;

INSERT INTO change (newest, time, counts, elements) VALUES (0, 0, x'', x'');

CREATE TABLE note (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Elements that a source offers and does not deliver, or that are not wanted from it, and until when.
CREATE TABLE refusal (
    source  TEXT    NOT NULL,
    dataset INTEGER NOT NULL,
    bytes   BLOB    NOT NULL,
    times   INTEGER NOT NULL,
    until   INTEGER NOT NULL, -- Unix seconds
    PRIMARY KEY (source, dataset, bytes)
) STRICT, WITHOUT ROWID;
