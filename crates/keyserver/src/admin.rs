//! Subcommands that work on the store.

use crate::cli;

/// Why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It does not exist yet.
    #[error("`keyrink {0}` is not built yet")]
    NotBuilt(&'static str),
}

/// `keyrink load`
pub fn load(_: &cli::Load) -> Result<(), AdminError> {
    Err(AdminError::NotBuilt("load"))
}

/// `keyrink dump`
pub fn dump(_: &cli::Dump) -> Result<(), AdminError> {
    Err(AdminError::NotBuilt("dump"))
}

/// `keyrink check`
pub fn check(_: &cli::Check) -> Result<(), AdminError> {
    Err(AdminError::NotBuilt("check"))
}

/// `keyrink rebuild`
pub fn rebuild(_: &cli::Rebuild) -> Result<(), AdminError> {
    Err(AdminError::NotBuilt("rebuild"))
}

/// `keyrink backup`
pub fn backup(_: &cli::Backup) -> Result<(), AdminError> {
    Err(AdminError::NotBuilt("backup"))
}
