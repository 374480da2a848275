-- The first schema. Every primary key leads with a column that is spread over its whole range, so that the rows can be
-- divided among machines; there are no sequences, triggers or foreign keys.

-- One certificate (or whatever a realm consists of).
CREATE TABLE record (
    id       bytea    NOT NULL, -- fingerprint, for variants of old keys with 8 octets more
    realm    smallint NOT NULL, -- 1: OpenPGP certificates, 2: what the operator decided about them
    policy   integer  NOT NULL, -- version of the rules that derived what follows from data
    created  bigint   NOT NULL, -- first stored, Unix seconds
    modified bigint   NOT NULL, -- last changed, Unix seconds
    derived  bytea    NOT NULL, -- its terms, elements and components, so that an update knows which rows to remove
    data     bytea    NOT NULL, -- packets and verdicts
    PRIMARY KEY (id, realm)
);

-- What a record is found by.
CREATE TABLE term (
    term  bytea    NOT NULL, -- one octet for the kind, then the text
    realm smallint NOT NULL,
    id    bytea    NOT NULL, -- the record
    PRIMARY KEY (term, realm, id)
);

-- The parts of certificates as users are shown them, for queries: derived from the records, written with them, never read by
-- servers.
CREATE TABLE component (
    id          bytea    NOT NULL, -- the record
    realm       smallint NOT NULL,
    place       integer  NOT NULL, -- 0 is the primary key
    kind        smallint NOT NULL, -- 1 primary key, 2 subkey, 3 user id
    version     smallint,          -- of a key
    fingerprint bytea,             -- of a key
    text        text,              -- of a user id, its first octets
    algorithm   smallint,          -- of a key, as OpenPGP numbers them: 1 RSA, 17 DSA, 22 and 27 Ed25519, 18 and 25 Curve25519, …
    bits        bigint,            -- of a key: length of the modulus or size of the curve, 0 where that says nothing
    created     bigint,            -- of a key its making, of a user id the first signature by its owner
    expires     bigint,            -- null: never
    revoked     bigint,            -- since when its owner took it back; 0: for all time; null: not at all
    PRIMARY KEY (id, realm, place)
);

-- The durable prefix tree: one row for each element of each reconciled set; ordered by bytes it is the tree. Seldom an
-- element stands for more than one record. Two that come at the same time meet in this row.
CREATE TABLE element (
    bytes   bytea    NOT NULL, -- what peers of this dataset know it by: for 1 the digest that SKS computes
    dataset smallint NOT NULL, -- 1: sks, 2: hockeypuck, 3: openpgp/2
    holders bytea[]  NOT NULL, -- never empty; each is one octet for the realm, then the id of a record
    PRIMARY KEY (bytes, dataset)
);

-- Elements that came and went, numbered within each lane. Old rows are removed.
CREATE TABLE change (
    writer  integer  NOT NULL, -- the lane
    n       bigint   NOT NULL, -- 1, 2, 3 ... without gaps
    dataset smallint NOT NULL,
    bytes   bytea    NOT NULL,
    added   boolean  NOT NULL, -- came or went
    time    bigint   NOT NULL, -- Unix seconds
    PRIMARY KEY (writer, n)
);

-- A lane numbers the changes of whoever writes in it. Its row is locked from numbering to commit, so the numbers of a lane
-- become visible in their order and without gaps, whoever uses it. Processes claim lanes of their own only in order not
-- to wait for each other.
CREATE TABLE lane (
    writer  integer NOT NULL PRIMARY KEY,
    n       bigint  NOT NULL, -- the newest change
    last    bigint  NOT NULL, -- a random number of the transaction that wrote last, by which a writer finds out whether it was its own
    claimed bigint  NOT NULL  -- until when a process claims it, Unix seconds
);

-- How many records each lane has added to a realm, less those it removed. The sum over all lanes is the number of records.
CREATE TABLE tally (
    writer  integer  NOT NULL,
    realm   smallint NOT NULL,
    records bigint   NOT NULL,
    PRIMARY KEY (writer, realm)
);

-- Small values kept beside the records: how far a load is, reports about partners, sums of trees.
CREATE TABLE note (
    key   text  NOT NULL PRIMARY KEY,
    value bytea NOT NULL
);

-- Elements that a source offers and does not deliver, or that are not wanted from it, and until when.
CREATE TABLE refusal (
    bytes   bytea    NOT NULL,
    dataset smallint NOT NULL,
    source  text     NOT NULL,
    times   bigint   NOT NULL, -- how often it was asked for in vain
    until   bigint   NOT NULL, -- Unix seconds
    PRIMARY KEY (bytes, dataset, source)
);

CREATE INDEX refusal_by_source ON refusal (source, until);
