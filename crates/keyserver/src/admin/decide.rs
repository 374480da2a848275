//! `keyrink admin`: the operator's decisions about certificates, beside running servers.

use super::{AdminError, open_store, open_to_read};
use crate::cli::decide::{Admin, Decide, Import, List, Note, TakeBack};
use crate::config::Config;
use crate::derive::Deriving;
use crate::formats::{Policy, hexadecimal};
use crate::http::time::Instant;
use crate::lifecycle::{self, Action, Change, Entry, Hits, Rule, RuleSet, Rules, Selector};
use crate::peers::partner::now;
use crate::peers::status::plain;
use keyrink_store::Store;
use keyrink_store::sqlite::Durability;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// `keyrink admin`
pub fn run(arguments: &Admin) -> Result<(), AdminError> {
    match arguments {
        Admin::Block(arguments) => decide(Action::Block, arguments),
        Admin::Erase(arguments) => decide(Action::Erase, arguments),
        Admin::HideUid(arguments) => decide(Action::HideUid, arguments),
        Admin::Unblock(arguments) => take_back(arguments),
        Admin::List(arguments) => list(arguments),
        Admin::Import(arguments) => import(arguments),
    }
}

fn decide(action: Action, arguments: &Decide) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    let selectors = selectors(&arguments.what)?;
    let store = if arguments.dry_run {
        open_to_read(&config)?
    } else {
        to_write(&config)?
    };
    let is_open = selectors.iter().any(Selector::is_open);
    let is_preview = arguments.dry_run || is_open && !arguments.yes;
    for selector in &selectors {
        let hits = Hits::of(&*store, selector)?;
        if let Some(primary) = hits.primary_instead {
            let primary = hexadecimal(&primary).to_uppercase();
            return Err(AdminError::Subkey(selector.to_string(), primary));
        }
        println!("{selector}: {} stored certificates", hits.fingerprints.len());
        let shown = hits.fingerprints.iter().filter(|_| is_preview).take(SHOWN_MAX);
        shown.for_each(|fingerprint| println!("  {}", hexadecimal(fingerprint).to_uppercase()));
        if is_preview && hits.fingerprints.len() > SHOWN_MAX {
            println!("  and {} more", hits.fingerprints.len() - SHOWN_MAX);
        }
    }
    if is_preview && !arguments.dry_run {
        return Err(AdminError::Unconfirmed);
    }
    if is_preview {
        return Ok(());
    }
    let change = Change {
        action: Some(action),
        selectors,
        once: arguments.once,
        ..change(&arguments.note)
    };
    let count = change.make(&*store, &Rules::default(), Policy::new(&config))?;
    println!("{}: done, {count} stored certificates", action.name());
    Ok(())
}

fn take_back(arguments: &TakeBack) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    let change = Change {
        selectors: selectors(&arguments.what)?,
        ..change(&arguments.note)
    };
    let count = change.make(&*to_write(&config)?, &Rules::default(), Policy::new(&config))?;
    println!("unblock: done, {count} rules taken back");
    Ok(())
}

fn list(arguments: &List) -> Result<(), AdminError> {
    let store = open_to_read(&arguments.source.configuration()?)?;
    if arguments.log {
        lifecycle::entries(&*store, &mut |entry| println!("{}", line_of_log(&entry)))?;
        return Ok(());
    }
    let rules = RuleSet::read(&*store.snapshot()?)?;
    for rule in rules.iter() {
        if arguments.export {
            let line = serde_json::to_string(rule).map_err(std::io::Error::from);
            println!(
                "{}",
                line.map_err(|error| AdminError::Write("standard output".into(), error))?
            );
        } else {
            let (action, by, reason) = (rule.action.name(), plain(&rule.by), plain(&rule.reason));
            println!(
                "{action:8}  {:42}  {}  {by}: {reason}",
                rule.selector.to_string(),
                rule.time
            );
        }
    }
    Ok(())
}

fn line_of_log(entry: &Entry) -> String {
    let selector = entry
        .selector
        .as_ref()
        .map_or("(address not kept)".to_owned(), Selector::to_string);
    let (by, reason) = (plain(&entry.by), plain(&entry.reason));
    let Entry {
        time,
        action,
        certificates,
        ..
    } = entry;
    format!("{time}  {action:8}  {selector:42}  {certificates:>5}  {by}: {reason}")
}

fn import(arguments: &Import) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    let list = read_list(&arguments.file)?;
    if arguments.dry_run {
        println!("{} rules, nothing was changed", list.len());
        return Ok(());
    }
    let change = change(&arguments.note);
    let entry = Entry {
        time: change.time,
        by: change.by,
        action: "import".to_owned(),
        selector: None,
        reason: change.reason,
        certificates: 0,
    };
    let count = lifecycle::import(
        &*to_write(&config)?,
        &Rules::default(),
        Policy::new(&config),
        &list,
        entry,
    )?;
    println!("import: done, {count} rules");
    Ok(())
}

fn read_list(file: &Path) -> Result<Vec<Rule>, AdminError> {
    let name = file.display().to_string();
    let failed = |error| AdminError::Read(name.clone(), error);
    let mut text = String::new();
    let octets = if name == "-" {
        std::io::stdin().take(LIST_OCTETS_MAX).read_to_string(&mut text)
    } else {
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(LIST_OCTETS_MAX).read_to_string(&mut text)
    };
    if octets.map_err(failed)? as u64 == LIST_OCTETS_MAX {
        return Err(failed(std::io::Error::other(
            "the list is too long: cut it into several",
        )));
    }
    rules_of(&text).map_err(|reason| failed(std::io::Error::other(reason)))
}

/// The rules in a list, one in a line; or which line is none, and why.
pub(crate) fn rules_of(text: &str) -> Result<Vec<Rule>, String> {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let rules = lines.map(|(at, line)| serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1)));
    rules.collect()
}

/// Opens a store to write certificates by the configured policy.
fn to_write(config: &Config) -> Result<Arc<dyn Store>, AdminError> {
    let store = open_store(config, Durability::Full)?;
    Deriving::begin(&*store, Policy::new(config))?.announce()?;
    Ok(store)
}

fn selectors(texts: &[String]) -> Result<Vec<Selector>, AdminError> {
    let all = texts.iter().map(|text| text.parse());
    Ok(all.collect::<Result<_, _>>()?)
}

fn change(note: &Note) -> Change {
    let user = || {
        ["SUDO_USER", "USER", "LOGNAME"]
            .iter()
            .find_map(|name| std::env::var(name).ok())
    };
    Change {
        action: None,
        selectors: Vec::new(),
        once: false,
        reason: note.reason.clone(),
        by: note.by.clone().or_else(user).unwrap_or_else(|| "unknown".to_owned()),
        time: Instant(now()),
        order: None,
    }
}

/// Certificates named one by one.
const SHOWN_MAX: usize = 20;
/// The longest list: some 500 000 rules.
const LIST_OCTETS_MAX: u64 = 128 << 20;
