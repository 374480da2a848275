//! Certificates made to take long to verify: RSA keys of the largest size, of which nobody need know the factors, with
//! self-signatures whose clear octets fit and whose values are made up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use aws_lc_rs::digest::{self, SHA256};

use super::{Finding, Plan, Victim, Watch, get_of};
use crate::error::Error;
use crate::http::{Answer, Client};
use crate::packet::{Format, Tag, packet, put_integer, put_subpacket};
use crate::{armor, form_encode};

/// Submits them from several networks at the same time, first to a server that throttles nobody, then to one that does.
pub(super) fn run(plan: &Plan, log: &mut dyn FnMut(String)) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for (settings, name) in [
        (
            &["KEYRINK_HTTP_PROXIES=127.0.0.1", "KEYRINK_THROTTLE_TOKENS_PER_SECOND=0"][..],
            "throttling nobody",
        ),
        (&["KEYRINK_HTTP_PROXIES=127.0.0.1"][..], "by default"),
    ] {
        let victim = Victim::start(&plan.keyrink, settings, &[])?;
        let ordinary = victim.ordinary()?;
        let watch = Watch::start(victim.http(), get_of(&ordinary.fingerprint()));
        let start = Instant::now();
        let statuses = attack(&victim, plan.costly)?;
        let took = start.elapsed().as_secs_f64();
        let latencies = watch.finish();
        log(format!("{name}: {statuses:?} in {took:.0} s"));
        let what = format!(
            "{} submissions of {SIGNATURES} RSA-16384 signatures, {name}, by status",
            plan.costly
        );
        findings.push(Finding::told(&what, format!("{statuses:?} in {took:.0} s")));
        findings.extend(latencies.findings(&format!("an ordinary `op=get` meanwhile, {name}"), 200.0));
        let errors = statuses.iter().filter(|(status, _)| **status >= 500);
        let errors = errors.map(|(_, count)| *count as usize).sum();
        findings.push(Finding::exactly(&format!("answers of 500 and more, {name}"), errors, 0));
    }
    Ok(findings)
}

/// Submits so many over all connections; how many answers of each status there were.
fn attack(victim: &Victim, count: u32) -> Result<BTreeMap<u16, u32>, Error> {
    let next = AtomicU32::new(0);
    let work = &|network: u32| {
        let mut statuses: BTreeMap<u16, u32> = BTreeMap::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(statuses);
            }
            let body = format!("keytext={}", form_encode(&armor(&certificate(number))));
            let answer = send(victim, network, body.as_bytes())?;
            *statuses.entry(answer.status).or_default() += 1;
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..NETWORKS)
            .map(|network| scope.spawn(move || work(network)))
            .collect();
        let mut all = BTreeMap::new();
        for worker in workers {
            let ended = worker
                .join()
                .unwrap_or_else(|_| Err(Error::Answer("a client failed".to_owned())));
            for (status, count) in ended? {
                *all.entry(status).or_default() += count;
            }
        }
        Ok(all)
    })
}

fn send(victim: &Victim, network: u32, body: &[u8]) -> Result<Answer, Error> {
    let address = format!("192.0.2.{network}");
    let fields = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("X-Forwarded-For", address.as_str()),
    ];
    Client::new(victim.http()).request("POST", "/pks/add", &fields, body)
}

/// Certificate number `number`.
fn certificate(number: u32) -> Vec<u8> {
    let modulus = digits(&format!("modulus {number}"), 0xC0);
    let mut key = vec![4, 0x60, 0, 0, 0, 1];
    put_integer(&mut key, &modulus);
    put_integer(&mut key, &[1, 0, 1]);
    let text = format!("Costly {number} <costly{number}@example.org>").into_bytes();
    let mut out = packet(Tag::PublicKey, Format::OpenPgp, &key);
    out.extend(packet(Tag::UserId, Format::OpenPgp, &text));
    (0..SIGNATURES).for_each(|nth| out.extend(signature(&key, &text, number, nth)));
    out
}

fn signature(key: &[u8], text: &[u8], number: u32, nth: u32) -> Vec<u8> {
    let framed = [&[0x99], &(key.len() as u16).to_be_bytes()[..], key].concat();
    let fingerprint = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &framed);
    let mut hashed = Vec::new();
    put_subpacket(&mut hashed, 33, &[&[4], fingerprint.as_ref()].concat());
    put_subpacket(&mut hashed, 2, &(0x6100_0000 + nth).to_be_bytes());
    let mut body = vec![4, 0x13, 1, 8];
    body.extend_from_slice(&(hashed.len() as u16).to_be_bytes());
    body.extend_from_slice(&hashed);
    let mut context = digest::Context::new(&SHA256);
    context.update(&framed);
    context.update(&[0xB4]);
    context.update(&(text.len() as u32).to_be_bytes());
    context.update(text);
    context.update(&body);
    context.update(&[4, 0xFF]);
    context.update(&(body.len() as u32).to_be_bytes());
    let clear = context.finish();
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(&clear.as_ref()[..2]);
    put_integer(&mut body, &digits(&format!("value {number} {nth}"), 0x40));
    packet(Tag::Signature, Format::OpenPgp, &body)
}

/// An odd number of 16 384 bits, or somewhat fewer, whose first octet is given.
fn digits(label: &str, first: u8) -> Vec<u8> {
    let mut octets: Vec<u8> = (0..OCTETS / 32)
        .flat_map(|block| {
            digest::digest(&SHA256, format!("{label} {block}").as_bytes())
                .as_ref()
                .to_vec()
        })
        .collect();
    octets[0] = first;
    octets[OCTETS - 1] |= 1;
    octets
}

const SIGNATURES: u32 = 200;
/// Networks from which they come.
const NETWORKS: u32 = 8;
/// Octets of a number.
const OCTETS: usize = 2048;
