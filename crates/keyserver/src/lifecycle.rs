//! What becomes of certificates by the operator's word: blocked, erased, or shown without some user ids.
//!
//! A [`Rule`] says so of one certificate or of all that have an address; rules are kept in the store, as records of a realm
//! of their own, together with a line for whoever asks later who decided what. [`Rules`] is the one way to write
//! certificates: whatever is written is tied to the rules that it was decided by, so that a server that has not heard of
//! a new rule cannot write back what the rule took away. [`Change`] makes rules, and makes what is stored follow them.
//!
//! A rule is followed where records are written, and readers see nothing but records: it holds on every server that shares
//! the store with the transaction that applies it.
//!
//! The command line and signed [`Orders`] lead here.
//!
//! * *Blocked*: the record stays and is found by its fingerprint and key id only, and shown only with the owner's revocation
//!   for all time. It has no element in any dataset. Nothing but such a revocation is taken for it.
//! * *Erased*: there is no record. The rule with the fingerprint is all that is kept.
//! * *Hidden user ids*: users neither see them nor find by them. Peers hold them anyway, and without them every one of them
//!   would offer its copy for ever: the datasets stay as they are.

mod change;
pub(crate) mod order;
mod rule;
mod rules;
mod search;

pub use change::{Change, ChangeError, entries, finish_pending, import};
pub(crate) use change::{derive, unfollowed};
pub use order::{OrderError, Orders, Verb, WINDOW_SECS};
pub use rule::{Action, Rule, Selector, SelectorError};
pub use rules::{Decide, Entry, Judgement, RuleSet, Rules};
pub use search::Hits;

use keyrink_openpgp::crypto::digest::sha256;
use keyrink_store::{Realm, RecordId};

/// The realm of rules and of what is noted about them.
pub const DECISIONS: Realm = Realm(2);

/// The kinds of records in [`DECISIONS`]: the first octet of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// A rule; its selector's SHA-256 follows.
    Rule = 1,
    /// Who decided what, in the order of time.
    Entry = 2,
    /// A signed order that was carried out; its SHA-256 follows.
    Spent = 3,
}

impl Kind {
    /// The id of a record that stands for these octets.
    fn id(self, octets: &[u8]) -> RecordId {
        id(&[&[self as u8], &sha256(&[octets])[..]].concat())
    }

    /// The id that all of this kind come after.
    fn start(self) -> RecordId {
        id(&[self as u8])
    }

    fn holds(self, id: &RecordId) -> bool {
        id.as_bytes().first() == Some(&(self as u8))
    }
}

fn id(octets: &[u8]) -> RecordId {
    RecordId::new(octets).expect("between 1 and 64 octets")
}
