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

CREATE TABLE change (
    writer  INTEGER NOT NULL,
    n       INTEGER NOT NULL,
    dataset INTEGER NOT NULL,
    bytes   BLOB    NOT NULL,
    added   INTEGER NOT NULL,
    time    INTEGER NOT NULL, -- Unix seconds
    PRIMARY KEY (writer, n)
) STRICT, WITHOUT ROWID;

-- What each lane counts: its newest change under subject -1, and under a realm's number the records it added there less
-- those it removed (the count of a realm is the sum). Together, so that a commit writes one page for both. SQLite lets
-- one transaction write at a time, in whatever process, and the counters are read and written inside it: one lane
-- serves all processes and the version vector never grows.
CREATE TABLE counter (
    writer  INTEGER NOT NULL,
    subject INTEGER NOT NULL,
    value   INTEGER NOT NULL,
    PRIMARY KEY (writer, subject)
) STRICT, WITHOUT ROWID;

INSERT INTO counter (writer, subject, value) VALUES (1, -1, 0);

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
