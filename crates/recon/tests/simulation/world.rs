//! Nodes, network and clock, driven by a queue of events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use keyrink_recon::dataset::Dataset;
use keyrink_recon::element::Element;
use keyrink_recon::random::Random;
use keyrink_recon::session::{End as Reason, Outcome};
use keyrink_recon::tree::{ChangeError, Tree};

use crate::common::{random_elements, tree};
use crate::connection::{ACCEPTING, CALLING, Connection, End, Wish};

const NODES: usize = 30;
/// Elements all nodes start with, but for a few.
const BASE: usize = 200;
/// Elements only a few nodes start with.
const RARE: usize = 200;
/// Elements that users bring while the simulation runs.
const NEW: usize = 50;

const GOSSIP: Duration = Duration::from_secs(60);
/// As long as this, connections are cut and nodes crash.
const STORM: Duration = Duration::from_secs(8 * 60);
/// By now everybody must have everything.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);

pub(crate) struct World<const L: usize> {
    dataset: Arc<Dataset<L>>,
    tree_name: &'static str,
    random: Random,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64)>>,
    what: HashMap<u64, Event<L>>,
    count: u64,
    nodes: Vec<Node<L>>,
    connections: BTreeMap<u64, Connection<L>>,
    union: Tree<L>,
    trace: bool,
    history: Vec<String>,
}

struct Node<const L: usize> {
    /// What survives a crash is the set; the tree is built anew.
    tree: Tree<L>,
    up: bool,
    neighbours: Vec<usize>,
}

enum Event<const L: usize> {
    /// A node calls a neighbour.
    Gossip(usize),
    /// Bytes arrive at an end of a connection.
    Arrive(u64, usize, Vec<u8>),
    /// An end of a connection learns that the other is gone.
    Hangup(u64, usize),
    /// A deadline of an end may have come.
    Wake(u64, usize),
    /// A node fetches elements from another.
    Fetch(usize, usize, Vec<Element<L>>),
    /// A user brings an element to a node.
    Submit(usize, Element<L>),
    Crash(usize),
    Restart(usize),
}

impl<const L: usize> World<L> {
    pub(crate) fn new(dataset: Arc<Dataset<L>>, tree_name: &'static str, seed: u64, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let all = random_elements(&dataset, &mut random, BASE + RARE + NEW);
        let (old, new) = all.split_at(BASE + RARE);
        let nodes = (0..NODES).map(|_| Vec::new());
        let mut sets: Vec<Vec<Element<L>>> = nodes.collect();
        for (index, element) in old.iter().enumerate() {
            let keeper = random.next_u64() as usize % NODES;
            for (node, set) in sets.iter_mut().enumerate() {
                // One node is new and has nothing at all.
                let share = if index < BASE { 95 } else { 10 };
                if node == keeper || node > 0 && random.next_u64() % 100 < share {
                    set.push(*element);
                }
            }
        }
        let mut world = Self {
            union: tree(&dataset, &all),
            nodes: sets
                .iter()
                .enumerate()
                .map(|(index, set)| {
                    // A ring, so that everybody is reached, and some chords.
                    let chords = [random.next_u64() as usize % NODES, random.next_u64() as usize % NODES];
                    let ring = [(index + 1) % NODES, (index + NODES - 1) % NODES];
                    let neighbours = ring.into_iter().chain(chords).filter(|&other| other != index).collect();
                    Node {
                        tree: tree(&dataset, set),
                        up: true,
                        neighbours,
                    }
                })
                .collect(),
            dataset,
            tree_name,
            random,
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            what: HashMap::new(),
            count: 0,
            connections: BTreeMap::new(),
            trace,
            history: Vec::new(),
        };
        world.plan(new);
        world
    }

    /// Lets everything happen until all nodes have everything, and checks on the way.
    pub(crate) fn run(&mut self) {
        while let Some(Reverse((time, id))) = self.events.pop() {
            assert!(time < PATIENCE, "not equal after {PATIENCE:?}: {:?}", self.sizes());
            self.now = time;
            if let Some(event) = self.what.remove(&id) {
                self.happen(event);
            }
            if self.now > STORM && self.nodes.iter().all(|node| node.tree.len() == self.union.len()) {
                break;
            }
        }
        for node in &self.nodes {
            assert!(node.tree.iter().eq(self.union.iter()), "a node holds something else");
        }
        self.note(|| "all equal".to_owned());
    }

    /// What happened, line by line.
    pub(crate) fn history(&self) -> Vec<String> {
        self.history.clone()
    }

    /// Fixes what does not depend on anything: first calls, submissions, crashes.
    fn plan(&mut self, new: &[Element<L>]) {
        for node in 0..NODES {
            let first = self.up_to(GOSSIP);
            self.after(first, Event::Gossip(node));
        }
        for &element in new {
            let (time, node) = (self.up_to(STORM), self.random.next_u64() as usize % NODES);
            self.after(time, Event::Submit(node, element));
        }
        for _ in 0..NODES / 2 {
            let (time, node) = (self.up_to(STORM), self.random.next_u64() as usize % NODES);
            self.after(time, Event::Crash(node));
        }
    }

    fn happen(&mut self, event: Event<L>) {
        match event {
            Event::Gossip(node) => self.gossip(node),
            Event::Arrive(id, side, bytes) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.ends[side].receive(self.now, &bytes);
                    self.poll(id, side);
                }
            }
            Event::Hangup(id, side) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.ends[side].closed(self.now);
                    self.poll(id, side);
                }
            }
            Event::Wake(id, side) => self.poll(id, side),
            Event::Fetch(node, peer, elements) => self.fetch(node, peer, elements),
            Event::Submit(node, element) if self.nodes[node].up => self.insert(node, element),
            Event::Submit(node, element) => self.after(GOSSIP, Event::Submit(node, element)),
            Event::Crash(node) => self.crash(node),
            Event::Restart(node) => {
                self.note(|| format!("{node} is back"));
                let elements: Vec<_> = self.nodes[node].tree.iter().collect();
                self.nodes[node].tree = tree(&self.dataset, &elements);
                self.nodes[node].up = true;
            }
        }
    }

    /// A node calls one of its neighbours, if both are up.
    fn gossip(&mut self, node: usize) {
        let pause = GOSSIP * 9 / 10 + self.up_to(GOSSIP / 5);
        self.after(pause, Event::Gossip(node));
        let neighbours = &self.nodes[node].neighbours;
        let peer = neighbours[self.random.next_u64() as usize % neighbours.len()];
        if !self.nodes[node].up || !self.nodes[peer].up {
            return;
        }
        let storm = self.now < STORM;
        let cut = storm && self.random.next_u64().is_multiple_of(4);
        // At any byte: early ones are as likely as those in the middle of a long list.
        let magnitude = 1 + self.random.next_u64() % 16;
        let cut_after = cut.then(|| self.random.next_u64() as usize % (1 << magnitude));
        let end = |node: usize, side| End::new(node, &self.nodes[node].tree, self.tree_name, side, self.now);
        let ends = [end(peer, ACCEPTING), end(node, CALLING)];
        self.count += 1;
        let id = self.count;
        self.connections.insert(id, Connection { ends, cut_after });
        self.note(|| format!("{node} calls {peer} ({id})"));
        self.poll(id, ACCEPTING);
        self.poll(id, CALLING);
    }

    /// Does what one end of a connection wants.
    fn poll(&mut self, id: u64, side: usize) {
        let seed = self.random.next_u64();
        loop {
            let Some(connection) = self.connections.get_mut(&id) else {
                return;
            };
            match connection.ends[side].poll(&self.dataset, seed, self.now) {
                Some(Wish::Send(bytes)) => self.send(id, 1 - side, bytes),
                Some(Wish::Wait(until)) => return self.at(until, Event::Wake(id, side)),
                Some(Wish::Close(outcome)) => {
                    let arrival = connection.ends[1 - side].arrival.max(self.now);
                    self.at(arrival, Event::Hangup(id, 1 - side));
                    if let Some(outcome) = outcome {
                        self.finish(id, side, outcome);
                    }
                }
                None => break,
            }
        }
        if self
            .connections
            .get(&id)
            .is_some_and(|connection| connection.ends.iter().all(End::is_over))
        {
            self.connections.remove(&id);
        }
    }

    /// Puts bytes on their way to one end, in pieces, or cuts the connection in the middle of them.
    fn send(&mut self, id: u64, to: usize, mut bytes: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let mut arrival = connection.ends[to].arrival.max(self.now);
        let mut cut = false;
        if let Some(left) = &mut connection.cut_after {
            cut = *left <= bytes.len();
            bytes.truncate(*left);
            *left -= bytes.len();
        }
        let mut rest = bytes.as_slice();
        let mut arrivals = Vec::new();
        while !rest.is_empty() {
            let length = if self.random.next_u64().is_multiple_of(3) {
                1 + self.random.next_u64() as usize % rest.len()
            } else {
                rest.len()
            };
            let (piece, behind) = rest.split_at(length);
            arrival += Duration::from_micros(self.random.next_u64() % 50_000);
            arrivals.push((arrival, piece.to_vec()));
            rest = behind;
        }
        connection.ends[to].arrival = arrival;
        for (time, piece) in arrivals {
            self.at(time, Event::Arrive(id, to, piece));
        }
        if cut {
            self.note(|| format!("{id} is cut"));
            self.at(arrival, Event::Hangup(id, 0));
            self.at(arrival, Event::Hangup(id, 1));
        }
    }

    /// Checks what a session found, and goes to fetch it.
    fn finish(&mut self, id: u64, side: usize, outcome: Outcome<L>) {
        let ends = &self.connections[&id].ends;
        let (own, other) = (&ends[side], &ends[1 - side]);
        let (node, peer) = (own.node, other.node);
        for element in &outcome.missing {
            assert!(
                other.epoch.contains(element) && !own.epoch.contains(element),
                "nothing is made up"
            );
        }
        match &outcome.end {
            Reason::Complete => {
                let expected = other
                    .epoch
                    .iter()
                    .filter(|element| !own.epoch.contains(element))
                    .count();
                assert_eq!(outcome.missing.len(), expected, "a complete session finds everything");
            }
            Reason::Disconnected | Reason::Late(_) => {}
            other => panic!("honest peers end with {other}"),
        }
        self.note(|| {
            format!(
                "{id}: {node} lacks {} of {peer}: {}",
                outcome.missing.len(),
                outcome.end
            )
        });
        if !outcome.missing.is_empty() {
            let delay = self.up_to(Duration::from_secs(5));
            self.after(delay, Event::Fetch(node, peer, outcome.missing));
        }
    }

    /// Fetches a batch of elements, and then the rest.
    fn fetch(&mut self, node: usize, peer: usize, mut elements: Vec<Element<L>>) {
        let lost = self.now < STORM && self.random.next_u64().is_multiple_of(10);
        if !self.nodes[node].up || !self.nodes[peer].up || lost {
            return;
        }
        let rest = elements.split_off(elements.len().min(100));
        for element in elements {
            self.insert(node, element);
        }
        if !rest.is_empty() {
            self.after(Duration::from_millis(300), Event::Fetch(node, peer, rest));
        }
    }

    fn insert(&mut self, node: usize, element: Element<L>) {
        match self.nodes[node].tree.insert(element) {
            // Found missing by several sessions at once.
            Ok(()) | Err(ChangeError::Duplicate) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn crash(&mut self, node: usize) {
        self.note(|| format!("{node} crashes"));
        self.nodes[node].up = false;
        let back = self.up_to(Duration::from_secs(300));
        self.after(back, Event::Restart(node));
        let affected = self
            .connections
            .iter()
            .filter(|(_, c)| c.ends.iter().any(|end| end.node == node));
        for (id, gone) in affected
            .map(|(&id, c)| (id, usize::from(c.ends[1].node == node)))
            .collect::<Vec<_>>()
        {
            // Half of the peers are told; the others find out by their deadlines.
            let told = self.random.next_u64().is_multiple_of(2);
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.ends[gone].forget();
            }
            if told {
                let delay = self.up_to(Duration::from_secs(1));
                self.after(delay, Event::Hangup(id, 1 - gone));
            }
        }
    }

    fn after(&mut self, delay: Duration, event: Event<L>) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, time: Duration, event: Event<L>) {
        self.count += 1;
        self.events.push(Reverse((time, self.count)));
        self.what.insert(self.count, event);
    }

    fn up_to(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.random.next_u64() % (limit.as_micros() as u64 + 1))
    }

    fn sizes(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.tree.len()).collect()
    }

    fn note(&mut self, line: impl Fn() -> String) {
        let line = format!("{:10.3} {}", self.now.as_secs_f64(), line());
        if self.trace {
            println!("{line}");
        }
        self.history.push(line);
    }
}
