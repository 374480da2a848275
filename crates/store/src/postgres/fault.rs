//! What the database complains about: what to do about it here, and how to say it to an operator.

use std::fmt::Display;

use thiserror::Error;
use tokio_postgres::error::SqlState;

use crate::StoreError;

/// An error on its way to the edge of the engine, where the database's name is known.
#[derive(Debug, Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another transaction was faster: run it again.
    #[error("another transaction was faster")]
    Conflict,
    /// There is no connection to be had, for the moment.
    #[error(transparent)]
    Away(StoreError),
    /// No answer in time; the connection is of no use any more.
    #[error("it does not answer in time")]
    Slow,
}

/// What can be done about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cure {
    /// Run the transaction again.
    Again,
    /// Run it again on another connection.
    Reconnect,
    /// Nothing but telling the caller.
    Tell,
}

impl Fault {
    pub(super) fn cure(&self) -> Cure {
        let error = match self {
            Self::Conflict => return Cure::Again,
            Self::Away(_) => return Cure::Reconnect,
            Self::Store(_) | Self::Slow => return Cure::Tell,
            Self::Postgres(error) => error,
        };
        match error.code() {
            Some(code) if CONFLICTS.contains(code) => Cure::Again,
            Some(code) if ENDED.contains(code) => Cure::Reconnect,
            Some(_) => Cure::Tell,
            None if lacks_password(error) => Cure::Tell,
            None => Cure::Reconnect,
        }
    }

    /// What the caller is told about a fault of the database called `name`.
    pub(super) fn at(self, name: &str) -> StoreError {
        let error = match self {
            Self::Store(error) | Self::Away(error) => return error,
            Self::Conflict => return unavailable(name, "is contended", "try again", &self),
            Self::Slow => {
                let cure = "look at its load, its disk and the locks that are held";
                return unavailable(name, "is slow", cure, &self);
            }
            Self::Postgres(error) => error,
        };
        let text = text(&error);
        if lacks_password(&error) {
            let cure = "none is in the URL, nor for this user in the password file";
            return unavailable(name, "refuses the password", cure, &text);
        }
        let Some(code) = error.code() else {
            let cure = "see that it runs and can be reached; work goes on without a restart";
            return unavailable(name, "is away", cure, &text);
        };
        match CURES.iter().find(|(known, ..)| known == code) {
            Some((_, what, cure)) => unavailable(name, what, cure, &text),
            // Transactions that others got in the way of; connections, resources, intervention and the system itself: whole classes.
            None if code.code().starts_with("40") => unavailable(name, "is contended", "try again", &text),
            None if matches!(&code.code()[..2], "08" | "53" | "57" | "58") => {
                unavailable(name, "can't work", "see its log", &text)
            }
            None => StoreError::Damaged(format!("{name}: {text} ({})", code.code())),
        }
    }
}

/// Was a password asked for when there was none to show? The client knows that and gives it no code.
fn lacks_password(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.to_string() == "password missing")
}

/// The message with what lies behind it.
fn text(error: &tokio_postgres::Error) -> String {
    let mut text = error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| error.message().to_owned());
    if error.as_db_error().is_none()
        && let Some(source) = std::error::Error::source(error)
    {
        text.push_str(&format!(": {source}"));
    }
    text
}

fn unavailable(name: &str, what: &str, cure: &str, error: &dyn Display) -> StoreError {
    StoreError::Unavailable(format!("{name} {what}: {cure} ({error})"))
}

/// A transaction that ends so can be run again at once.
const CONFLICTS: &[SqlState] = &[
    SqlState::T_R_SERIALIZATION_FAILURE,
    SqlState::T_R_DEADLOCK_DETECTED,
    SqlState::UNIQUE_VIOLATION,
];

/// The connection is at its end, but the database may be well.
const ENDED: &[SqlState] = &[
    SqlState::CANNOT_CONNECT_NOW,
    SqlState::ADMIN_SHUTDOWN,
    SqlState::CRASH_SHUTDOWN,
    SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    SqlState::CONNECTION_EXCEPTION,
    SqlState::CONNECTION_FAILURE,
    SqlState::CONNECTION_DOES_NOT_EXIST,
    // Sooner or later somebody else's ends.
    SqlState::TOO_MANY_CONNECTIONS,
];

const CURES: &[(SqlState, &str, &str)] = &[
    (
        SqlState::DISK_FULL,
        "can't grow, its disk is full",
        "free some space, work goes on without a restart",
    ),
    (
        SqlState::READ_ONLY_SQL_TRANSACTION,
        "is read-only",
        "is it a standby? Name the primary, or add target_session_attrs=read-write",
    ),
    (
        SqlState::CANNOT_CONNECT_NOW,
        "is starting or stopping",
        "wait, work goes on without a restart",
    ),
    (
        SqlState::ADMIN_SHUTDOWN,
        "is stopping",
        "start it again, work goes on without a restart",
    ),
    (
        SqlState::TOO_MANY_CONNECTIONS,
        "has no connection left",
        "raise max_connections, or lower `connections` in [store]",
    ),
    (
        SqlState::OUT_OF_MEMORY,
        "needs more memory than there is",
        "give it more",
    ),
    (
        SqlState::QUERY_CANCELED,
        "is slow",
        "look at its load, its disk and the locks that are held",
    ),
    (
        SqlState::LOCK_NOT_AVAILABLE,
        "is slow",
        "find the transaction that holds its locks for so long",
    ),
    (
        SqlState::INVALID_PASSWORD,
        "refuses the password",
        "correct it in the configuration or the password file",
    ),
    (
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        "refuses this user",
        "create the role, or allow it in pg_hba.conf",
    ),
    (
        SqlState::INVALID_CATALOG_NAME,
        "is not there",
        "create it with `createdb`",
    ),
    (
        SqlState::INSUFFICIENT_PRIVILEGE,
        "refuses this user",
        "grant the role what it needs, or make it the owner of the database",
    ),
    (
        SqlState::UNDEFINED_TABLE,
        "has no schema of Keyrink",
        "run `keyrink migrate`",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_databases_fault_passes_through() {
        let fault = Fault::from(StoreError::Invalid("too long".into()));
        assert_eq!(fault.cure(), Cure::Tell);
        assert_eq!(fault.at("db").to_string(), "too long");
        assert_eq!(Fault::Conflict.cure(), Cure::Again);
        assert!(Fault::Slow.at("db").to_string().contains("db is slow"));
    }
}
