//! What was found about packets and who gets to see them, in words: for whoever submitted them, and for operators.

use crate::cert::{Attached, Cert, Component};
use crate::digest::{AnnotatedHash, annotated_hash};
use crate::facts::{Fact, Facts};
use crate::hockeypuck::{self, rules};
use crate::packet::key::Key;
use crate::packet::tag;
use crate::project::{self, Projection};
use crate::serving::Serving;
use crate::veto::Veto;
use std::collections::{BTreeMap, BTreeSet};

/// Knows which packets of a verified certificate users don't get to see.
pub struct Explanation<'a> {
    cert: &'a Cert,
    /// Places of the components that users see.
    shown: BTreeSet<usize>,
    /// Places of sound signatures that are withheld from them.
    withheld: BTreeSet<(usize, usize)>,
    /// Why those are.
    reason: Reason,
    /// The owner took the key back.
    taken_back: bool,
    /// What the operator keeps from users.
    veto: Veto,
}

/// A packet that users don't get to see. Nothing is put in words before it is asked for: there may be very many.
#[derive(Clone, Copy, Debug)]
pub struct Hidden<'a> {
    component: &'a Component,
    /// None if it is the component itself.
    signature: Option<&'a Attached>,
    /// Why not, if it is none of its own faults.
    reason: Option<Reason>,
}

/// Something in words, and where it comes from.
type Reason = (&'static str, &'static str);

impl<'a> Explanation<'a> {
    /// Explains a verified certificate of which users get so much.
    pub fn of(cert: &'a Cert, serving: &Serving) -> Self {
        let reason = match serving.approved_only {
            true => (
                "its owner has not approved it, or there is no room for it",
                "`approved_only` and `others_octets` in [limits]",
            ),
            false => (
                "there is no room for so many signatures of others: the newest of known issuers are given out",
                "`others_octets` in [limits]",
            ),
        };
        Self {
            cert,
            shown: cert.shown(Projection::Served).map(|(at, _)| at).collect(),
            withheld: serving.withheld(cert),
            reason,
            taken_back: project::is_taken_back(cert),
            veto: Veto::Nothing,
        }
    }

    /// The same on a server whose operator keeps something from users; of a certificate all of which is kept from them, peers
    /// get nothing either.
    pub fn under(mut self, veto: Veto) -> Self {
        self.shown.retain(|at| veto.leaves(&self.cert.components()[*at]));
        Self { veto, ..self }
    }

    /// All that is kept from users. The signatures of a hidden component are hidden with it and not listed.
    pub fn hidden(&self) -> impl Iterator<Item = Hidden<'a>> {
        let components = self.cert.components().iter().enumerate();
        components.flat_map(move |(at, component)| {
            let shown = self.shown.contains(&at);
            let alone = (!shown).then(|| self.hide_component(component));
            let signatures = component.signatures.iter().enumerate().filter(move |_| shown);
            let signatures = signatures.filter_map(move |(nth, signature)| self.hide(component, signature, (at, nth)));
            alone.into_iter().chain(signatures)
        })
    }

    fn hide_component(&self, component: &'a Component) -> Hidden<'a> {
        let taken_back = self.taken_back && component.tag == tag::USER_ID && project::is_served_bound(component);
        let taken_back = taken_back.then_some(TAKEN_BACK);
        Hidden {
            component,
            signature: None,
            reason: (!self.veto.leaves(component)).then_some(VETOED).or(taken_back),
        }
    }

    fn hide(&self, component: &'a Component, signature: &'a Attached, place: (usize, usize)) -> Option<Hidden<'a>> {
        let withheld = self.withheld.contains(&place);
        let vetoed = !self.veto.leaves_signature(&signature.facts);
        (withheld || vetoed || !project::is_shown(self.cert.key().version, signature)).then_some(Hidden {
            component,
            signature: Some(signature),
            reason: vetoed.then_some(VETOED).or(withheld.then_some(self.reason)),
        })
    }

    /// Is this packet, which may be of another copy, hidden here in the same way?
    pub fn hides(&self, hidden: &Hidden<'_>) -> bool {
        let key = hidden.component.sort_key();
        let found = self
            .cert
            .components()
            .binary_search_by(|other| other.sort_key().cmp(&key));
        let Ok(at) = found else { return false };
        let shown = self.shown.contains(&at);
        let signatures = &self.cert.components()[at].signatures;
        match hidden.signature {
            None => !shown,
            Some(signature) => {
                let nth = signatures.binary_search_by(|other| other.body.cmp(&signature.body));
                let version = self.cert.key().version;
                let hides = |nth| self.withheld.contains(&(at, nth)) || !project::is_shown(version, &signatures[nth]);
                shown && nth.is_ok_and(hides)
            }
        }
    }
}

/// A packet, what was found about it, and who gets to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Which packet, in words.
    pub part: String,
    /// It stands on a component; else it is one.
    pub is_signature: bool,
    /// What was found, in words.
    pub verdict: &'static str,
    /// Where the rule comes from.
    pub source: &'static str,
    /// Which filter keeps it from Hockeypuck's dataset, if it is not there.
    pub hockeypuck: Option<&'static str>,
    /// Why it is not in the dataset of SKS, if it is not there.
    pub sks: Option<&'static str>,
    /// The projections that show it.
    pub shown: Vec<Projection>,
    /// What stands for it in the second generation, if something does.
    pub element: Option<AnnotatedHash>,
}

impl Explanation<'_> {
    /// Every packet, in canonical order.
    pub fn judged(&self) -> impl Iterator<Item = Judged> {
        let seen = Seen::of(self.cert);
        let components = self.cert.components().iter().enumerate();
        components.flat_map(move |(at, component)| {
            let mut shown = seen.component(at);
            self.forbid(&mut shown, self.veto.leaves(component));
            let alone = self.judge(component, None, at, shown);
            let signatures = component.signatures.iter().enumerate();
            let signatures = signatures.map(|(nth, signature)| {
                let mut shown = seen.signature(at, nth);
                let leaves = self.veto.leaves(component) && self.veto.leaves_signature(&signature.facts);
                self.forbid(&mut shown, leaves && !self.withheld.contains(&(at, nth)));
                self.judge(component, Some((nth, signature)), at, shown)
            });
            std::iter::once(alone).chain(signatures).collect::<Vec<_>>()
        })
    }

    /// Takes away what does not see a packet although it is sound.
    fn forbid(&self, shown: &mut Vec<Projection>, to_users: bool) {
        shown.retain(|projection| match projection {
            Projection::Served => to_users,
            _ => self.veto != Veto::Certificate,
        });
    }

    fn judge(
        &self,
        component: &Component,
        signature: Option<(usize, &Attached)>,
        at: usize,
        shown: Vec<Projection>,
    ) -> Judged {
        let hidden = match signature {
            None if self.shown.contains(&at) => None,
            None => Some(self.hide_component(component).reason()),
            Some((nth, signature)) => self.hide(component, signature, (at, nth)).map(|hidden| hidden.reason()),
        };
        let (verdict, source) = hidden.unwrap_or_else(|| match signature {
            None => ("bound by a valid self-signature", "RFC 9580, section 10.1"),
            Some((_, signature)) => verdict(&signature.facts),
        });
        let misses = |projection| self.veto != Veto::Certificate && !shown.contains(&projection);
        let attached = signature.map(|(_, signature)| signature);
        let key = self.cert.key();
        let element = attached.and_then(|attached| annotated_hash(component, attached, &key.fingerprint()));
        Judged {
            part: Hidden {
                component,
                signature: attached,
                reason: None,
            }
            .part(),
            is_signature: signature.is_some(),
            verdict,
            source,
            hockeypuck: misses(Projection::Hockeypuck).then(|| filter(&key, component, attached)),
            sks: misses(Projection::Sks).then_some(if key.version > 4 { NEWER_KEY } else { NEWER_SUBKEY }),
            shown,
            element: element.filter(|_| self.veto != Veto::Certificate),
        }
    }
}

/// Who sees which packets.
struct Seen(Vec<(Projection, BTreeMap<usize, BTreeSet<usize>>)>);

impl Seen {
    fn of(cert: &Cert) -> Self {
        let all = [
            Projection::Served,
            Projection::Sks,
            Projection::Hockeypuck,
            Projection::All,
        ];
        let places = |projection| {
            cert.shown(projection)
                .map(|(at, signatures)| (at, signatures.collect()))
        };
        Self(all.map(|projection| (projection, places(projection).collect())).into())
    }

    fn component(&self, at: usize) -> Vec<Projection> {
        let sees = self.0.iter().filter(|(_, places)| places.contains_key(&at));
        sees.map(|(projection, _)| *projection).collect()
    }

    fn signature(&self, at: usize, nth: usize) -> Vec<Projection> {
        let holds = |places: &BTreeMap<usize, BTreeSet<usize>>| places.get(&at).is_some_and(|all| all.contains(&nth));
        let sees = self.0.iter().filter(|(_, places)| holds(places));
        sees.map(|(projection, _)| *projection).collect()
    }
}

impl Hidden<'_> {
    /// Which packet, in words.
    pub fn part(&self) -> String {
        let component = name(self.component);
        match self.signature {
            None => component,
            Some(signature) => {
                let (kind, issuer) = (signature.facts.kind, signature.facts.issuer);
                format!("signature {kind:02X} by {issuer} on {component}")
            }
        }
    }

    /// Why not, in words, and where that rule comes from.
    pub fn reason(&self) -> (&'static str, &'static str) {
        let own_fault = || match self.signature {
            None => component_reason(self.component),
            Some(signature) => (signature_reason(signature), verdict(&signature.facts).1),
        };
        self.reason.unwrap_or_else(own_fault)
    }
}

const VETOED: Reason = ("the operator of this server keeps it back", "a rule of the operator");
const TAKEN_BACK: Reason = (
    "the key was revoked for all time: only the revocation is given out",
    "HIP 005",
);
const NEWER_KEY: &str = "it takes keys up to version 4";
const NEWER_SUBKEY: &str = "it takes subkeys of keys of version 4, up to version 4";

/// Longest part of a user id that is put into an explanation.
const SHOWN_OCTETS_MAX: usize = 200;

fn name(component: &Component) -> String {
    let key = || {
        component
            .key()
            .map_or_else(|| "that is unreadable".to_owned(), |key| key.fingerprint().to_string())
    };
    match component.tag {
        tag::PUBLIC_KEY => format!("primary key {}", key()),
        tag::PUBLIC_SUBKEY => format!("subkey {}", key()),
        tag::USER_ID => format!("user id \"{}\"", beginning(&component.body)),
        _ => format!("user attribute of {} octets", component.body.len()),
    }
}

/// A user id, or the beginning of a long one.
fn beginning(user_id: &[u8]) -> String {
    match user_id.get(..SHOWN_OCTETS_MAX) {
        Some(start) if start.len() < user_id.len() => format!("{}…", String::from_utf8_lossy(start)),
        _ => String::from_utf8_lossy(user_id).into_owned(),
    }
}

fn component_reason(component: &Component) -> Reason {
    let misses_consent = || {
        component
            .signatures
            .iter()
            .any(|signature| signature.facts.has(Fact::BackSignatureMissing))
    };
    const STRUCTURE: &str = "RFC 9580, section 10.1";
    match component.tag {
        tag::PUBLIC_KEY => ("no valid self-signature shows that anybody holds this key", STRUCTURE),
        tag::USER_ATTRIBUTE => (
            "user attributes are kept for peers, but not shown",
            "this program's choice",
        ),
        tag::USER_ID if project::is_served_bound(component) => (
            "it has more than 2048 octets, which GnuPG does not take",
            "this program's choice",
        ),
        tag::PUBLIC_SUBKEY if misses_consent() => (
            "it is bound for signing, but has not signed its consent",
            "RFC 9580, section 5.2.1.8",
        ),
        tag::PUBLIC_SUBKEY if component.is_bound() => (
            "its version does not go with that of the key, or octets follow its last field",
            STRUCTURE,
        ),
        _ => ("no valid self-signature binds it to the key", STRUCTURE),
    }
}

fn signature_reason(signature: &Attached) -> &'static str {
    let facts = &signature.facts;
    match () {
        () if project::is_served(facts) => {
            "programs that know this version of the key do not know that of the signature"
        }
        () if !facts.has(Fact::Readable) => "it cannot be read",
        () if facts.has(Fact::Local) => "it is marked as not for publication",
        () if !facts.has(Fact::Fitting) => "a signature of this type does not belong there",
        () if facts.has(Fact::Unverified) => "the certificate has more signatures than are verified at once",
        () if facts.has(Fact::BackSignatureMissing) => "it binds for signing without the subkey's consent",
        () if facts.has(Fact::Own) && facts.has(Fact::Unverifiable) => "nobody can verify its algorithm here",
        () if facts.has(Fact::Own) => "it claims to be the owner's and is not valid",
        () if facts.has(Fact::Unverifiable) => "its hash algorithm is not known",
        () => "it was made over something else",
    }
}

/// What was found about a signature, and where the rule comes from.
fn verdict(facts: &Facts) -> (&'static str, &'static str) {
    match () {
        () if facts.binds() => ("valid: the owner made it", "RFC 9580, section 5.2.4"),
        () if facts.has(Fact::Local) => ("not for publication", "RFC 9580, section 5.2.3.19"),
        () if !facts.has(Fact::Readable) => ("unreadable", "RFC 9580, section 5.2"),
        () if !facts.has(Fact::Fitting) => ("of a type that does not belong there", "RFC 9580, section 5.2.1"),
        () if facts.has(Fact::BackSignatureMissing) => ("without the subkey's consent", "RFC 9580, section 5.2.1.8"),
        () if facts.has(Fact::Unverified) => ("not verified", "this program's bound on work"),
        () if facts.has(Fact::Own) && facts.has(Fact::Unverifiable) => (
            "claims to be the owner's, and nobody can tell here",
            "this program's algorithms",
        ),
        () if facts.plausible() => (
            "by somebody else: its clear octets fit, whoever made it",
            "RFC 9580, section 5.2.4",
        ),
        () => ("wrong", "RFC 9580, section 5.2.4"),
    }
}

/// The filter of Hockeypuck's that keeps something from its dataset.
fn filter(key: &Key<'_>, component: &Component, signature: Option<&Attached>) -> &'static str {
    let normal = signature.map_or(component.normal, |signature| signature.normal);
    let is_key = matches!(component.tag, tag::PUBLIC_KEY | tag::PUBLIC_SUBKEY);
    let Some(signature) = signature else {
        return match component.tag {
            tag::USER_ATTRIBUTE => "drop:UAT",
            _ if is_key && !hockeypuck::key::is_read(&component.body) => "drop:unparseable",
            _ if normal > 0 => "drop:hardRevokedCruft",
            _ => "drop:unbound",
        };
    };
    let Ok(read) = hockeypuck::signature::read(&signature.body) else {
        return "drop:unparseable";
    };
    let own = rules::is_own(&read, &key.key_id(), &key.fingerprint());
    match () {
        () if component.tag == tag::USER_ATTRIBUTE => "drop:UAT",
        () if normal > 0 && own => "drop:oldSlhdsaSelfSig",
        () if normal > 0 => "drop:hardRevokedCruft",
        () if signature.facts.is_normal() => "drop:unbound",
        () if key.version > 3 && !rules::may_stand(&read, key, component, own) => "drop:structuralMartian",
        () if own => "drop:invalidSelfSig",
        () => "drop:implausible",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_user_ids_are_shortened_and_what_another_copy_shows_is_told() {
        let component = |body: &[u8]| {
            let mut component = Component::new(tag::USER_ID, body);
            component.signatures.push(Attached::new(&[1]));
            component
        };
        let key = || Component::new(tag::PUBLIC_KEY, &[4, 0, 0, 0, 1, 99, 7, 7]);
        let junk = Cert::new(vec![key(), component(&[b'x'; 500])]).unwrap();
        let explanation = Explanation::of(&junk, &Serving::default());
        let hidden: Vec<_> = explanation.hidden().collect();
        assert_eq!(hidden.len(), 2);
        assert!(hidden[1].part().len() < SHOWN_OCTETS_MAX + 20);
        assert!(hidden[1].part().ends_with("x…\""));
        let mut bound = component(&[b'x'; 500]);
        let valid = Fact::Valid as u32 | Fact::Fitting as u32;
        bound.signatures[0].facts = crate::facts::Facts::from_bits(valid);
        let sound = Cert::new(vec![key(), bound]).unwrap();
        assert!(hidden.iter().all(|hidden| explanation.hides(hidden)));
        assert!(
            !hidden
                .iter()
                .any(|hidden| Explanation::of(&sound, &Serving::default()).hides(hidden))
        );
    }
}
