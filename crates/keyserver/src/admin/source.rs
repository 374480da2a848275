//! Where keyrings come from: files, folders, patterns and standard input; plain, gzip or zstd; binary, armored or a keybox.

use super::keybox::{Keybox, is_keybox};
use keyrink_openpgp::armor;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

/// One input of a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

impl Source {
    /// Finds what paths mean: `-` is standard input, a folder all keyrings below it, anything else a file or, if
    /// there is no such file, a pattern. In the order given, folders and patterns sorted.
    pub(super) fn find(paths: &[PathBuf]) -> io::Result<Vec<Self>> {
        let mut sources = Vec::new();
        for path in paths {
            if path.as_os_str() == "-" {
                sources.push(Self::Stdin);
            } else if path.is_dir() {
                add_folder(path, &mut sources)?;
            } else if path.exists() {
                sources.push(Self::File(path.clone()));
            } else {
                add_pattern(path, &mut sources)?;
            }
        }
        Ok(sources)
    }

    /// How people call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "standard input".to_owned(),
        }
    }

    /// Octets to read, as far as known.
    pub(super) fn octets(&self) -> u64 {
        match self {
            Self::File(path) => path.metadata().map_or(0, |metadata| metadata.len()),
            Self::Stdin => 0,
        }
    }

    /// Tells this content from any other, so that an interrupted load knows it again: path, length and time of the
    /// last change. `None` for what can't be read twice.
    pub(super) fn identity(&self) -> Option<String> {
        let Self::File(path) = self else { return None };
        let metadata = path.metadata().ok()?;
        let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        let path = path.canonicalize().ok()?;
        Some(format!("{} {} {}", path.display(), metadata.len(), changed.as_nanos()))
    }

    /// Opens it. What comes out are packets; `read` counts the octets taken from the disk.
    pub(super) fn open(&self, read: &Arc<AtomicU64>) -> io::Result<Box<dyn Read + Send>> {
        let raw: Box<dyn Read + Send> = match self {
            Self::File(path) => Box::new(File::open(path)?),
            Self::Stdin => Box::new(io::stdin()),
        };
        let counted = Counted {
            inner: raw,
            read: Arc::clone(read),
        };
        packets(counted)
    }
}

/// The packets in a file of any kind: packed or not, a keybox, armored or neither.
pub(crate) fn packets(raw: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut plain = unpack(BufReader::with_capacity(PIECE_OCTETS, raw))?;
    let start = plain.fill_buf()?;
    Ok(if is_keybox(start) {
        Box::new(Keybox::new(plain))
    } else if armor::is_armored(start) {
        Box::new(Dearmored::new(plain))
    } else {
        plain
    })
}

/// Endings of files that are taken from folders, before `.gz` or `.zst`.
const ENDINGS: [&str; 7] = ["pgp", "gpg", "asc", "key", "pub", "pgp-keys", "kbx"];
const PIECE_OCTETS: usize = 128 << 10;

fn add_folder(folder: &Path, sources: &mut Vec<Source>) -> io::Result<()> {
    let entries: io::Result<Vec<PathBuf>> = folder
        .read_dir()?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    let mut entries = entries?;
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.is_symlink() {
            add_folder(&path, sources)?;
        } else if path.is_file() && is_keyring(&path) {
            sources.push(Source::File(path));
        }
    }
    Ok(())
}

fn is_keyring(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name
        .strip_suffix(".gz")
        .or_else(|| name.strip_suffix(".zst"))
        .unwrap_or(&name);
    name.rsplit_once('.')
        .is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

fn add_pattern(pattern: &Path, sources: &mut Vec<Source>) -> io::Result<()> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{}: no such file", pattern.display()));
    let text = pattern.to_str().ok_or_else(missing)?;
    let found = glob::glob(text).map_err(|error| io::Error::other(format!("{text}: {error}")))?;
    let before = sources.len();
    for path in found {
        let path = path.map_err(io::Error::from)?;
        if path.is_dir() {
            add_folder(&path, sources)?;
        } else {
            sources.push(Source::File(path));
        }
    }
    if sources.len() == before {
        Err(missing())
    } else {
        Ok(())
    }
}

/// Unpacks by what the first octets say.
fn unpack(mut packed: impl BufRead + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    const GZIP: [u8; 2] = [0x1F, 0x8B];
    const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
    let start = packed.fill_buf()?;
    Ok(if start.starts_with(&GZIP) {
        Box::new(BufReader::with_capacity(
            PIECE_OCTETS,
            flate2::bufread::MultiGzDecoder::new(packed),
        ))
    } else if start.starts_with(&ZSTD) {
        Box::new(BufReader::with_capacity(
            PIECE_OCTETS,
            zstd::Decoder::with_buffer(packed)?,
        ))
    } else {
        Box::new(packed)
    })
}

struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Packets out of armored text, a piece at a time.
struct Dearmored<R> {
    text: R,
    /// `None` once the text has ended.
    decoder: Option<armor::Decoder>,
    ready: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Dearmored<R> {
    fn new(text: R) -> Self {
        Self {
            text,
            decoder: Some(armor::Decoder::default()),
            ready: Vec::new(),
            at: 0,
        }
    }

    fn decode_more(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.at = 0;
        while let Some(decoder) = self.decoder.as_mut().filter(|_| self.ready.is_empty()) {
            let piece = self.text.fill_buf()?;
            let count = piece.len();
            let result = if count == 0 {
                self.decoder
                    .take()
                    .map_or(Ok(()), |decoder| decoder.finish(&mut self.ready))
            } else {
                decoder.push(piece, &mut self.ready)
            };
            self.text.consume(count);
            result.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Dearmored<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready.len() {
            self.decode_more()?;
        }
        let count = buffer.len().min(self.ready.len() - self.at);
        buffer[..count].copy_from_slice(&self.ready[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read_all(source: &Source) -> Vec<u8> {
        let mut out = Vec::new();
        source.open(&Arc::default()).unwrap().read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn every_packing_gives_the_same_octets() {
        let dir = tempfile::tempdir().unwrap();
        let packets: Vec<u8> = (0..100_000u32).map(|n| n as u8 | 0x80).collect();
        let mut text = Vec::new();
        armor::encode(armor::PUBLIC_KEY_BLOCK, &packets, &mut text);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let forms: [(&str, Vec<u8>); 4] = [
            ("a.pgp", packets.clone()),
            ("b.asc", text.clone()),
            ("c.asc.gz", gzip.finish().unwrap()),
            ("d.pgp.zst", zstd::encode_all(&packets[..], 1).unwrap()),
        ];
        for (name, octets) in &forms {
            std::fs::write(dir.path().join(name), octets).unwrap();
        }
        std::fs::write(dir.path().join("manifest.json"), b"{}").unwrap();
        let sources = Source::find(&[dir.path().to_owned()]).unwrap();
        assert_eq!(sources.len(), forms.len());
        for source in &sources {
            assert!(read_all(source) == packets, "{}", source.name());
        }
        let pattern = Source::find(&[dir.path().join("[ab].*")]).unwrap();
        assert_eq!(pattern.len(), 2);
        assert!(Source::find(&[dir.path().join("none*")]).is_err());
    }
}
