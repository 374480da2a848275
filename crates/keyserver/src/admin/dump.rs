//! `keyrink dump`: a consistent snapshot as keyrings, with a manifest.
//!
//! The files are plain OpenPGP keyrings that any program reads. A full dump holds every stored packet as often as it
//! occurred, so that loading it gives the same records again; a dump of a dataset holds what the peers of that
//! dataset believe a certificate to be.

use super::progress::Progress;
use super::{AdminError, open_to_read};
use crate::cli;
use crate::formats::{self, Family, OPENPGP};
use crate::lifecycle::RuleSet;
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::crypto::digest::Hasher;
use keyrink_openpgp::project::Projection;
use keyrink_store::{Store, Stored};
use serde::Serialize;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What stands in `manifest.json`. It is written last: a folder without one is no complete dump.
#[derive(Debug, Serialize)]
pub struct Manifest {
    /// The program and its version.
    pub software: String,
    /// What the files hold: `all`, or the name of a dataset.
    pub dataset: String,
    /// Certificates in all files.
    pub certificates: u64,
    /// Stored certificates that are in no file, because the operator blocked them.
    pub left_out: u64,
    /// XOR of the digests of all certificates in dataset `sks`, in hexadecimal.
    pub sks_xor: String,
    /// The files, in order.
    pub files: Vec<DumpedFile>,
}

/// One file of a dump.
#[derive(Debug, Serialize)]
pub struct DumpedFile {
    /// Its name in the folder.
    pub name: String,
    /// Certificates in it.
    pub certificates: u64,
    /// Its length.
    pub octets: u64,
    /// SHA-256 of it, in hexadecimal.
    pub sha256: String,
}

/// `keyrink dump`
pub fn run(arguments: &cli::Dump) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    let view = match arguments.dataset.as_deref() {
        None => View::All,
        Some(name) => {
            View::Projected(formats::family(name).ok_or_else(|| AdminError::UnknownDataset(name.to_owned()))?)
        }
    };
    let store = open_to_read(&config)?;
    let certificates_per_file = u64::from(arguments.certificates_per_file.get());
    let manifest = dump(
        &*store,
        view,
        &arguments.target,
        certificates_per_file,
        &Progress::for_terminal,
    )?;
    println!(
        "{} certificates in {} files in {}",
        manifest.certificates,
        manifest.files.len(),
        arguments.target.display()
    );
    if manifest.left_out > 0 {
        println!("{} blocked certificates are left out", manifest.left_out);
    }
    Ok(())
}

/// What a dump holds of each certificate.
#[derive(Clone, Copy, Debug)]
pub enum View {
    /// Everything that is stored.
    All,
    /// What one family of peers sees.
    Projected(&'static Family),
}

/// Writes a dump of `store` into the folder `target`, which must be empty or new.
pub fn dump(
    store: &dyn Store,
    view: View,
    target: &Path,
    certificates_per_file: u64,
    progress: &dyn Fn(u64) -> Progress,
) -> Result<Manifest, AdminError> {
    let failed = |error| AdminError::Write(target.display().to_string(), error);
    fs::create_dir_all(target).map_err(failed)?;
    if target.read_dir().map_err(failed)?.next().is_some() {
        return Err(failed(std::io::Error::other("the folder is not empty")));
    }
    let snapshot = store.snapshot()?;
    let rules = RuleSet::read(&*snapshot)?;
    let mut dumping = Dumping {
        rules,
        left_out: 0,
        target: target.to_owned(),
        view,
        certificates_per_file,
        files: Vec::new(),
        open: None,
        xor: [0; 16],
    };
    let progress = progress(snapshot.count(OPENPGP)?);
    super::for_each_record(&*snapshot, |stored| {
        dumping.write(stored)?;
        progress.at(dumping.certificates(), dumping.certificates());
        Ok(())
    })?;
    progress.finish();
    dumping.finish()
}

struct Dumping {
    rules: RuleSet,
    left_out: u64,
    target: PathBuf,
    view: View,
    certificates_per_file: u64,
    files: Vec<DumpedFile>,
    open: Option<OpenFile>,
    xor: [u8; 16],
}

struct OpenFile {
    file: File,
    hasher: Hasher,
    entry: DumpedFile,
}

impl Dumping {
    fn certificates(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |open| open.entry.certificates);
        self.files.iter().map(|file| file.certificates).sum::<u64>() + open
    }

    fn write(&mut self, stored: &Stored) -> Result<(), AdminError> {
        let damaged = |_| AdminError::Damaged(formats::hexadecimal(stored.id.as_bytes()));
        let cert = Cert::decode(&stored.data).map_err(damaged)?;
        if self.rules.judge(&cert).blocks() {
            self.left_out += 1;
            return Ok(());
        }
        let mut packets = Vec::with_capacity(stored.data.len());
        match self.view {
            View::All => cert.write_all(&mut packets),
            View::Projected(family) => cert.write(family.projection, &mut packets),
        }
        if packets.is_empty() {
            return Ok(());
        }
        if let Some(digest) = cert.digest(Projection::Sks) {
            self.xor.iter_mut().zip(digest).for_each(|(xor, octet)| *xor ^= octet);
        }
        let target = self.target.display().to_string();
        let open = match &mut self.open {
            Some(open) => open,
            None => self
                .open
                .insert(create(&self.target, self.files.len()).map_err(|e| AdminError::Write(target.clone(), e))?),
        };
        open.file
            .write_all(&packets)
            .map_err(|error| AdminError::Write(target, error))?;
        open.hasher.update(&packets);
        open.entry.octets += packets.len() as u64;
        open.entry.certificates += 1;
        if open.entry.certificates == self.certificates_per_file {
            self.close_file()?;
        }
        Ok(())
    }

    fn close_file(&mut self) -> Result<(), AdminError> {
        let Some(OpenFile {
            file,
            hasher,
            mut entry,
        }) = self.open.take()
        else {
            return Ok(());
        };
        file.sync_all()
            .map_err(|error| AdminError::Write(entry.name.clone(), error))?;
        entry.sha256 = formats::hexadecimal(hasher.finish().as_bytes());
        self.files.push(entry);
        Ok(())
    }

    fn finish(mut self) -> Result<Manifest, AdminError> {
        self.close_file()?;
        let dataset = match self.view {
            View::All => "all",
            View::Projected(family) => family.name,
        };
        let manifest = Manifest {
            software: concat!("keyrink ", env!("CARGO_PKG_VERSION")).to_owned(),
            dataset: dataset.to_owned(),
            certificates: self.certificates(),
            left_out: self.left_out,
            sks_xor: formats::hexadecimal(&self.xor),
            files: self.files,
        };
        let path = self.target.join("manifest.json");
        let text = serde_json::to_vec_pretty(&manifest).map_err(std::io::Error::from);
        text.and_then(|text| fs::write(&path, text))
            .map_err(|error| AdminError::Write(path.display().to_string(), error))?;
        Ok(manifest)
    }
}

fn create(target: &Path, number: usize) -> std::io::Result<OpenFile> {
    let name = format!("keyrink-{number:05}.pgp");
    let file = File::create_new(target.join(&name))?;
    let hasher = Hasher::new(SHA256).ok_or_else(|| std::io::Error::other("SHA-256 is missing"))?;
    Ok(OpenFile {
        file,
        hasher,
        entry: DumpedFile {
            name,
            certificates: 0,
            octets: 0,
            sha256: String::new(),
        },
    })
}

/// OpenPGP's number for SHA-256.
const SHA256: u8 = 8;
