//! Certificates that others fill: with certifications by nobody, with user ids and subkeys of others, with files.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{Finding, Latencies, Plan, Victim, Watch, get_of, submit};
use crate::error::Error;
use crate::http::Client;
use crate::packet::{Format, Tag, packet};
use crate::peers::{Gpg, free_port};
use crate::{Certificate, Key, Kind, Reason, Signature, Target, armor, dearmor};

/// Fills a certificate at one node, whose partner gets it by reconciling, and looks at what both give out; then lets a node
/// fetch it from a partner that keeps everything.
pub(super) fn run(plan: &Plan, log: &mut dyn FnMut(String)) -> Result<Vec<Finding>, Error> {
    let mut findings = by_uploads(plan, log)?;
    findings.extend(by_a_partner(plan, log)?);
    Ok(findings)
}

fn by_uploads(plan: &Plan, log: &mut dyn FnMut(String)) -> Result<Vec<Finding>, Error> {
    let ports = [free_port()?, free_port()?];
    let octets = format!("KEYRINK_LIMITS_CERTIFICATE_OCTETS={}", plan.certificate_octets);
    let (first, second) = (
        node(plan, ports, &[&octets])?,
        node(plan, [ports[1], ports[0]], &[&octets])?,
    );
    let target = Poisoned::new();
    submit(&mut first.client(), &target.friend.to_bytes())?;
    submit(&mut first.client(), &target.clean())?;
    let mut findings = target.fill(plan, &first, log)?;
    findings.extend(target.graft(plan, &first)?);
    findings.push(target.reaches(&first, &second)?);
    log("the partner has it".to_owned());
    for (whose, node) in [("there", &first), ("at its partner", &second)] {
        findings.extend(target.look(whose, node)?);
    }
    findings.extend(target.owner_is_heard("there", &first)?);
    findings.push(target.dataset_octets("there", plan, &first)?);
    Ok(findings)
}

/// A partner that keeps all of it gives it out in one answer: what a real SKS does.
fn by_a_partner(plan: &Plan, log: &mut dyn FnMut(String)) -> Result<Vec<Finding>, Error> {
    const WHOSE: &str = "of a node that fetched it from a partner that keeps all";
    let ports = [free_port()?, free_port()?];
    let everything = [
        "KEYRINK_LIMITS_CERTIFICATE_OCTETS=1000000000",
        "KEYRINK_LIMITS_PACKETS=10000000",
    ];
    let partner = node(plan, ports, &everything)?;
    let target = Poisoned::new();
    submit(&mut partner.client(), &target.clean())?;
    let filled = target.fill(plan, &partner, log)?;
    let held = target.as_peers_get_it(&partner)?.len() as f64 / f64::from(1 << 20);
    let mut findings = vec![Finding::told(
        "a partner that keeps all holds",
        format!("{held:.1} MiB"),
    )];
    // How that fares is not asked.
    findings.extend(filled.into_iter().filter(|finding| !finding.is_time()));

    let octets = format!("KEYRINK_LIMITS_CERTIFICATE_OCTETS={}", plan.certificate_octets);
    let node = node(plan, [ports[1], ports[0]], &[&octets])?;
    submit(&mut node.client(), &target.friend.to_bytes())?;
    submit(&mut node.client(), &target.clean())?;
    let (clean, start) = (target.as_peers_get_it(&node)?.len(), Instant::now());
    let watch = Watch::start(node.http(), get_of(&target.fingerprint()));
    while target.as_peers_get_it(&node)?.len() < clean + plan.certificate_octets as usize / 20 {
        if start.elapsed() > REACHES_WITHIN {
            return Err(Error::Answer(node.server.log_end()));
        }
        thread::sleep(Duration::from_millis(50));
    }
    let took = format!("{:.1} s", start.elapsed().as_secs_f64());
    findings.push(Finding::told("until it was fetched", took));
    thread::sleep(Duration::from_secs(ROUNDS_SECS));
    findings.extend(watch.finish().findings("`op=get` meanwhile", 50.0));
    // Each dataset has a digest of its own for it, which the node will never reach.
    let again = questions(&partner)?.saturating_sub(DATASETS.len() as u64) as usize;
    let what = format!("how often it is asked for again within {ROUNDS_SECS} s of calling each other every second");
    findings.push(Finding::exactly(&what, again, 0));
    findings.extend(target.look(WHOSE, &node)?);
    findings.extend(target.owner_is_heard(WHOSE, &node)?);
    findings.push(target.dataset_octets(WHOSE, plan, &node)?);
    Ok(findings)
}

const DATASETS: [&str; 2] = ["sks", "hockeypuck"];

/// A node that reconciles on the first port with the second.
fn node(plan: &Plan, [own, other]: [u16; 2], settings: &[&str]) -> Result<Victim, Error> {
    let recon = format!("127.0.0.1:{own}");
    let partner = format!("recon=127.0.0.1:{other}");
    let arguments = ["--recon", &recon, "--partner", &partner, "--gossip-interval", "1"];
    let datasets = format!("KEYRINK_PEERS_DATASETS={}", DATASETS.join(","));
    let settings = [&[&*datasets], settings].concat();
    Victim::start(&plan.keyrink, &settings, &arguments)
}

/// How often peers asked a node for certificates.
fn questions(node: &Victim) -> Result<u64, Error> {
    let text = node.client().get("/metrics")?.text();
    let counts = text
        .lines()
        .filter(|line| line.starts_with("keyrink_http_requests_total") && line.contains("hashquery"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(counts.sum())
}

/// Whose certificate is filled.
struct Poisoned {
    owner: Key,
    /// Somebody whose key is known and who certified it long ago.
    friend: Certificate,
}

const USER_ID: &str = "Target <target@example.org>";

impl Poisoned {
    fn new() -> Self {
        Self {
            owner: Key::primary(3, "target"),
            friend: Certificate::v4(3, "friend").user_id("Friend <friend@example.org>"),
        }
    }

    fn fingerprint(&self) -> String {
        Certificate::new(Key::primary(3, "target")).fingerprint()
    }

    fn on_user_id(&self, signer: &Key, signature: Signature) -> Vec<u8> {
        signature.packet(signer, Target::UserId(&self.owner, USER_ID.as_bytes()))
    }

    fn by_friend(&self) -> Vec<u8> {
        let created = self.owner.created().max(self.friend.primary().created()) + 86_400;
        self.on_user_id(
            self.friend.primary(),
            Signature::new(Kind::GenericCertification).created(created),
        )
    }

    /// The user id with certifications behind it.
    fn with(&self, certifications: &[Vec<u8>]) -> Vec<u8> {
        let user_id = packet(Tag::UserId, Format::Legacy, USER_ID.as_bytes());
        [
            self.owner.public_packet(Tag::PublicKey),
            user_id,
            certifications.concat(),
        ]
        .concat()
    }

    /// As its owner made it, with the friend's certification.
    fn clean(&self) -> Vec<u8> {
        let own = self.on_user_id(&self.owner, Signature::new(Kind::PositiveCertification).key_flags(3));
        self.with(&[own, self.by_friend()])
    }

    /// A certification by somebody whose key nobody has, made just now or, every other one, in the future.
    fn bogus(&self, number: u32) -> Vec<u8> {
        let stranger = Key::primary(4, &number.to_string());
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs() as u32;
        let created = now + number % 2 * 10 * 365 * 86_400;
        self.on_user_id(&stranger, Signature::new(Kind::GenericCertification).created(created))
    }

    fn fill(&self, plan: &Plan, node: &Victim, log: &mut dyn FnMut(String)) -> Result<Vec<Finding>, Error> {
        let watch = Watch::start(node.http(), get_of(&self.fingerprint()));
        let (mut slowest, mut uploads, mut taken) = (Duration::ZERO, 0, 0);
        for first in (0..plan.certifications).step_by(plan.upload as usize) {
            let numbers = first..plan.certifications.min(first + plan.upload);
            let bogus: Vec<Vec<u8>> = numbers.map(|number| self.bogus(number)).collect();
            let body = armor(&self.with(&bogus));
            let start = Instant::now();
            let answer = node.client().add(&body)?;
            slowest = slowest.max(start.elapsed());
            uploads += 1;
            taken += usize::from(answer.status == 200);
        }
        log(format!("{uploads} uploads"));
        let mut findings = watch
            .finish()
            .findings("`op=get` of the certificate meanwhile", 50.0)
            .to_vec();
        let what = format!(
            "{} certifications in {uploads} uploads, slowest upload",
            plan.certifications
        );
        findings.push(Finding::told(&what, format!("{:.2} s", slowest.as_secs_f64())));
        findings.push(Finding::exactly("uploads that were taken", taken, uploads));
        Ok(findings)
    }

    /// Puts on it what belongs to others, and files.
    fn graft(&self, plan: &Plan, node: &Victim) -> Result<Vec<Finding>, Error> {
        let other = Key::primary(5, "other");
        let (mut user_ids, mut subkeys, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..plan.grafts {
            let text = format!("Grafted {number} <grafted{number}@example.org>");
            let signature = Signature::new(Kind::PositiveCertification);
            let bound = signature.packet(&other, Target::UserId(&self.owner, text.as_bytes()));
            user_ids.extend([packet(Tag::UserId, Format::Legacy, text.as_bytes()), bound]);
            let subkey = other.subkey(&number.to_string(), crate::Algorithm::EcdhLegacy);
            let bound = Signature::new(Kind::SubkeyBinding)
                .key_flags(0x0C)
                .packet(&other, Target::Subkey(&other, &subkey));
            subkeys.extend([subkey.public_packet(Tag::PublicSubkey), bound]);
        }
        for number in 0..plan.files {
            // Short ones that the owner did not sign, and long ones that he did.
            let signature = Signature::new(Kind::PositiveCertification);
            let (times, signature) = match number % 2 {
                0 => (400, signature.damaged()),
                _ => (600, signature),
            };
            let file = format!("Hidden {number} ") + &"file ".repeat(times);
            let signature = signature.packet(&self.owner, Target::UserId(&self.owner, file.as_bytes()));
            files.extend([packet(Tag::UserId, Format::Legacy, file.as_bytes()), signature]);
        }
        for packets in [user_ids, files, subkeys] {
            let octets = [self.owner.public_packet(Tag::PublicKey), packets.concat()].concat();
            submit(&mut node.client(), &octets)?;
        }
        let held = self.as_peers_get_it(node)?;
        let shown = self.shown(node)?;
        let subkeys = crate::keyring::entries(&shown).first().map_or(0, |entry| {
            let all = entry.bodies.iter();
            all.filter(|(tag, _)| *tag == Tag::PublicSubkey as u8).count()
        });
        let grafted = format!("{} user ids of others put on it, given out", plan.grafts);
        let bound = format!("{} subkeys of others put on it, given out", plan.grafts);
        let hidden = format!("{} files put on it as user ids, given out", plan.files);
        Ok(vec![
            Finding::at_least("user ids of others that peers get", count(&held, b"Grafted"), 1),
            Finding::exactly(&grafted, count(&shown, b"Grafted"), 0),
            Finding::exactly(&bound, subkeys, 0),
            Finding::exactly(&hidden, count(&shown, b"Hidden"), 0),
        ])
    }

    fn shown(&self, node: &Victim) -> Result<Vec<u8>, Error> {
        Ok(dearmor(&node.client().get(&get_of(&self.fingerprint()))?.text()))
    }

    /// Waits until the other node has it as it is here.
    fn reaches(&self, here: &Victim, there: &Victim) -> Result<Finding, Error> {
        let (start, mut client) = (Instant::now(), there.client());
        loop {
            let digest = sks_digest(&mut here.client(), &self.fingerprint())?;
            if client.get(&format!("/pks/lookup?op=hget&search={digest}"))?.status == 200 {
                let took = format!("{:.1} s", start.elapsed().as_secs_f64());
                return Ok(Finding::told("until its partner has it all", took));
            }
            if start.elapsed() > REACHES_WITHIN {
                return Err(Error::Answer(there.server.log_end()));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// What users get of it.
    fn look(&self, whose: &str, node: &Victim) -> Result<Vec<Finding>, Error> {
        let target = get_of(&self.fingerprint());
        let answer = node.client().get(&target)?.body;
        let latencies = Latencies::of(node.http(), &target, LOOKUPS);
        let ordinary = Latencies::of(node.http(), &get_of(&self.friend.fingerprint()), LOOKUPS);
        let name = |what: &str| format!("{what} {whose}");
        let start = Instant::now();
        Gpg::new()?.import(&answer)?;
        let import = start.elapsed().as_secs_f64();
        let kept = count(&dearmor(&String::from_utf8_lossy(&answer)), body(&self.by_friend())) > 0;
        let mut findings = vec![
            Finding::below(&name("`op=get`"), answer.len() as f64 / 1024.0, 100.0, "KiB"),
            Finding::below(&name("`gpg --import` of that"), import, 1.0, "s"),
        ];
        // Of so many packets that nobody can tell apart some are kept, by an order that nobody chooses.
        findings.push(Finding::told(
            &name("the certification by a known friend, given out"),
            if kept { "yes" } else { "no" },
        ));
        findings.extend(latencies.findings(&name("`op=get`"), 50.0));
        let millis = format!("{:.1} ms", ordinary.millis(0.99));
        findings.push(Finding::told(
            &name("`op=get` of an ordinary certificate, p99,"),
            millis,
        ));
        Ok(findings)
    }

    /// Its owner goes on using it, then retires it, and then tells that somebody stole it.
    fn owner_is_heard(&self, whose: &str, node: &Victim) -> Result<Vec<Finding>, Error> {
        let later = self.owner.created() + 90 * 86_400;
        let renewed = Signature::new(Kind::PositiveCertification).key_flags(3).created(later);
        let renewed = self.on_user_id(&self.owner, renewed);
        let revoked = |reason| {
            let revocation = Signature::revocation(Kind::KeyRevocation, reason).created(later);
            revocation.packet(&self.owner, Target::Key(&self.owner))
        };
        let on_key = |revocation: &[u8]| [&self.owner.public_packet(Tag::PublicKey), revocation].concat();
        let (retired, stolen) = (revoked(Reason::Retired), revoked(Reason::Compromised));
        let mut findings = Vec::new();
        for (what, sent, part) in [
            (
                "new self-signature",
                self.with(std::slice::from_ref(&renewed)),
                &renewed,
            ),
            ("revocation", on_key(&retired), &retired),
            ("revocation for all time", on_key(&stolen), &stolen),
        ] {
            submit(&mut node.client(), &sent)?;
            let what = format!("the owner's {what} {whose}, given out");
            findings.push(Finding::exactly(&what, count(&self.shown(node)?, body(part)), 1));
        }
        Ok(findings)
    }

    /// What peers of SKS get.
    fn as_peers_get_it(&self, node: &Victim) -> Result<Vec<u8>, Error> {
        let digest = sks_digest(&mut node.client(), &self.fingerprint())?;
        let octets = (0..16).filter_map(|at| u8::from_str_radix(digest.get(2 * at..2 * at + 2)?, 16).ok());
        let question = [vec![0, 0, 0, 1, 0, 0, 0, 16], octets.collect()].concat();
        let answer = node.client().request("POST", "/pks/hashquery", &[], &question)?;
        Ok(answer.body)
    }

    fn dataset_octets(&self, whose: &str, plan: &Plan, node: &Victim) -> Result<Finding, Error> {
        let octets = self.as_peers_get_it(node)?.len() as f64 / 1024.0;
        Ok(Finding::below(
            &format!("as peers of SKS get it {whose} (`certificate_octets`)"),
            octets,
            f64::from(plan.certificate_octets) / 1024.0,
            "KiB",
        ))
    }
}

/// How often octets stand in others.
fn count(octets: &[u8], part: &[u8]) -> usize {
    octets.windows(part.len()).filter(|window| *window == part).count()
}

/// Nearly all of the body of a packet: its header is two or three octets, and servers write their own.
fn body(packet: &[u8]) -> &[u8] {
    &packet[3..]
}

/// The digest that peers of SKS know a certificate by.
fn sks_digest(client: &mut Client, fingerprint: &str) -> Result<String, Error> {
    let target = format!("/pks/lookup?op=index&options=json&hash=on&search=0x{fingerprint}");
    let answer = client.get(&target)?;
    let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let digest = find_text(&list, "md5");
    digest.ok_or_else(|| Error::Answer(answer.text()))
}

/// The first text under a key, wherever it stands.
fn find_text(value: &Value, key: &str) -> Option<String> {
    match value {
        Value::Object(fields) => {
            let found = fields.get(key).and_then(Value::as_str).map(str::to_owned);
            found.or_else(|| fields.values().find_map(|value| find_text(value, key)))
        }
        Value::Array(items) => items.iter().find_map(|item| find_text(item, key)),
        _ => None,
    }
}

/// Lookups one after another.
const LOOKUPS: usize = 300;
/// How long a partner may take.
const REACHES_WITHIN: Duration = Duration::from_secs(120);
/// How long it is watched whether what was fetched is asked for again.
const ROUNDS_SECS: u64 = 5;
