//! How much of what others signed users get.
//!
//! Anybody can put any number of signatures on any certificate, and nobody here can verify them. What the owner signed is
//! always given out; of what others signed only so much as there is room for, or only what the owner approved.
//!
//! What comes first where there is not room for all: signatures that were made by now, by issuers whose keys are known,
//! the newest. The time and other certificates are not for this crate to know, so a node notes both with the verdicts
//! when it writes ([`Cert::acquaint`]). They are facts that become true and stay true, so merging takes either copy's
//! word, and no digest depends on them.

use crate::cert::{Attached, Cert, Component};
use crate::crypto::digest::{Digest, Hasher};
use crate::facts::{Fact, Facts};
use crate::packet::key::KeyId;
use crate::packet::signature::{Signature, kind};
use crate::project::{Projection, is_served};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What users get of others' signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Octets of them on one certificate.
    pub others_octets: u64,
    /// Only certifications that the owner approved, by a signature of type 16 (draft-dkg-openpgp-1pa3pc), and revocations
    /// of these.
    pub approved_only: bool,
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            others_octets: 64 << 10,
            approved_only: false,
        }
    }
}

impl Serving {
    /// Places of the signatures, of those that are sound enough for users, that are withheld from them: number of the
    /// component, number of the signature on it.
    ///
    /// Of each issuer on each component the newest certification and the newest revocation stay together, since one is of
    /// no use without the other, and come before the issuer's older ones. Known issuers come before others, what is newer
    /// before what is older, and what claims to be made in the future after everything.
    pub fn withheld(&self, cert: &Cert) -> BTreeSet<(usize, usize)> {
        let mut withheld = BTreeSet::new();
        if !self.approved_only && self.has_room([cert]) {
            return withheld;
        }
        let mut issuers = by_issuer(cert);
        if self.approved_only {
            let mut lists = BTreeMap::new();
            for ((at, _), places) in &mut issuers {
                let component = &cert.components()[*at];
                let approved = lists.entry(*at).or_insert_with(|| approved(component));
                let certifies = |nth: &usize| !is_revocation(&component.signatures[*nth].facts);
                let holds = |nth: &usize| certifies(nth) && approved.holds(&component.signatures[*nth]);
                // Who could leave out the revocation of what is approved could pass it off as still valid.
                let stays = |nth: &usize, any| holds(nth) || (any && !certifies(nth));
                let any = places.iter().any(holds);
                withheld.extend(places.iter().filter(|nth| !stays(nth, any)).map(|nth| (*at, *nth)));
                places.retain(|nth| stays(nth, any));
            }
        }
        let mut units: Vec<Unit<'_>> = issuers
            .iter()
            .filter(|(_, places)| !places.is_empty())
            .flat_map(|((at, _), places)| units(cert, *at, places))
            .collect();
        units.sort_by_key(|unit| (Reverse(unit.rank), unit.body));
        let mut room = self.others_octets;
        for unit in units {
            match room.checked_sub(unit.octets) {
                Some(left) => room = left,
                None => withheld.extend(unit.places.iter().map(|nth| (unit.at, *nth))),
            }
        }
        withheld
    }

    /// Is there room for all that others signed, as with nearly every certificate, however much these copies have in
    /// common?
    pub fn has_room<'a>(&self, copies: impl IntoIterator<Item = &'a Cert>) -> bool {
        let octets = copies
            .into_iter()
            .flat_map(foreign)
            .map(|attached| attached.body.len() as u64);
        octets.sum::<u64>() <= self.others_octets
    }
}

impl Cert {
    /// Issuers of others' signatures of whom it is not noted that their key is known, each once.
    pub fn strangers(&self) -> BTreeSet<KeyId> {
        let unknown = foreign(self).filter(|attached| !attached.facts.has(Fact::IssuerKnown));
        unknown.map(|attached| attached.facts.issuer).collect()
    }

    /// Notes which of others' signatures were made before `until`, in seconds since 1970, and which name an issuer who
    /// is known.
    pub fn acquaint(&mut self, until: u32, known: &BTreeSet<KeyId>) {
        let all = self
            .components
            .iter_mut()
            .flat_map(|component| &mut component.signatures);
        for attached in all.filter(|attached| is_foreign(&attached.facts)) {
            let facts = &mut attached.facts;
            facts.note(Fact::Timely, facts.created < until);
            facts.note(Fact::IssuerKnown, known.contains(&facts.issuer));
        }
    }
}

/// The signatures of others that users may see.
fn foreign(cert: &Cert) -> impl Iterator<Item = &Attached> {
    let all = cert.components().iter().flat_map(|component| &component.signatures);
    all.filter(|attached| is_foreign(&attached.facts))
}

/// Places of others' signatures that users may see: component and issuer, and numbers of signatures on the component.
fn by_issuer(cert: &Cert) -> BTreeMap<(usize, KeyId), Vec<usize>> {
    let mut issuers: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (at, signatures) in cert.shown(Projection::Served) {
        let component = &cert.components()[at];
        for nth in signatures.filter(|nth| is_foreign(&component.signatures[*nth].facts)) {
            let issuer = component.signatures[nth].facts.issuer;
            issuers.entry((at, issuer)).or_default().push(nth);
        }
    }
    issuers
}

/// Signatures that are given out together or not at all.
struct Unit<'a> {
    at: usize,
    places: Vec<usize>,
    rank: Rank,
    octets: u64,
    body: &'a [u8],
}

/// What is given out first is the greatest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Not made in the future.
    timely: bool,
    /// By an issuer whose key is known.
    known: bool,
    /// The first of its issuer on its component.
    pair: bool,
    created: u32,
}

impl Rank {
    fn of(facts: &Facts, pair: bool) -> Self {
        Self {
            timely: facts.has(Fact::Timely),
            known: facts.has(Fact::IssuerKnown),
            pair,
            created: facts.created,
        }
    }
}

/// The signatures of one issuer on one component, in units.
fn units<'a>(cert: &'a Cert, at: usize, places: &[usize]) -> Vec<Unit<'a>> {
    let signatures = &cert.components()[at].signatures;
    let rank = |nth: &usize, pair| Rank::of(&signatures[*nth].facts, pair);
    let newest = |list: &[usize]| {
        let order = |nth: &usize| (rank(nth, true), Reverse(&signatures[*nth].body));
        list.iter().copied().max_by_key(order)
    };
    let (revocations, certifications): (Vec<usize>, Vec<usize>) =
        places.iter().partition(|nth| is_revocation(&signatures[**nth].facts));
    let pair: Vec<usize> = [newest(&certifications), newest(&revocations)]
        .into_iter()
        .flatten()
        .collect();
    let unit = |places: Vec<usize>, pair| Unit {
        at,
        rank: places.iter().map(|nth| rank(nth, pair)).max().unwrap_or_default(),
        octets: places.iter().map(|nth| signatures[*nth].body.len() as u64).sum(),
        body: places.first().map_or(&[], |nth| &signatures[*nth].body),
        places,
    };
    let single = places
        .iter()
        .filter(|nth| !pair.contains(nth))
        .map(|nth| unit(vec![*nth], false));
    let mut all: Vec<Unit<'a>> = single.collect();
    all.push(unit(pair, true));
    all
}

/// Somebody else's.
fn is_foreign(facts: &Facts) -> bool {
    is_served(facts) && !facts.binds()
}

fn is_revocation(facts: &Facts) -> bool {
    matches!(
        facts.kind,
        kind::CERTIFICATION_REVOCATION | kind::SUBKEY_REVOCATION | kind::KEY_REVOCATION
    )
}

/// What the owner approved on a component.
#[derive(Default)]
struct Approved {
    hash: u8,
    digests: BTreeSet<Vec<u8>>,
}

/// The newest approval counts, and takes back all before it.
fn approved(component: &Component) -> Approved {
    let approvals = component.signatures.iter().filter(|attached| {
        let facts = &attached.facts;
        facts.own_valid() && facts.kind == kind::APPROVAL && !facts.has(Fact::Local)
    });
    let newest = approvals.max_by_key(|attached| (attached.facts.created, &attached.body));
    let Some(approval) = newest.and_then(|attached| Signature::read(&attached.body)) else {
        return Approved::default();
    };
    let octets = Hasher::new(approval.hash).map_or(1, |hasher| hasher.finish().as_bytes().len());
    let digests = approval.claims.approved.chunks_exact(octets).map(<[u8]>::to_vec);
    Approved {
        hash: approval.hash,
        digests: digests.collect(),
    }
}

impl Approved {
    fn holds(&self, signature: &Attached) -> bool {
        let digest = || certification_digest(self.hash, &signature.body);
        !self.digests.is_empty() && digest().is_some_and(|digest| self.digests.contains(digest.as_bytes()))
    }
}

/// The digest that stands for a certification in an approval: over `88`, its length in four octets, and its body with an
/// empty unhashed area.
fn certification_digest(hash: u8, body: &[u8]) -> Option<Digest> {
    let width = match body.first()? {
        4 => 2,
        6 => 4,
        _ => return None,
    };
    let number = |octets: &[u8]| {
        octets
            .iter()
            .fold(0usize, |number, octet| number << 8 | usize::from(*octet))
    };
    let hashed = 4 + width + number(body.get(4..4 + width)?);
    let unhashed = number(body.get(hashed..hashed + width)?);
    let rest = body.get(hashed + width + unhashed..)?;
    let length = u32::try_from(hashed + width + rest.len()).ok()?;
    let mut hasher = Hasher::new(hash)?;
    hasher.update(&[0x88]);
    hasher.update(&length.to_be_bytes());
    hasher.update(&body[..hashed]);
    hasher.update(&[0; 4][..width]);
    hasher.update(rest);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tag;

    const OWN: u32 = Fact::Own as u32 | Fact::Valid as u32 | Fact::Fitting as u32;
    const OTHERS: u32 = Fact::Fitting as u32 | Fact::DigestMatches as u32;

    fn signature(facts: u32, kind: u8, created: u32, issuer: u8) -> Attached {
        let body = [&[4, kind, 1, 8, 0, 0, 0, 0, 0, 0, issuer][..], &created.to_be_bytes()].concat();
        let mut attached = Attached::new(&body);
        attached.facts = Facts::from_bits(facts);
        (attached.facts.kind, attached.facts.created) = (kind, created);
        attached.facts.issuer = KeyId([issuer; 8]);
        attached
    }

    fn cert(signatures: Vec<Attached>) -> Cert {
        let mut user_id = Component::new(tag::USER_ID, b"a");
        user_id.signatures = signatures;
        Cert::new(vec![
            Component::new(tag::PUBLIC_KEY, &[4, 0, 0, 0, 1, 99, 7, 7]),
            user_id,
        ])
        .unwrap()
    }

    /// Type, time and issuer of what users get.
    fn given(cert: &Cert, serving: Serving) -> Vec<(u8, u32, u8)> {
        let withheld = serving.withheld(cert);
        let all = cert.components()[1].signatures.iter().enumerate();
        let given = all.filter(|(nth, _)| !withheld.contains(&(1, *nth)));
        given
            .map(|(_, attached)| (attached.facts.kind, attached.facts.created, attached.facts.issuer.0[0]))
            .collect()
    }

    #[test]
    fn there_is_room_for_the_newest_of_each_issuer_and_revocations_stay_with_what_they_revoke() {
        let cert = cert(vec![
            signature(OWN, 0x13, 1, 1),
            signature(OTHERS, 0x10, 10, 2),
            signature(OTHERS, 0x10, 90, 3),
            signature(OTHERS, 0x10, 80, 3),
            signature(OTHERS, 0x30, 20, 2),
        ]);
        let serving = |others_octets| Serving {
            others_octets,
            approved_only: false,
        };
        assert_eq!(given(&cert, serving(0)), [(0x13, 1, 1)]);
        assert_eq!(given(&cert, serving(15)), [(0x10, 90, 3), (0x13, 1, 1)]);
        assert_eq!(
            given(&cert, serving(45)),
            [(0x10, 10, 2), (0x10, 90, 3), (0x13, 1, 1), (0x30, 20, 2)]
        );
        assert_eq!(given(&cert, serving(60)).len(), 5);
    }

    #[test]
    fn what_is_from_the_future_or_from_strangers_comes_last() {
        let mut cert = cert(vec![
            signature(OWN, 0x13, 1, 1),
            signature(OTHERS, 0x10, 10, 2),
            signature(OTHERS, 0x10, 50, 3),
            signature(OTHERS, 0x10, 4000, 4),
            signature(OTHERS, 0x30, 5000, 2),
        ]);
        let given = |cert: &Cert, others_octets| {
            let serving = Serving {
                others_octets,
                approved_only: false,
            };
            let given = given(cert, serving);
            given.into_iter().filter(|given| given.2 > 1).collect::<Vec<_>>()
        };
        assert_eq!(cert.strangers(), [2, 3, 4].map(|issuer| KeyId([issuer; 8])).into());
        cert.acquaint(60, &BTreeSet::new());
        assert_eq!(given(&cert, 15), [(0x10, 50, 3)]);
        cert.acquaint(60, &[2, 4].map(|issuer| KeyId([issuer; 8])).into());
        assert_eq!(cert.strangers(), [KeyId([3; 8])].into());
        assert_eq!(
            given(&cert, 30),
            [(0x10, 10, 2), (0x30, 5000, 2)],
            "and what revokes it"
        );
        assert_eq!(given(&cert, 45).len(), 3);
        cert.acquaint(4001, &BTreeSet::new());
        assert_eq!(given(&cert, 15), [(0x10, 4000, 4)], "its time has come");
    }

    #[test]
    fn only_what_the_owner_approved_last_is_given_if_so_wished() {
        let (wanted, other) = (signature(OTHERS, 0x10, 5, 2), signature(OTHERS, 0x10, 6, 3));
        let digest = certification_digest(8, &wanted.body).unwrap();
        let approval = |created: u32, digest: &[u8]| {
            let length = 1 + digest.len() as u8;
            let area = [&[length, 37][..], digest].concat();
            let body = [&[4, 0x16, 1, 8, 0, area.len() as u8][..], &area, &[0, 0, 0, 0]].concat();
            let mut attached = Attached::new(&body);
            attached.facts = Facts::from_bits(OWN);
            (attached.facts.kind, attached.facts.created) = (kind::APPROVAL, created);
            attached
        };
        let serving = Serving {
            approved_only: true,
            ..Serving::default()
        };
        let own = signature(OWN, 0x13, 1, 1);
        let others = |cert: Cert| given(&cert, serving).iter().filter(|given| given.2 > 1).count();
        let revocations = [2, 3].map(|issuer| signature(OTHERS, 0x30, 6, issuer));
        let all = [vec![own, wanted, other], revocations.to_vec()].concat();
        assert_eq!(others(cert(all.clone())), 0);
        let approving = [all.clone(), vec![approval(7, digest.as_bytes())]].concat();
        assert_eq!(others(cert(approving.clone())), 2);
        assert_eq!(others(cert([approving, vec![approval(8, b"")]].concat())), 0);
    }

    #[test]
    fn the_unhashed_area_of_a_certification_does_not_matter() {
        let with = |unhashed: &[u8]| {
            [
                &[4, 0x10, 1, 8, 0, 0, 0, unhashed.len() as u8][..],
                unhashed,
                &[1, 2, 3],
            ]
            .concat()
        };
        let digest = |body: &[u8]| certification_digest(8, body).unwrap().as_bytes().to_vec();
        assert_eq!(digest(&with(b"abc")), digest(&with(b"")));
        assert!(certification_digest(8, &[4, 0x10, 1, 8, 9]).is_none());
    }
}
