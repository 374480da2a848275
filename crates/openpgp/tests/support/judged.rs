//! Which self-signatures of a keyring are valid: found by this crate, and by GnuPG.

use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::packet::signature::{Signature, kind};
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::verify::verify;
use std::collections::BTreeMap;
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

/// What this crate finds. Copies of a certificate are judged together.
pub fn ours(keyring: &[u8]) -> Judgement {
    let mut judgement = Judgement::new();
    for incoming in Keyring::read(keyring, &Limits::default()).certs {
        let mut cert = incoming.cert;
        verify(&mut cert, None);
        let claims = judgement.entry(cert.key().fingerprint().to_string()).or_default();
        claims.extend(valid(&cert));
        tidy(claims);
    }
    judgement
}

/// What GnuPG finds in a home of its own.
pub fn gnupgs(keyrings: &[PathBuf]) -> Judgement {
    let home = Home::new();
    let mut import = home.gpg();
    // Without what others signed, which nobody asks for here, it takes seconds instead of minutes.
    import
        .args(["--import-options", "import-local-sigs,self-sigs-only", "--import"])
        .args(keyrings);
    // It fails if it leaves out a single key; what it holds is compared.
    import.output().expect("gpg is installed");
    let listing = home
        .gpg()
        .args(["--with-colons", "--check-sigs"])
        .output()
        .expect("gpg is installed");
    judged(&String::from_utf8_lossy(&listing.stdout))
}

/// May GnuPG be silent about this one of the valid signatures in `all`? On import it keeps of each subkey only the newest
/// binding and the newest revocation (which subkey one belongs to is not told apart here).
pub fn superseded(claim: &Claim, all: &[Claim]) -> bool {
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

/// A keyring of Debian's package `debian-keyring`.
pub fn debian(name: &str) -> PathBuf {
    Path::new("/usr/share/keyrings").join(format!("debian-{name}.gpg"))
}
