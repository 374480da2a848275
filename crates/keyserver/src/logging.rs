//! The log: one line an event on standard error, for people or for machines.

use crate::config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.filter` cannot be understood.
    #[error("log.filter is wrong: {0}")]
    Filter(#[from] ParseError),
    /// Somebody else started a log before.
    #[error("the log has been started already")]
    Started,
}

/// Starts the log of this process.
pub fn start(log: &Log) -> Result<(), LogError> {
    let filter = EnvFilter::builder().parse(&log.filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| LogError::Started)
}
