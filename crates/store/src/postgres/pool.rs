//! The pool of sessions for everything but updates: opened when first needed, handed out one caller at a time.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::connection::Connection;
use super::database::Database;
use super::fault::{Cure, Fault};
use super::sql;
use crate::StoreError;

/// Sessions of one database.
pub(super) struct Pool {
    database: Arc<Database>,
    connections_max: usize,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    lent: usize,
}

/// A place among those that may be connected; `connection` is `None` until there is one, and if it is not to be kept.
struct Loan<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Pool {
    pub(super) fn new(database: Arc<Database>, connections_max: usize) -> Self {
        Self {
            database,
            connections_max: connections_max.max(1),
            state: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// Runs `work`, which is one statement or does no harm when it is run twice, on a session; waits for one if all are
    /// in use.
    pub(super) fn run<T>(&self, work: impl Fn(&mut Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.attempt(&work) {
                Err(fault) if tried < TRIES_MAX && fault.cure() != Cure::Tell => {}
                other => return other.map_err(|fault| self.database.told(fault)),
            }
        }
    }

    /// Runs reads that all see the same state.
    pub(super) fn view<T>(&self, read: impl Fn(&mut Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        self.run(|connection| {
            connection.execute(sql::BEGIN_VIEW, &[])?;
            let result = read(connection)?;
            connection.execute(sql::COMMIT, &[])?;
            Ok(result)
        })
    }

    /// A session of its own, which does not count against the pool.
    pub(super) fn dedicated(&self) -> Result<Connection, StoreError> {
        let connection = self.database.connect().map_err(|fault| self.database.told(fault));
        // What such a session is in the middle of cannot be done again.
        #[cfg(test)]
        let connection = connection.map(Connection::spared);
        connection
    }

    fn attempt<T>(&self, work: impl Fn(&mut Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut loan = self.borrow()?;
        let mut connection = match loan.connection.take() {
            Some(connection) => connection,
            None => self.database.connect()?,
        };
        let result = work(&mut connection);
        // One that saw an error may be in the middle of something, or the reason for it.
        if result.is_ok() {
            loan.connection = Some(connection);
        }
        result
    }

    fn borrow(&self) -> Result<Loan<'_>, StoreError> {
        let state = self.state();
        let busy = |state: &mut State| state.idle.is_empty() && state.lent >= self.connections_max;
        let (mut state, waited) = self
            .returned
            .wait_timeout_while(state, PATIENCE, busy)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            let name = self.database.name();
            let reason = format!("{name} is slow: all {} connections are in use", self.connections_max);
            return Err(StoreError::Unavailable(reason));
        }
        state.lent += 1;
        state.idle.retain(|connection| !connection.is_closed());
        Ok(Loan {
            pool: self,
            connection: state.idle.pop(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.lent -= 1;
        state.idle.extend(self.connection.take());
        drop(state);
        self.pool.returned.notify_one();
    }
}

/// How often work is done anew after a conflict or on a connection that broke.
const TRIES_MAX: u32 = 8;
/// How long to wait for a session.
const PATIENCE: Duration = Duration::from_secs(10);
