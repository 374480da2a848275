//! Which self-signatures are valid: found by this crate and by others, and where they differ.

use keyrink_openpgp::armor;
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::packet::signature::{Signature, kind};
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::verify::verify;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// By the fingerprint of its certificate in upper-case digits: the valid self-signatures, sorted.
pub type Judgement = BTreeMap<String, Vec<Claim>>;

/// A signature as every judge can name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Signature type.
    pub kind: u8,
    /// Seconds since 1970.
    pub created: u32,
    /// Hash algorithm.
    pub hash: u8,
}

/// Somebody who verifies signatures, and is not this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// Sequoia, without its policy.
    Sequoia,
    /// GnuPG, with weak hashes allowed.
    GnuPg,
}

impl Judge {
    /// Where what this judge found is recorded.
    pub fn record(self) -> PathBuf {
        verdicts().join(format!("{}.tsv", self.name()))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sequoia => "sequoia",
            Self::GnuPg => "gnupg",
        }
    }

    /// One line for each certificate that one side does not hold, and each signature that one side finds valid.
    pub fn disputes(self, ours: &Judgement, theirs: &Judgement) -> Vec<String> {
        let fingerprints: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let mut found = Vec::new();
        for fingerprint in fingerprints {
            let what = match (ours.get(fingerprint), theirs.get(fingerprint)) {
                (Some(ours), Some(theirs)) => self.disputed_claims(ours, theirs),
                (Some(_), None) => vec!["not read by the judge".to_owned()],
                _ => vec!["not read by keyrink".to_owned()],
            };
            found.extend(what.iter().map(|what| format!("{} {fingerprint} {what}", self.name())));
        }
        found
    }

    fn disputed_claims(self, ours: &[Claim], theirs: &[Claim]) -> Vec<String> {
        let excused = |claim: &Claim| self == Self::GnuPg && superseded(claim, ours);
        let only_ours = ours.iter().filter(|claim| !theirs.contains(claim) && !excused(claim));
        let only_theirs = theirs.iter().filter(|claim| !ours.contains(claim));
        let told = |who: &'static str| move |claim: &Claim| format!("valid for {who} only: {claim}");
        only_ours
            .map(told("keyrink"))
            .chain(only_theirs.map(told("the judge")))
            .collect()
    }

    /// Disputes that are understood, each with the reason.
    pub fn understood(self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(verdicts().join("disputes.tsv")).expect("the list is part of the test data");
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        let own = lines.filter(|(dispute, _)| dispute.split(' ').next() == Some(self.name()));
        own.map(|(dispute, reason)| (dispute.to_owned(), reason.to_owned()))
            .collect()
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, created, hash } = self;
        write!(out, "type {kind:#04x}, hash {hash}, created {created}")
    }
}

/// A judgement as a table: fingerprint, tab, and for each claim type, hash and time in 12 hexadecimal digits.
pub fn table(judgement: &Judgement) -> String {
    let mut text = String::new();
    for (fingerprint, claims) in judgement {
        let claims = claims
            .iter()
            .map(|Claim { kind, created, hash }| format!("{kind:02x}{hash:02x}{created:08x}"));
        let _ = writeln!(text, "{fingerprint}\t{}", claims.collect::<Vec<_>>().join(" "));
    }
    text
}

/// What [`table`] wrote.
pub fn judgement(table: &str) -> Judgement {
    let number = |digits: &str| u32::from_str_radix(digits, 16).expect("tables hold hexadecimal digits");
    let claim = |digits: &str| Claim {
        kind: number(&digits[..2]) as u8,
        hash: number(&digits[2..4]) as u8,
        created: number(&digits[4..]),
    };
    let rows = table.lines().filter_map(|line| line.split_once('\t'));
    rows.map(|(fingerprint, claims)| (fingerprint.to_owned(), claims.split_whitespace().map(claim).collect()))
        .collect()
}

/// What this crate finds. Copies of a certificate are judged together.
pub fn ours(keyrings: &[Vec<u8>]) -> Judgement {
    let mut judgement = Judgement::new();
    for octets in keyrings {
        for incoming in Keyring::read(octets, &Limits::default()).certs {
            let mut cert = incoming.cert;
            verify(&mut cert, None);
            let claims = judgement.entry(cert.key().fingerprint().to_string()).or_default();
            claims.extend(valid(&cert));
        }
    }
    judgement.values_mut().for_each(tidy);
    judgement
}

/// What GnuPG finds in a home of its own.
pub fn gnupgs(keyrings: &[Vec<u8>]) -> Judgement {
    let home = Home::new();
    let file = home.0.join("keyring.pgp");
    for octets in keyrings {
        fs::write(&file, octets).expect("there is room for temporary files");
        let mut import = home.gpg();
        // Without what others signed, which nobody asks for here, it takes seconds instead of minutes.
        import
            .args(["--import-options", "import-local-sigs,self-sigs-only", "--import"])
            .arg(&file);
        // It fails if it leaves out a single key; what it holds is compared.
        import.output().expect("gpg is installed");
    }
    let listing = home
        .gpg()
        .args(["--with-colons", "--check-sigs"])
        .output()
        .expect("gpg is installed");
    judged(&String::from_utf8_lossy(&listing.stdout))
}

/// May GnuPG be silent about this one of the valid signatures in `all`? On import it keeps of each subkey only the newest
/// binding and the newest revocation (which subkey one belongs to is not told apart here).
fn superseded(claim: &Claim, all: &[Claim]) -> bool {
    let newer = |other: &Claim| other.kind == claim.kind && other.created > claim.created;
    matches!(claim.kind, kind::SUBKEY_BINDING | kind::SUBKEY_REVOCATION) && all.iter().any(newer)
}

/// Sorts claims and folds those that nobody can tell apart.
pub fn tidy(claims: &mut Vec<Claim>) {
    claims.sort();
    claims.dedup();
}

fn valid(cert: &Cert) -> impl Iterator<Item = Claim> {
    let all = cert.components().iter().flat_map(|component| &component.signatures);
    all.filter(|attached| attached.facts.own_valid())
        .filter_map(|attached| {
            Some(Claim {
                kind: attached.facts.kind,
                created: attached.facts.created,
                hash: Signature::read(&attached.body)?.hash,
            })
        })
}

/// Reads GnuPG's listing: fields between colons, numbered in its file DETAILS.
fn judged(listing: &str) -> Judgement {
    let mut judgement = Judgement::new();
    let (mut key_id, mut fingerprint) = (String::new(), None);
    for line in listing.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[0] {
            "pub" => (key_id, fingerprint) = (fields[4].to_owned(), None),
            "fpr" if fingerprint.is_none() => {
                judgement.entry(fields[9].to_owned()).or_default();
                fingerprint = Some(fields[9].to_owned());
            }
            "sig" | "rev" if fields[1] == "!" && fields[4] == key_id => {
                let claim = || {
                    Some(Claim {
                        kind: u8::from_str_radix(fields[10].get(..2)?, 16).ok()?,
                        created: fields[5].parse().ok()?,
                        hash: fields[15].parse().ok()?,
                    })
                };
                let claims = judgement.entry(fingerprint.clone().expect("a fingerprint comes before signatures"));
                claims.or_default().extend(claim());
            }
            _ => {}
        }
    }
    judgement.values_mut().for_each(tidy);
    judgement
}

/// A folder for GnuPG, gone with the drop.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("judge-{}", std::process::id()));
        fs::create_dir_all(&path).expect("there is room for temporary files");
        fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("the folder is ours");
        Self(path)
    }

    fn gpg(&self) -> Command {
        let mut command = Command::new("gpg");
        command.env("GNUPGHOME", &self.0);
        // Weak hashes are a judgement of today; whether a signature is right is not.
        command.args([
            "--batch",
            "--quiet",
            "--no-auto-check-trustdb",
            "--allow-weak-digest-algos",
        ]);
        command
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The keyrings of Debian's package `debian-keyring`.
pub fn debian() -> Vec<Vec<u8>> {
    ["keyring", "maintainers", "nonupload", "role-keys"]
        .map(|name| read(&Path::new("/usr/share/keyrings").join(format!("debian-{name}.gpg"))))
        .to_vec()
}

fn read(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The certificates of the vectors of the second generation of reconciliation.
pub fn second() -> Vec<Vec<u8>> {
    let vectors = read(&testdata().join("recon-v2/vectors.json"));
    let vectors = String::from_utf8(vectors).expect("JSON is UTF-8");
    let decoded = |rest: &str| {
        let base64 = rest.split('"').nth(1).expect("a value follows its name");
        let armored = format!("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{base64}\n-----END PGP PUBLIC KEY BLOCK-----\n");
        armor::decode(armored.as_bytes()).expect("the vectors are base64")
    };
    vectors.split("\"certificate_base64\":").skip(1).map(decoded).collect()
}

/// Certificates made to be difficult.
pub fn vectors() -> Vec<Vec<u8>> {
    let files = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("the test data can be read");
        entries
            .map(|entry| entry.expect("the test data can be read").path())
            .collect()
    };
    let folders = files(&testdata().join("datasets"))
        .into_iter()
        .filter(|path| path.is_dir());
    let mut found: Vec<PathBuf> = folders.flat_map(|folder| files(&folder)).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "pgp"));
    found.sort();
    found.iter().map(|path| read(path)).collect()
}

/// Where judgements are recorded.
fn verdicts() -> PathBuf {
    testdata().join("verdicts")
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("testdata"))
        .find(|path| path.is_dir())
        .expect("the test data lies beside the crates")
}
