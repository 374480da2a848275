//! `keyrink explain`: what was found about every packet of a certificate, and who gets to see it.

use super::{AdminError, open_to_read};
use crate::acquaint::Acquaintance;
use crate::cli;
use crate::formats::{self, FAMILIES, OPENPGP, Policy};
use crate::ingest::Ingest;
use crate::lifecycle::{Rule, RuleSet};
use crate::peers::status::plain;
use keyrink_openpgp::armor;
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::explain::{Explanation, Judged};
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::terms::Term;
use keyrink_openpgp::verify::verify;
use keyrink_store::Store;
use std::io::{self, Read, Write};
use std::path::Path;

/// `keyrink explain`
pub fn run(arguments: &cli::Explain) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    let policy = Policy::new(&config);
    let path = Path::new(&arguments.what);
    let (certs, rules) = if path.is_file() {
        (from_file(path, &Ingest::limits(&config))?, RuleSet::default())
    } else {
        let store = open_to_read(&config)?;
        let rules = RuleSet::read(&*store.snapshot()?)?;
        (stored(&*store, &rules, &arguments.what)?, rules)
    };
    let mut out = io::stdout().lock();
    let written = certs.iter().try_for_each(|cert| write(&mut out, cert, policy, &rules));
    match written {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| AdminError::Write("standard output".to_owned(), error)),
    }
}

/// The certificates of a keyring as they would be if nothing of them were stored.
fn from_file(path: &Path, limits: &keyrink_openpgp::policy::Limits) -> Result<Vec<Cert>, AdminError> {
    let failed = |error| AdminError::Read(path.display().to_string(), error);
    let mut octets = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_OCTETS_MAX).read_to_end(&mut octets).map_err(failed)?;
    if armor::is_armored(&octets) {
        octets = armor::decode(&octets).map_err(|error| failed(io::Error::other(error)))?;
    }
    let keyring = Keyring::read(&octets, limits);
    keyring.refused.iter().for_each(|refused| println!("{refused}"));
    let certs = keyring.certs.into_iter().map(|incoming| {
        let mut cert = incoming.cert;
        for dropped in &incoming.dropped {
            let (tag, octets) = (dropped.tag, dropped.octets);
            println!("packet of type {tag} with {octets} octets: {}", dropped.reason);
        }
        verify(&mut cert, None);
        Acquaintance::default().note(&mut cert);
        cert
    });
    Ok(certs.collect())
}

/// The stored certificates with a fingerprint or key id.
fn stored(store: &dyn Store, rules: &RuleSet, what: &str) -> Result<Vec<Cert>, AdminError> {
    let unknown = || AdminError::Unknown(what.to_owned());
    let digits = what.strip_prefix("0x").unwrap_or(what).replace(' ', "");
    let octets = formats::octets(&digits).ok_or_else(unknown)?;
    let term = match octets.len() {
        8 => Term::KeyId(*octets.first_chunk().ok_or_else(unknown)?),
        16 | 20 | 32 => Term::Fingerprint(octets),
        _ => return Err(unknown()),
    };
    let found = store.find(OPENPGP, &formats::beginning(&term), None, CERTIFICATES_MAX)?;
    let certs = found.iter().map(|stored| {
        let damaged = |_| AdminError::Damaged(formats::hexadecimal(stored.id.as_bytes()));
        Cert::decode(&stored.data).map_err(damaged)
    });
    let certs: Vec<Cert> = certs.collect::<Result<_, _>>()?;
    let rule = || rules.about(&what.parse().ok()?).first().filter(|_| certs.is_empty());
    match rule() {
        Some(rule) => Err(AdminError::Ruled(ruled(rule))),
        None if certs.is_empty() => Err(unknown()),
        None => Ok(certs),
    }
}

/// What a rule says, by whom and why.
fn ruled(rule: &Rule) -> String {
    let (action, selector) = (rule.action.name(), &rule.selector);
    let (time, by, reason) = (rule.time, plain(&rule.by), plain(&rule.reason));
    format!("{action} {selector}, by {by} at {time}: {reason}")
}

fn write(out: &mut dyn Write, cert: &Cert, policy: Policy, rules: &RuleSet) -> io::Result<()> {
    writeln!(out, "certificate {}", cert.key().fingerprint())?;
    let judgement = rules.judge(cert);
    for rule in judgement.rules.iter().flat_map(|selector| rules.about(selector)) {
        writeln!(out, "rule: {}", ruled(rule))?;
    }
    for family in FAMILIES {
        let elements = match judgement.blocks() {
            true => Vec::new(),
            false => family.elements(cert),
        };
        let elements: Vec<_> = elements.iter().map(|octets| formats::hexadecimal(octets)).collect();
        let elements = if elements.is_empty() {
            "none".to_owned()
        } else {
            elements.join(" ")
        };
        let kept = policy.families().any(|kept| kept.name == family.name);
        let remark = if kept { "" } else { " (this dataset is not kept)" };
        let what = if family.projection == Projection::All {
            "elements"
        } else {
            "digest"
        };
        writeln!(out, "{what} in {}: {elements}{remark}", family.name)?;
    }
    for judged in Explanation::of(cert, &policy.serving())
        .under(judgement.veto())
        .judged()
    {
        write_packet(out, &judged, cert.key().version)?;
    }
    writeln!(out)
}

fn write_packet(out: &mut dyn Write, judged: &Judged, version: u8) -> io::Result<()> {
    let indent = if judged.is_signature { "  " } else { "" };
    let shown: Vec<_> = judged
        .shown
        .iter()
        .map(|projection| match name(*projection) {
            USERS if version > VERSION_OF_ALL => "users who ask with options=bin",
            name => name,
        })
        .collect();
    let shown = if shown.is_empty() {
        "nobody".to_owned()
    } else {
        shown.join(", ")
    };
    let part = plain(&judged.part);
    writeln!(out, "{indent}{part}")?;
    writeln!(out, "{indent}    {} ({})", judged.verdict, judged.source)?;
    writeln!(out, "{indent}    seen by {shown}")?;
    if let Some(element) = judged.element {
        writeln!(
            out,
            "{indent}    element in openpgp/2: {}",
            formats::hexadecimal(&element)
        )?;
    }
    for (dataset, reason) in [("sks", judged.sks), ("hockeypuck", judged.hockeypuck)] {
        if let Some(reason) = reason {
            writeln!(out, "{indent}    not in {dataset}: {reason}")?;
        }
    }
    Ok(())
}

/// Who looks through a projection.
fn name(projection: Projection) -> &'static str {
    let family = FAMILIES.into_iter().find(|family| family.projection == projection);
    family.map_or(USERS, |family| family.name)
}

const USERS: &str = "users";
/// Answers for all programs hold keys up to this version.
const VERSION_OF_ALL: u8 = 5;

/// The longest file that is read.
const FILE_OCTETS_MAX: u64 = 64 << 20;
/// The most certificates with one key id.
const CERTIFICATES_MAX: usize = 20;
