//! One end of a reconciliation against a peer that sends anything at all.

use std::sync::Arc;
use std::time::Duration;

use keyrink_recon::dataset::Dataset;
use keyrink_recon::element::{Element, Prefix};
use keyrink_recon::random::Random;
use keyrink_recon::session::{
    Action, Budget, FilterSet, Filters, Handshake, Omission, Session, Settings, Solver, TreeOffer, Walker,
};
use keyrink_recon::tree::Tree;
use keyrink_recon::wire::FrameReader;

/// The first byte chooses role and generation, the rest is what the peer sends.
pub fn run(input: &[u8]) {
    let Some((&choice, stream)) = input.split_first() else {
        return;
    };
    match choice & 1 {
        0 => play(&Arc::new(Dataset::v1("v1")), choice >> 1, stream),
        _ => play(&Arc::new(Dataset::v2("v2")), choice >> 1, stream),
    }
}

fn play<const L: usize>(dataset: &Arc<Dataset<L>>, role: u8, stream: &[u8]) {
    let (set, roots, frames) = (tree(dataset, 120), vec![Prefix::ROOT], FrameReader::new(0));
    let (budget, start) = (Budget::default(), Duration::ZERO);
    match role % 4 {
        0 => hear(
            &mut Walker::new(dataset.clone(), set, roots, budget, 1, frames, start),
            stream,
        ),
        1 => hear(
            &mut Solver::new(dataset.clone(), set, roots, budget, 1, frames, start),
            stream,
        ),
        2 => hear(&mut Handshake::accept(settings(), start), stream),
        _ => hear(&mut Handshake::call(settings(), start), stream),
    }
}

/// Feeds a session in pieces, a second apart, and then lets it wait until it ends.
fn hear<S: Session>(session: &mut S, stream: &[u8]) {
    let mut now = Duration::ZERO;
    for piece in stream.chunks(stream.len() / 7 + 1) {
        now += Duration::from_secs(1);
        session.receive(now, piece);
        if ends(session, now).is_none() {
            return;
        }
    }
    while let Some(deadline) = ends(session, now) {
        assert!(deadline > now && deadline <= Duration::from_secs(700));
        now = deadline;
    }
}

/// The next deadline of a session; none if it has ended.
fn ends<S: Session>(session: &mut S, now: Duration) -> Option<Duration> {
    for _ in 0..1000 {
        match session.poll(now) {
            Action::Send(bytes) => assert!(!bytes.is_empty() && bytes.len() < 4 << 20),
            Action::Wait(deadline) => return Some(deadline),
            Action::Finish(_) => return None,
        }
    }
    panic!("a session never stops sending")
}

/// A set of random elements, the same every time.
pub(crate) fn tree<const L: usize>(dataset: &Arc<Dataset<L>>, count: usize) -> Tree<L> {
    let mut random = Random::new(5);
    let mut bytes = vec![0; dataset.element_length()];
    let mut tree = Tree::new(dataset.clone());
    for _ in 0..count {
        bytes
            .chunks_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&random.next_u64().to_le_bytes()));
        let element: Result<Element<L>, _> = dataset.element_from_bytes(&bytes);
        // Random numbers are neither sample points nor equal.
        element
            .into_iter()
            .for_each(|element| tree.insert(element).unwrap_or(()));
    }
    tree
}

fn settings() -> Settings {
    let offer = |name: &str| TreeOffer {
        name: name.into(),
        omission: Omission::default(),
    };
    Settings {
        http_port: 11371,
        version: None,
        trees: vec![offer("openpgp/2"), offer("openpgp/1")],
        first_tree: "openpgp/1".into(),
        realm: "openpgp".into(),
        wanted: None,
        filters: Filters {
            announced: "yminsky.dedup,yminsky.merge".into(),
            dataset: "sks".into(),
            mirror: true,
            known: vec![FilterSet {
                filters: "yminsky.dedup".into(),
                dataset: "sks".into(),
            }],
        },
        dialect: None,
        busy: None,
        patience: Duration::from_secs(60),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sessions_survive_anything() {
        crate::mutation::run(&crate::recon_wire::corpus(0..8), super::run);
    }
}
