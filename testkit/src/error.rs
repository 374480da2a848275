//! What can go wrong around real programs.

use std::io;
use std::path::PathBuf;

/// Why a fixture could not do its work; the text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not on this machine.
    #[error("{program} is not installed; on Debian: apt-get install {package}")]
    Missing {
        /// Its name or path.
        program: String,
        /// The Debian package that holds it.
        package: &'static str,
    },
    /// A program ended with a failure.
    #[error("{command} failed: {output}")]
    Failed {
        /// The command line.
        command: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A server did not become ready in time, or ended before.
    #[error("{program} did not become ready: {log}")]
    NotReady {
        /// Its name.
        program: String,
        /// The end of its log.
        log: String,
    },
    /// An answer that is no HTTP, or not the one expected.
    #[error("unexpected answer: {0}")]
    Answer(String),
    /// A database of the embedded store failed.
    #[error("{place}: {source}")]
    Sqlite {
        /// Its file.
        place: String,
        /// The failure.
        source: rusqlite::Error,
    },
    /// A file or socket failed.
    #[error("{place}: {source}")]
    Io {
        /// What was touched.
        place: String,
        /// The failure.
        source: io::Error,
    },
}

/// Names the place of an I/O failure.
pub(crate) trait At<T> {
    fn at(self, place: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, place: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            place: place.into().display().to_string(),
            source,
        })
    }
}
