//! What SQLite complains about, said to an operator: which file, what is wrong, what to do.

use std::path::Path;

use rusqlite::ErrorCode;
use thiserror::Error;

use crate::StoreError;

/// An error on its way to the edge of the engine, where the file is known.
#[derive(Debug, Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fault {
    /// What the caller is told about a fault with `file`.
    pub(super) fn at(self, file: &Path) -> StoreError {
        let error = match self {
            Self::Store(error) => return error,
            Self::Sqlite(error) => error,
        };
        let file = file.display();
        let unavailable = |what: &str, cure: &str| StoreError::Unavailable(format!("{file} {what}: {cure} ({error})"));
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => unavailable(
                "can't grow, its disk is full",
                "free some space, work goes on without a restart",
            ),
            Some(ErrorCode::ReadOnly) => unavailable(
                "can't be written to",
                "make the file, its folder and its disk writable for this user",
            ),
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => unavailable(
                "can't be opened",
                "see that it is there, and that this user may read it and the folder is writable",
            ),
            Some(ErrorCode::SystemIoFailure) => unavailable(
                "can't be read or written",
                "look at the disk: is it full, read-only, away or failing?",
            ),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => unavailable(
                "is locked by another process",
                "try again, or find the process that holds it for so long",
            ),
            Some(ErrorCode::OutOfMemory | ErrorCode::TooBig) => {
                unavailable("needs more memory than there is", "give the process more memory")
            }
            Some(ErrorCode::NotADatabase) => StoreError::Damaged(format!(
                "{file} is not a Keyrink store: choose another folder or restore a backup"
            )),
            _ => StoreError::Damaged(format!(
                "{file}: {error}: restore a backup or load a dump into a new folder"
            )),
        }
    }
}
