//! Bodies that are nearly right: submissions and questions of peers, mutated.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{Finding, Plan, Victim, Watch, get_of, submit};
use crate::error::{At, Error};
use crate::http::Client;
use crate::{armor, form_encode, generate, machine};

/// Sends broken bodies over several connections and counts what comes back.
pub(super) fn run(plan: &Plan, log: &mut dyn FnMut(String)) -> Result<Vec<Finding>, Error> {
    let datasets = "KEYRINK_PEERS_DATASETS=sks,hockeypuck,openpgp/2";
    let victim = Victim::start(&plan.keyrink, &[datasets], &[])?;
    let ordinary = victim.ordinary()?;
    let corpus = Corpus::new(&plan.keyrink, &victim)?;
    let watch = Watch::start(victim.http(), get_of(&ordinary.fingerprint()));
    // What every server needs at some time does not count as growth.
    send(&corpus, victim.http(), 0, (plan.bodies / 20).min(2000));
    let before = machine::resident_octets(victim.server.id());
    let share = plan.bodies.div_ceil(CONNECTIONS);
    let sent = thread::scope(|scope| {
        let (corpus, server) = (&corpus, victim.http());
        let senders: Vec<_> = (1..=CONNECTIONS)
            .map(|seed| scope.spawn(move || send(corpus, server, seed, share)))
            .collect();
        let mut all = Sent::default();
        senders
            .into_iter()
            .for_each(|sender| all.add(sender.join().unwrap_or_default()));
        all
    });
    let grown = machine::most_resident_octets(victim.server.id()).saturating_sub(before);
    log(format!("{} bodies: {:?}", plan.bodies, sent.statuses));
    let errors = sent.statuses.iter().filter(|(status, _)| **status >= 500);
    let panics = victim.server.log().matches("panicked").count();
    let mut findings = vec![
        Finding::told("bodies sent, by status of the answer", format!("{:?}", sent.statuses)),
        Finding::exactly(
            "answers of 500 and more",
            errors.map(|(_, count)| *count as usize).sum(),
            0,
        ),
        Finding::exactly("broken connections", sent.broken, 0),
        Finding::at_least(
            "answers of `/pks/hashquery` that held certificates",
            sent.handed_out,
            plan.bodies as usize / 100,
        ),
        Finding::exactly("panics", panics, 0),
        Finding::below("slowest answer", sent.slowest.as_secs_f64(), 1.0, "s"),
        Finding::below("growth of memory", grown as f64 / f64::from(1 << 20), 64.0, "MiB"),
    ];
    findings.extend(watch.finish().findings("an ordinary `op=get` meanwhile", 200.0));
    Ok(findings)
}

/// What came back.
#[derive(Debug, Default)]
struct Sent {
    statuses: BTreeMap<u16, u32>,
    broken: usize,
    handed_out: usize,
    slowest: Duration,
}

impl Sent {
    fn add(&mut self, other: Self) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.broken += other.broken;
        self.handed_out += other.handed_out;
        self.slowest = self.slowest.max(other.slowest);
    }
}

fn send(corpus: &Corpus, server: SocketAddr, seed: u32, count: u32) -> Sent {
    let (mut numbers, mut client, mut sent) = (Numbers(seed.into()), Client::new(server), Sent::default());
    for _ in 0..count {
        let (target, kind, body) = body(corpus, &mut numbers);
        let mut fields = vec![("Content-Type", kind)];
        // What peers of the second generation say.
        fields.extend((numbers.below(4) == 0).then_some(("Sks-Recon", "2")));
        let start = Instant::now();
        let answer = client.request("POST", target, &fields, &body);
        sent.slowest = sent.slowest.max(start.elapsed());
        match answer {
            Ok(answer) => {
                *sent.statuses.entry(answer.status).or_default() += 1;
                let held = target == HASHQUERY && answer.status == 200 && answer.body.len() > CERTIFICATE_OCTETS_MIN;
                sent.handed_out += usize::from(held);
            }
            Err(_) => sent.broken += 1,
        }
    }
    sent
}

/// A request: what is mutated may be the packets, the armor, the form around it or the question.
fn body(known: &Corpus, numbers: &mut Numbers) -> (&'static str, &'static str, Vec<u8>) {
    const ADD: &str = "/pks/add";
    const FORM: &str = "application/x-www-form-urlencoded";
    let form = |text: &str| format!("keytext={}&options=json", form_encode(text)).into_bytes();
    let corpus = &known.bodies;
    let packets = mutate(corpus, numbers);
    match numbers.below(8) {
        0 | 1 => (ADD, FORM, form(&armor(&packets))),
        2 => {
            let text = change_some(armor(&packets).into_bytes(), corpus, numbers);
            (ADD, FORM, form(&String::from_utf8_lossy(&text)))
        }
        3 => (ADD, "application/pgp-keys", packets),
        4 => {
            let head = b"--x\r\nContent-Disposition: form-data; name=\"keytext\"\r\n\r\n";
            let parts = [&head[..], armor(&packets).as_bytes(), b"\r\n--x--\r\n"].concat();
            (
                ADD,
                "multipart/form-data; boundary=x",
                change_some(parts, corpus, numbers),
            )
        }
        5 => (ADD, FORM, change_some(form(&armor(&packets)), corpus, numbers)),
        _ => {
            let count = numbers.below(40) as u32;
            let mut question = count.to_be_bytes().to_vec();
            for _ in 0..count {
                let digest: Vec<u8> = match numbers.below(4) {
                    0 => (0..16).map(|_| numbers.below(256) as u8).collect(),
                    1 => (0..32).map(|_| numbers.below(256) as u8).collect(),
                    _ => known.digests[numbers.below(known.digests.len())].clone(),
                };
                question.extend((digest.len() as u32).to_be_bytes());
                question.extend(digest);
            }
            // Every other one is as it should be.
            if numbers.below(2) == 0 {
                question = change_some(question, corpus, numbers);
            }
            (HASHQUERY, "sks/hashquery", question)
        }
    }
}

/// What bodies are made of.
struct Corpus {
    bodies: Vec<Vec<u8>>,
    /// What stands for certificates that the server holds, in all datasets.
    digests: Vec<Vec<u8>>,
}

impl Corpus {
    /// Lets the server hold some of it.
    fn new(program: &Path, victim: &Victim) -> Result<Self, Error> {
        let bodies = bodies()?;
        let held = bodies[..GENERATED as usize].concat();
        submit(&mut victim.client(), &held)?;
        let file = victim.folder.path().join("held.pgp");
        fs::write(&file, held).at(&file)?;
        let explained = Command::new(program).arg("explain").arg(&file).output().at(program)?;
        let text = String::from_utf8_lossy(&explained.stdout);
        let lines = text
            .lines()
            .filter(|line| line.starts_with("digest in ") || line.starts_with("elements in "));
        let digests = lines
            .filter_map(|line| line.split_once(": "))
            .flat_map(|(_, all)| all.split(' '));
        let digests: Vec<Vec<u8>> = digests.filter_map(octets).collect();
        match [16, 32]
            .iter()
            .all(|octets| digests.iter().any(|digest| digest.len() == *octets))
        {
            true => Ok(Self { bodies, digests }),
            false => Err(Error::Answer(format!("no digests are explained: {text}"))),
        }
    }
}

fn octets(digits: &str) -> Option<Vec<u8>> {
    let octet = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(octet).collect()
}

/// Certificates from the generator, and the vectors of the repository.
fn bodies() -> Result<Vec<Vec<u8>>, Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/datasets");
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in fs::read_dir(&root).at(&root)?.flatten().map(|entry| entry.path()) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        files.extend(entries.map(|entry| entry.path()));
    }
    files.sort();
    let mut corpus: Vec<Vec<u8>> = (0..GENERATED)
        .map(|index| generate::certificate(9, index).to_bytes())
        .collect();
    for file in files {
        corpus.push(fs::read(&file).at(&file)?);
    }
    corpus.retain(|octets| octets.len() <= OCTETS_MAX);
    Ok(corpus)
}

/// Random numbers (Vigna's SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) % limit.max(1) as u64) as usize
    }
}

fn mutate(corpus: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let chosen = corpus[numbers.below(corpus.len())].clone();
    change_some(chosen, corpus, numbers)
}

fn change_some(mut octets: Vec<u8>, corpus: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    for _ in 0..numbers.below(6) {
        change(&mut octets, corpus, numbers);
    }
    octets.truncate(4 * OCTETS_MAX);
    octets
}

fn change(octets: &mut Vec<u8>, corpus: &[Vec<u8>], numbers: &mut Numbers) {
    let at = numbers.below(octets.len() + 1);
    match numbers.below(7) {
        0 => octets.truncate(at),
        1 => octets.insert(at, numbers.below(256) as u8),
        2 if at < octets.len() => drop(octets.remove(at)),
        3 if at < octets.len() => octets[at] ^= 1 << numbers.below(8),
        4 if at < octets.len() => octets[at] = [0, 1, 2, 0x7F, 0x80, 0xFF][numbers.below(6)],
        // Lengths and counts.
        5 if at + 4 <= octets.len() => {
            let number = [0, 1, 6, 0xFF, 0xFFFF, u32::MAX / 33, u32::MAX][numbers.below(7)];
            octets[at..at + 4].copy_from_slice(&number.to_be_bytes());
        }
        _ => {
            let other = &corpus[numbers.below(corpus.len())];
            let (from, to) = (numbers.below(other.len() + 1), numbers.below(other.len() + 1));
            octets.splice(at..at, other[from.min(to)..from.max(to)].iter().copied());
        }
    }
}

const HASHQUERY: &str = "/pks/hashquery";
const CONNECTIONS: u32 = 4;
/// Certificates of the generator.
const GENERATED: u64 = 20;
/// An answer of fewer octets has none: it may tell of forty digests that they are unknown.
const CERTIFICATE_OCTETS_MIN: usize = 100;
/// Longest certificate that is worth mutating.
const OCTETS_MAX: usize = 16 << 10;
