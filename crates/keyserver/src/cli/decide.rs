//! The arguments of `keyrink admin`.

use super::Source;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `keyrink admin`
#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Show nothing of certificates, and reconcile nothing, but a revocation for all time
    #[command(after_help = BLOCK)]
    Block(Decide),
    /// Remove certificates; nothing is kept but their fingerprints, so that no peer brings them back
    #[command(after_help = ERASE)]
    Erase(Decide),
    /// Show certificates without user ids: all of one certificate, or those with an address or in a domain
    #[command(after_help = HIDE_UID)]
    HideUid(Decide),
    /// Take back what was decided: a block, an erasure or hidden user ids
    #[command(after_help = UNBLOCK)]
    Unblock(TakeBack),
    /// Show the rules, or who decided what
    #[command(after_help = LIST)]
    List(List),
    /// Make the rules of a list that `keyrink admin list --export` wrote
    #[command(after_help = IMPORT)]
    Import(Import),
}

/// `keyrink admin block`, `erase` and `hide-uid`
#[derive(Args, Debug)]
pub struct Decide {
    /// Where the store is.
    #[command(flatten)]
    pub source: Source,
    /// A fingerprint or key id of a primary key, an address, @DOMAIN, or @.DOMAIN for all below it
    #[arg(required = true, value_name = "WHAT")]
    pub what: Vec<String>,
    /// What is noted.
    #[command(flatten)]
    pub note: Note,
    /// Only certificates that are stored now: no address is kept, later ones are taken
    #[arg(long)]
    pub once: bool,
    /// Show which certificates this is about, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Needed with an address or a domain, which may be about many certificates
    #[arg(long)]
    pub yes: bool,
}

/// `keyrink admin unblock`
#[derive(Args, Debug)]
pub struct TakeBack {
    /// Where the store is.
    #[command(flatten)]
    pub source: Source,
    /// As it stands in `keyrink admin list`
    #[arg(required = true, value_name = "WHAT")]
    pub what: Vec<String>,
    /// What is noted.
    #[command(flatten)]
    pub note: Note,
}

/// What is noted with a decision.
#[derive(Args, Clone, Debug)]
pub struct Note {
    /// Why; kept with the rule and in the log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who decides [default: the user who runs this]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// `keyrink admin list`
#[derive(Args, Debug)]
pub struct List {
    /// Where the store is.
    #[command(flatten)]
    pub source: Source,
    /// Write one JSON object a line, for `keyrink admin import`
    #[arg(long)]
    pub export: bool,
    /// Show who decided what instead, the oldest first
    #[arg(long)]
    pub log: bool,
}

/// `keyrink admin import`
#[derive(Args, Debug)]
pub struct Import {
    /// Where the store is.
    #[command(flatten)]
    pub source: Source,
    /// The list; - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What is noted.
    #[command(flatten)]
    pub note: Note,
    /// Only read the list
    #[arg(long)]
    pub dry_run: bool,
}

const BLOCK: &str =
    "The certificate stays stored, so that it can be shown again. If its owner revoked the key for all time, now or
later, the primary key and the revocation are shown: whoever uses the key has to learn of that.

EXAMPLES:
  keyrink admin block --data ./keys --reason 'court order 12' 653909A2F0E37C106F5FAF546C8857E0D8E8F074
  keyrink admin block --data ./keys --reason spam --dry-run @spam.example
  keyrink admin block --data ./keys --reason spam --yes @spam.example @.spam.example";

const ERASE: &str =
    "With an address or a domain each certificate found is erased, and later ones are not taken either. --once
erases those that are stored now and keeps no address.

EXAMPLES:
  keyrink admin erase --data ./keys --reason 'asked by its owner' 653909A2F0E37C106F5FAF546C8857E0D8E8F074
  keyrink admin erase --data ./keys --reason 'right to be forgotten' --once --yes alice@example.org";

const HIDE_UID: &str =
    "Users neither see these user ids nor find the certificate by them. Peers hold them anyway: datasets stay as
they are. What must not be passed on to peers either has to be blocked.

EXAMPLES:
  keyrink admin hide-uid --data ./keys --reason 'asked by its owner' --yes alice@example.org
  keyrink admin hide-uid --data ./keys --reason 'asked by its owner' 653909A2F0E37C106F5FAF546C8857E0D8E8F074";

const UNBLOCK: &str =
    "What came of one decision is taken back together: with the address all that was erased because of it. What
was erased comes back with the next exchange with a partner that has it.

EXAMPLES:
  keyrink admin unblock --data ./keys --reason 'the order was lifted' 653909A2F0E37C106F5FAF546C8857E0D8E8F074";

const LIST: &str = "EXAMPLES:
  keyrink admin list --data ./keys
  keyrink admin list --data ./keys --log
  keyrink admin list --data ./keys --export > rules.jsonl";

const IMPORT: &str =
    "A rule about what there is a rule about already takes its place. The list is read as a whole before anything is
changed.

EXAMPLES:
  keyrink admin import --data ./keys --reason 'shared list of October' rules.jsonl";
