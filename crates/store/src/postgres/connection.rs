//! One session of the database, used by one caller at a time.
//!
//! Statements are prepared once in a session. Several of them can be sent together; the database runs them in order
//! and the answers come back in one round trip.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::{TryStreamExt, future, pin_mut};
use tokio::task::AbortHandle;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};

use super::fault::Fault;
use super::sql::Sql;
use super::wait::wait;

/// A session.
pub(super) struct Connection {
    client: Client,
    driving: AbortHandle,
    /// What it says its version is, and how it encodes texts.
    version: Option<String>,
    encoding: Option<String>,
    prepared: HashMap<Sql, Statement>,
    /// Whether many rows may come by COPY, which ends the transaction if one of them is there already.
    pub(super) copies: bool,
    #[cfg(test)]
    pub(super) hostile: Option<super::tests::Hostile>,
}

/// A statement and its parameters.
pub(super) type Step<'a> = (Sql, &'a [&'a (dyn ToSql + Sync)]);

/// What came back: rows, and how many rows the statement touched.
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    pub(super) touched: u64,
}

impl Connection {
    /// Takes over a client of a database of this version and encoding, and the task that drives it.
    pub(super) fn new(client: Client, driving: AbortHandle, [version, encoding]: [Option<String>; 2]) -> Self {
        Self {
            client,
            driving,
            version,
            encoding,
            prepared: HashMap::new(),
            copies: false,
            #[cfg(test)]
            hostile: None,
        }
    }

    /// What the database says its version is, such as `15.10 (Debian 15.10-0+deb12u1)`.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// How the database encodes texts, such as `UTF8`.
    pub(super) fn encoding(&self) -> Option<&str> {
        self.encoding.as_deref()
    }

    /// Is it of no use any more?
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Rows of one statement.
    pub(super) fn rows(&mut self, sql: Sql, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Fault> {
        Ok(self.one(sql, parameters)?.rows)
    }

    /// Runs one statement; how many rows it touched.
    pub(super) fn execute(&mut self, sql: Sql, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, Fault> {
        Ok(self.one(sql, parameters)?.touched)
    }

    fn one(&mut self, sql: Sql, parameters: &[&(dyn ToSql + Sync)]) -> Result<Answer, Fault> {
        let mut answers = self.together(&[(sql, parameters)])?;
        answers.pop().ok_or(Fault::Slow)
    }

    /// Runs statements in order, in one round trip. In a transaction, none runs after one that failed.
    pub(super) fn together(&mut self, steps: &[Step<'_>]) -> Result<Vec<Answer>, Fault> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        for (sql, _) in steps {
            self.prepare(*sql, deadline)?;
        }
        #[cfg(test)]
        super::tests::Hostile::before(self, steps)?;
        let answers = steps
            .iter()
            .map(|(sql, parameters)| run(&self.client, &self.prepared[sql], parameters));
        let answers = wait(deadline, future::try_join_all(answers));
        Ok(answers.ok_or(Fault::Slow)??)
    }

    /// Writes rows of which none is there yet: `cells` of so many `rows`. A database that can't do this says that there is a
    /// conflict, as it does if a row is there.
    pub(super) fn copy<'a>(
        &mut self,
        sql: Sql,
        types: &[Type],
        rows: usize,
        cells: &dyn Fn(usize) -> Vec<&'a (dyn ToSql + Sync)>,
    ) -> Result<(), Fault> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        // What a database does not know it may refuse right here.
        self.prepare(sql, deadline).map_err(conflict_if_unknown)?;
        #[cfg(test)]
        super::tests::Hostile::before(self, &[(sql, &[])])?;
        let copying = async {
            let sink = self.client.copy_in(&self.prepared[&sql]).await?;
            let writer = BinaryCopyInWriter::new(sink, types);
            pin_mut!(writer);
            for row in 0..rows {
                writer.as_mut().write(&cells(row)).await?;
            }
            writer.finish().await
        };
        match wait(deadline, copying).ok_or(Fault::Slow)? {
            Err(error) => Err(conflict_if_unknown(error.into())),
            Ok(written) if written == rows as u64 => Ok(()),
            Ok(_) => Err(Fault::Conflict),
        }
    }

    fn prepare(&mut self, sql: Sql, deadline: Instant) -> Result<(), Fault> {
        if !self.prepared.contains_key(&sql) {
            let statement = wait(deadline, self.client.prepare(sql.text())).ok_or(Fault::Slow)??;
            self.prepared.insert(sql, statement);
        }
        Ok(())
    }

    /// Runs a statement that sets something, or does nothing where the database does not know it.
    pub(super) fn set(&mut self, sql: Sql) -> Result<(), Fault> {
        let set = self.client.batch_execute(sql.text());
        match wait(Instant::now() + ANSWER_WITHIN, set).ok_or(Fault::Slow)? {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Runs the statements of a migration.
    pub(super) fn script(&mut self, script: &str) -> Result<(), Fault> {
        let running = self.client.batch_execute(script);
        Ok(wait(Instant::now() + MIGRATE_WITHIN, running).ok_or(Fault::Slow)??)
    }

    /// Itself, with nothing that goes wrong on purpose.
    #[cfg(test)]
    pub(super) fn spared(mut self) -> Self {
        self.hostile = None;
        self
    }

    /// Breaks the connection in a moment, as a network does.
    #[cfg(test)]
    pub(super) fn cut_soon(&self, moment: Duration) {
        let driving = self.driving.clone();
        std::thread::spawn(move || {
            std::thread::sleep(moment);
            driving.abort();
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Closes the socket, also while the database is still at work for us.
        self.driving.abort();
    }
}

async fn run(
    client: &Client,
    statement: &Statement,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Answer, tokio_postgres::Error> {
    let stream = client.query_raw(statement, parameters.iter().copied()).await?;
    pin_mut!(stream);
    let mut rows = Vec::new();
    while let Some(row) = stream.try_next().await? {
        rows.push(row);
    }
    let touched = stream.rows_affected().unwrap_or(0);
    Ok(Answer { rows, touched })
}

/// Other statements do the same, and come after a conflict.
fn conflict_if_unknown(fault: Fault) -> Fault {
    match &fault {
        Fault::Postgres(error) if error.code().is_some_and(|code| UNKNOWN.contains(code)) => Fault::Conflict,
        _ => fault,
    }
}

/// A little more than the database itself allows a statement.
const ANSWER_WITHIN: Duration = Duration::from_secs(35);
/// What a database says that knows no COPY, or not in this form.
const UNKNOWN: &[SqlState] = &[SqlState::FEATURE_NOT_SUPPORTED, SqlState::SYNTAX_ERROR];
const MIGRATE_WITHIN: Duration = Duration::from_secs(24 * 3600);
