//! Every statement the engine can send. [`Sql`] has no other values, so this page is the whole of what a database has to
//! understand; a test parses each statement and refuses what is not widely understood. (With `target_session_attrs=read-write`
//! in the URL the client library asks `SHOW transaction_read_only` besides.)
//!
//! Many rows at once travel as arrays, one for each column, and become rows again by `unnest`.

/// A statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sql(&'static str);

impl Sql {
    pub(super) fn text(self) -> &'static str {
        self.0
    }
}

macro_rules! statements {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        $($(#[doc = $doc])* pub(super) const $name: Sql = Sql($text);)*
        /// All of them, with their names.
        #[cfg(test)]
        pub(super) const ALL: &[(&str, Sql)] = &[$((stringify!($name), $name)),*];
    };
}

/// What no database understands.
#[cfg(test)]
pub(super) const NONSENSE: Sql = Sql("COPI record FROM STDIN");

statements! {
    // Transactions.
    BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED";
    /// All statements up to the end see the same state.
    BEGIN_VIEW = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    COMMIT = "COMMIT";
    ROLLBACK = "ROLLBACK";

    // Reading records.
    GET = "SELECT id, policy, created, modified, data FROM record WHERE realm = $1 AND id = ANY($2)";
    /// Of what terms from $1 up to $2 lead to, the data of the first $5 records, as far as it has no more than $6 octets in
    /// all, and the length of those up to $7.
    SEARCH = "SELECT id, policy, created, modified, CASE WHEN number <= $5 AND octets <= $6 THEN data END, length
              FROM (SELECT record.id, policy, created, modified, data, length(data) AS length,
                           row_number() OVER so_far AS number, sum(length(data)) OVER so_far AS octets
                    FROM (SELECT DISTINCT id FROM term WHERE term >= $1 AND term < $2 AND realm = $3 AND id > $4) AS hit
                         JOIN record ON record.id = hit.id AND record.realm = $3
                    WINDOW so_far AS (ORDER BY hit.id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) AS found
              ORDER BY id LIMIT $7";
    HOLDERS = "SELECT count(*) FROM (SELECT DISTINCT id FROM term WHERE term >= $1 AND term < $2 AND realm = $3
                                     LIMIT $4) AS found";
    LENGTHS = "SELECT id, length(data) FROM record WHERE realm = $1 AND id = ANY($2)";
    /// Records after $2, up to the one that makes the page $4 octets long.
    RECORDS = "SELECT id, policy, created, modified, data
               FROM (SELECT id, policy, created, modified, data,
                            sum(length(data)) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
                                - length(data) AS before
                     FROM record WHERE realm = $1 AND id > $2 ORDER BY id LIMIT $3) AS page
               WHERE before < $4 ORDER BY id";
    TERMS = "SELECT term, id FROM term WHERE realm = $1 AND (term, id) > ($2, $3) ORDER BY term, id LIMIT $4";
    COMPONENTS = "SELECT id, place, kind, version, fingerprint, text, algorithm, bits, created, expires, revoked FROM component
                  WHERE realm = $1 AND (id, place) > ($2, $3) ORDER BY id, place LIMIT $4";
    COMPONENTS_OF = "SELECT id, place, kind, version, fingerprint, text, algorithm, bits, created, expires, revoked
                     FROM component WHERE realm = $1 AND id = ANY($2) ORDER BY id, place";
    COUNT = "SELECT CAST(coalesce(sum(records), 0) AS bigint) FROM tally WHERE realm = $1";
    /// How many records there are more than were counted.
    UNCOUNTED = "SELECT (SELECT count(*) FROM record WHERE realm = $1)
                      - (SELECT CAST(coalesce(sum(records), 0) AS bigint) FROM tally WHERE realm = $1)";

    // Reading elements and changes.
    ELEMENTS = "SELECT bytes, holders FROM element WHERE dataset = $1 AND bytes >= $2 ORDER BY bytes LIMIT $3";
    RANGE = "SELECT bytes FROM element WHERE dataset = $1 AND bytes BETWEEN $2 AND $3 ORDER BY bytes LIMIT $4";
    BY_ELEMENT = "SELECT bytes, holders FROM element WHERE dataset = $1 AND bytes = ANY($2)";
    VECTOR = "SELECT writer, n FROM lane";
    CHANGES = "SELECT writer, n, dataset, bytes, added, time FROM change
               WHERE writer = $1 AND n > $2 ORDER BY n LIMIT $3";

    // Reading what else there is.
    NOTE = "SELECT value FROM note WHERE key = $1";
    REFUSALS = "SELECT bytes, times, until FROM refusal WHERE source = $1 AND dataset = $2 AND bytes = ANY($3)";
    REFUSAL_COUNT = "SELECT count(*) FROM refusal WHERE source = $1";

    // What batches are tied to.
    NOTES = "SELECT key, value FROM note WHERE key = ANY($1)";
    LOCK_LANES = "SELECT writer FROM lane ORDER BY writer FOR UPDATE";

    // Writing records; what is there already is locked first, in order of the ids.
    LOCK = "SELECT id, policy, created, modified, data, derived FROM record
            WHERE realm = $1 AND id = ANY($2) ORDER BY id FOR UPDATE";
    INSERT_RECORDS = "INSERT INTO record (id, realm, policy, created, modified, derived, data)
                      SELECT * FROM unnest($1::bytea[], $2::smallint[], $3::integer[], $4::bigint[], $5::bigint[],
                                           $6::bytea[], $7::bytea[])
                      ON CONFLICT DO NOTHING";
    REPLACE_RECORDS = "UPDATE record SET policy = new.policy, modified = new.modified, derived = new.derived, data = new.data
                       FROM unnest($1::bytea[], $2::smallint[], $3::integer[], $4::bigint[], $5::bytea[], $6::bytea[])
                            AS new (id, realm, policy, modified, derived, data)
                       WHERE record.id = new.id AND record.realm = new.realm";
    DELETE_RECORDS = "DELETE FROM record USING unnest($1::bytea[], $2::smallint[]) AS gone (id, realm)
                      WHERE record.id = gone.id AND record.realm = gone.realm";
    INSERT_TERMS = "INSERT INTO term (term, realm, id) SELECT * FROM unnest($1::bytea[], $2::smallint[], $3::bytea[])
                    ON CONFLICT DO NOTHING";
    DELETE_TERMS = "DELETE FROM term USING unnest($1::bytea[], $2::smallint[], $3::bytea[]) AS gone (term, realm, id)
                    WHERE term.term = gone.term AND term.realm = gone.realm AND term.id = gone.id";

    INSERT_COMPONENTS = "INSERT INTO component (id, realm, place, kind, version, fingerprint, text, algorithm, bits, created,
                                                expires, revoked)
                         SELECT * FROM unnest($1::bytea[], $2::smallint[], $3::integer[], $4::smallint[], $5::smallint[],
                                              $6::bytea[], $7::text[], $8::smallint[], $9::bigint[], $10::bigint[],
                                              $11::bigint[], $12::bigint[])
                         ON CONFLICT (id, realm, place) DO UPDATE SET kind = excluded.kind, version = excluded.version,
                             fingerprint = excluded.fingerprint, text = excluded.text, algorithm = excluded.algorithm,
                             bits = excluded.bits, created = excluded.created, expires = excluded.expires,
                             revoked = excluded.revoked";
    DELETE_COMPONENTS = "DELETE FROM component USING unnest($1::bytea[], $2::smallint[], $3::integer[]) AS gone (id, realm, place)
                         WHERE component.id = gone.id AND component.realm = gone.realm AND component.place = gone.place";

    // Writing rows of which none is there yet, many at once.
    COPY_RECORDS = "COPY record (id, realm, policy, created, modified, derived, data) FROM STDIN (FORMAT binary)";
    COPY_TERMS = "COPY term (term, realm, id) FROM STDIN (FORMAT binary)";
    COPY_COMPONENTS = "COPY component (id, realm, place, kind, version, fingerprint, text, algorithm, bits, created, expires,
                                       revoked) FROM STDIN (FORMAT binary)";
    COPY_ELEMENTS = "COPY element (bytes, dataset, holders) FROM STDIN (FORMAT binary)";
    COPY_CHANGES = "COPY change (writer, n, dataset, bytes, added, time) FROM STDIN (FORMAT binary)";

    // Writing elements, each at most once in a statement. What is so already is left alone.
    ADD_HOLDERS = "INSERT INTO element (bytes, dataset, holders)
                   SELECT bytes, dataset, ARRAY[holder]
                   FROM unnest($1::bytea[], $2::smallint[], $3::bytea[]) AS new (bytes, dataset, holder)
                   ON CONFLICT (bytes, dataset) DO UPDATE SET holders = element.holders || excluded.holders
                       WHERE NOT excluded.holders[1] = ANY(element.holders)
                   RETURNING bytes, dataset, cardinality(holders)";
    DELETE_ELEMENTS = "DELETE FROM element
                       USING unnest($1::bytea[], $2::smallint[], $3::bytea[]) AS gone (bytes, dataset, holder)
                       WHERE element.bytes = gone.bytes AND element.dataset = gone.dataset
                         AND element.holders = ARRAY[gone.holder]
                       RETURNING element.bytes, element.dataset";
    /// Locks what the statement before could not delete, so that it is known which holder is the last.
    REMOVE_HOLDERS = "UPDATE element SET holders = array_remove(holders, gone.holder)
                      FROM unnest($1::bytea[], $2::smallint[], $3::bytea[]) AS gone (bytes, dataset, holder)
                      WHERE element.bytes = gone.bytes AND element.dataset = gone.dataset
                        AND gone.holder = ANY(holders)";
    DELETE_EMPTY = "DELETE FROM element USING unnest($1::bytea[], $2::smallint[]) AS gone (bytes, dataset)
                    WHERE element.bytes = gone.bytes AND element.dataset = gone.dataset AND cardinality(holders) = 0
                    RETURNING element.bytes, element.dataset";

    // The last steps before a commit: numbering the changes, which locks the lane.
    ADVANCE_LANE = "UPDATE lane SET n = n + $2, last = $3, claimed = $4 WHERE writer = $1 RETURNING n";
    INSERT_CHANGES = "INSERT INTO change (writer, n, dataset, bytes, added, time)
                      SELECT * FROM unnest($1::integer[], $2::bigint[], $3::smallint[], $4::bytea[], $5::boolean[],
                                           $6::bigint[])";
    ADD_TALLY = "INSERT INTO tally (writer, realm, records) VALUES ($1, $2, $3)
                 ON CONFLICT (writer, realm) DO UPDATE SET records = tally.records + excluded.records";

    // Lanes. Waiting for the lock tells how a transaction whose connection broke has ended.
    CLAIM_LANE = "UPDATE lane SET claimed = $2
                  WHERE writer = (SELECT writer FROM lane WHERE claimed < $1 ORDER BY claimed, writer LIMIT 1)
                    AND claimed < $1
                  RETURNING writer";
    FREE_LANE = "SELECT writer FROM lane WHERE claimed < $1 LIMIT 1";
    NEW_LANE = "INSERT INTO lane (writer, n, last, claimed) VALUES ($1, 0, 0, $2) ON CONFLICT DO NOTHING";
    KEEP_LANE = "UPDATE lane SET claimed = $2 WHERE writer = $1";
    LAST_IN_LANE = "SELECT last FROM lane WHERE writer = $1 FOR UPDATE";

    // Writing what else there is.
    PUT_NOTE = "INSERT INTO note (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    NEW_NOTE = "INSERT INTO note (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    SWAP_NOTE = "UPDATE note SET value = $3 WHERE key = $1 AND value = $2";
    DELETE_NOTE = "DELETE FROM note WHERE key = $1";
    REFUSE = "INSERT INTO refusal (bytes, dataset, source, times, until)
              SELECT bytes, $2, $1, times, until
              FROM unnest($3::bytea[], $4::bigint[], $5::bigint[]) AS new (bytes, times, until)
              ON CONFLICT (bytes, dataset, source) DO UPDATE SET times = excluded.times, until = excluded.until";
    UNREFUSE = "DELETE FROM refusal WHERE source = $1 AND dataset = $2 AND bytes = ANY($3)";
    TRIM_REFUSALS = "DELETE FROM refusal WHERE source = $1 AND (bytes, dataset) IN
                         (SELECT bytes, dataset FROM refusal WHERE source = $1 ORDER BY until, bytes LIMIT $2)";
    FORGET_REFUSALS = "DELETE FROM refusal WHERE until < $1";
    /// The first change of a lane that is not older than $2.
    FIRST_YOUNG_CHANGE = "SELECT n FROM change WHERE writer = $1 AND time >= $2 ORDER BY n LIMIT 1";
    FIRST_CHANGE = "SELECT n FROM change WHERE writer = $1 ORDER BY n LIMIT 1";
    FORGET_CHANGES = "DELETE FROM change WHERE writer = $1 AND n < $2";

    // The version of the schema.
    HAS_META = "SELECT count(*) FROM information_schema.tables
                WHERE table_schema = current_schema() AND table_name = 'meta'";
    NEW_META = "CREATE TABLE meta (name text NOT NULL PRIMARY KEY, value bigint NOT NULL)";
    META = "SELECT name, value FROM meta";
    LOCK_META = "SELECT name, value FROM meta ORDER BY name FOR UPDATE";
    PUT_META = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";

    // Reading a Hockeypuck database.
    HAS_HOCKEYPUCK = "SELECT count(*) FROM
                          (SELECT table_schema FROM information_schema.columns
                           WHERE table_schema = current_schema() AND table_name = 'keys'
                             AND column_name IN ('rfingerprint', 'doc', 'md5')
                           GROUP BY table_schema HAVING count(*) = 3) AS found";
    COUNT_HOCKEYPUCK = "SELECT count(*) FROM keys";
    /// Documents after $1, up to the one that makes the page $4 characters long, those longer than $3 left out.
    HOCKEYPUCK = "SELECT rfingerprint, md5, doc
                  FROM (SELECT rfingerprint, md5, CASE WHEN length(doc) <= $3::bigint THEN doc END AS doc,
                               sum(length(doc)) OVER (ORDER BY rfingerprint ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
                                   - length(doc) AS before
                        FROM (SELECT rfingerprint, md5, CAST(doc AS text) AS doc FROM keys
                              WHERE rfingerprint > $1 ORDER BY rfingerprint LIMIT $2) AS page) AS measured
                  WHERE before < $4 ORDER BY rfingerprint";

    // How a session behaves. Databases that do not know one of these are asked without it.
    READ_ONLY = "SET default_transaction_read_only = on";
    /// For bulk loads: a crash of the database may take back the last transactions, as if they had not been made.
    LAZY = "SET synchronous_commit = off";
    STRICT = "SET synchronous_commit = on";
    /// Whatever the planner believes about tables that just grew: every statement here is made for an index.
    NO_SCANS = "SET enable_seqscan = off";
    NO_HASHES = "SET enable_hashjoin = off";
    NO_MERGES = "SET enable_mergejoin = off";
    /// A statement that takes longer has failed.
    STATEMENT_TIME = "SET statement_timeout = 30000";
    LOCK_TIME = "SET lock_timeout = 20000";
    /// A step of the schema takes as long as it takes, but does not let others wait for long that wait behind it for a lock.
    STEP_TIME = "SET statement_timeout = 0";
    STEP_LOCK_TIME = "SET lock_timeout = 2000";
    /// A process that is stopped in the middle of a transaction gives its locks back.
    IDLE_TIME = "SET idle_in_transaction_session_timeout = 10000";
}
