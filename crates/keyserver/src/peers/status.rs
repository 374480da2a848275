//! What is known about a partner, as people and programs see it.
//!
//! The report is kept in the store, so that `keyrink peers` shows it whatever process serves, or none.

use super::partner;
use keyrink_store::{Store, StoreError};
use serde::{Deserialize, Serialize};

/// What is known about a partner.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// What it is called.
    pub name: String,
    /// Host and port of its reconciliation.
    pub recon: String,
    /// What happens now, in a word.
    pub state: String,
    /// The dataset of the last session.
    pub dataset: Option<String>,
    /// The filters that it announced last.
    pub filters: Option<String>,
    /// The port of plain HTTP that it announced last.
    pub http_port: Option<u16>,
    /// The trees that it offers; none if it does not know of trees, as SKS.
    pub trees: Vec<String>,
    /// From when on a session of the first generation is due, though both know the second.
    pub first_due: u64,
    /// What the last session left out because either side does, as first bits.
    pub omitted: String,
    /// Parts of the tree that it refused lately.
    pub refused_parts: Vec<RefusedPart>,
    /// What it said about itself, in one line.
    pub software: String,
    /// Sessions that came to their end.
    pub sessions: u64,
    /// When the last of them ended, in Unix seconds.
    pub last_session: Option<u64>,
    /// Whether this node called for it.
    pub called: bool,
    /// Elements that the partner had and this node lacked, in the last session.
    pub differences: u64,
    /// Octets of all sessions that came from it, configurations included.
    pub received: u64,
    /// Octets of all sessions that went to it.
    pub sent: u64,
    /// Certificates fetched from it.
    pub fetched: u64,
    /// Those of them that brought nothing new.
    pub needless: u64,
    /// Those without anything that they were fetched for, whatever else they brought.
    pub wrong_way: u64,
    /// Octets of the answers that brought them.
    pub fetched_octets: u64,
    /// Requests for certificates that were sent to it.
    pub requests: u64,
    /// Elements still to be fetched.
    pub queue: u64,
    /// Elements that it offered in vain and that are not asked for at present.
    pub refused: u64,
    /// Calls that failed, one after the other.
    pub failures: u32,
    /// Times that fetching was given up, one after the other.
    pub fetch_failures: u32,
    /// What went wrong last, and when, in Unix seconds.
    pub last_error: Option<(u64, String)>,
    /// Until when it is left alone, and why.
    pub barred: Option<(u64, String)>,
    /// How many elements this node had when that began.
    pub barred_at: u64,
}

/// A part of the tree that a partner does not reconcile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusedPart {
    /// Its first bits.
    pub prefix: String,
    /// The reason in a number: 1 for not agreed on, 3 for policy.
    pub code: u8,
    /// The reason in words.
    pub text: String,
    /// Until when it is not asked for, in Unix seconds.
    pub until: u64,
}

/// What happens between this node and a partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Waiting,
    Calling,
    Answering,
    Fetching,
    Failing,
}

impl Doing {
    /// All there are.
    pub(super) const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Calling,
        Self::Answering,
        Self::Fetching,
        Self::Failing,
    ];

    /// The word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Calling => "calling",
            Self::Answering => "answering",
            Self::Fetching => "fetching",
            Self::Failing => "failing",
        }
    }
}

/// What can go wrong with a partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It can't be reached.
    Unreachable,
    /// It closes connections at once.
    Busy,
    /// Both do not agree on what to reconcile, or do not understand each other.
    Handshake,
    /// A session did not come to its end.
    Session,
    /// It does not deliver certificates.
    Fetch,
}

impl Trouble {
    /// The word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Busy => "busy",
            Self::Handshake => "handshake",
            Self::Session => "session",
            Self::Fetch => "fetch",
        }
    }
}

/// What is known about the partners of the configuration and of the last server. Blocks.
pub fn reports(store: &dyn Store, configured: &[String]) -> Result<Vec<Report>, StoreError> {
    let served = store.note(partner::NAMES_NOTE)?;
    let served: Vec<String> = served
        .and_then(|names| serde_json::from_slice(&names).ok())
        .unwrap_or_default();
    let mut reports: Vec<Report> = Vec::new();
    for name in configured.iter().chain(&served) {
        if reports.iter().any(|report| report.name == *name) {
            continue;
        }
        let kept = store.note(&partner::note(name))?;
        let report = kept.and_then(|report| serde_json::from_slice(&report).ok());
        reports.push(report.unwrap_or_else(|| Report {
            state: "no server has met it yet".to_owned(),
            name: name.clone(),
            ..Report::default()
        }));
    }
    Ok(reports)
}

/// How long ago something was.
pub fn ago(now: u64, then: u64) -> String {
    match now.saturating_sub(then) {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// What somebody else wrote, as one line of moderate length that can't control a terminal or pretend to be more lines.
pub(crate) fn plain(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(LINE_MAX)
        .map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(LINE_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Characters that end a line or change its direction.
fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

const LINE_MAX: usize = 240;

impl Report {
    /// What a server that starts makes of it.
    pub(super) fn begin(&mut self, name: &str, recon: &str) {
        self.name = name.to_owned();
        self.recon = recon.to_owned();
        self.state = Doing::Waiting.word().to_owned();
        self.queue = 0;
        self.failures = 0;
        self.fetch_failures = 0;
    }

    /// How many failures in a row are a reason to call less often.
    pub(super) fn setbacks(&self) -> u32 {
        self.failures.max(self.fetch_failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_stay_in_their_line() {
        assert_eq!(
            plain("a\u{1b}[2J\nb\r\u{202e}ü"),
            "a\u{fffd}[2J\u{fffd}b\u{fffd}\u{fffd}ü"
        );
        assert_eq!(plain(&"x".repeat(65_536)).chars().count(), LINE_MAX + 1);
    }
}
