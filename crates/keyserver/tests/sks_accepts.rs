//! A real SKS as judge of what Keyrink would hand it: certificates that SKS refuses as they were submitted go to its
//! dataset in a form that it takes, and it must then hold exactly the digest that Keyrink announces.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::collections::BTreeMap;

use common::datasets;
use common::peering::{Digests, handed_out};
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::merge::merge;
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::verify::verify;
use keyrink_testkit::http::Client;
use keyrink_testkit::peers::{Sks, SksOptions};
use keyrink_testkit::{Format, Tag, armor, dearmor, hex, packet};

#[test]
fn sks_takes_what_it_refused_in_the_form_of_its_dataset() {
    let sks = Sks::start(SksOptions::default()).unwrap();
    let mut client = Client::new(sks.http());
    let text = std::fs::read_to_string(datasets().join("vectors.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let vectors = document["vectors"].as_array().unwrap().iter();
    let refused = vectors.filter(|vector| vector["sks"]["stored"].as_array().unwrap().is_empty());
    let (mut vectors, mut accepted, mut skipped, mut faults) = (0, 0, 0, Vec::new());
    for vector in refused {
        vectors += 1;
        let files = vector["submit"].as_array().unwrap().iter();
        let files = files.map(|file| std::fs::read(datasets().join(file.as_str().unwrap())).unwrap());
        for cert in merged(files) {
            let mut octets = Vec::new();
            cert.write(Projection::Sks, &mut octets);
            let version = cert.key().version;
            if version > 4 {
                assert!(
                    octets.is_empty() && cert.digest(Projection::Sks).is_none(),
                    "{}",
                    vector["id"]
                );
                skipped += 1;
            } else if let Err(fault) = offer(&mut client, &octets, &cert) {
                faults.push(format!("{} ({}): {fault}", vector["id"], vector["why"]));
            } else {
                accepted += 1;
            }
        }
    }
    println!("{vectors} vectors: {accepted} certificates accepted by SKS, {skipped} newer than it knows");
    assert!(faults.is_empty(), "{} of {accepted}: {faults:#?}", faults.len());
    assert_eq!(vectors, 63);
}

/// Keys whose length does not fit into the two octets that fingerprints have for it; SKS does not mind.
#[test]
fn sks_takes_keys_that_are_too_long_for_their_fingerprint() {
    let sks = Sks::start(SksOptions::default()).unwrap();
    let mut client = Client::new(sks.http());
    let body = |octets: usize| [&[4, 0, 0, 0, 1, 99][..], &vec![7; octets]].concat();
    for (primary, subkey) in [(70_000, 100), (100, 70_000), (65_530, 65_529)] {
        let packets = [
            packet(Tag::PublicKey, Format::OpenPgp, &body(primary)),
            packet(Tag::UserId, Format::OpenPgp, b"long"),
            packet(Tag::PublicSubkey, Format::OpenPgp, &body(subkey)),
        ];
        let cert = merged(std::iter::once(packets.concat())).remove(0);
        let mut octets = Vec::new();
        cert.write(Projection::Sks, &mut octets);
        assert!(octets.len() > primary + subkey, "all of it is kept");
        assert_eq!(client.add(&armor(&octets)).unwrap().status, 200);
        let digest = Digests::from([cert.digest(Projection::Sks).unwrap().to_vec()]);
        assert_eq!(handed_out(&mut client, &digest), digest, "{primary} {subkey}");
        let long = primary + 6 > usize::from(u16::MAX);
        assert_eq!(cert.id().len(), if long { 28 } else { 20 });
    }
}

/// What a store holds after these submissions.
fn merged(submissions: impl Iterator<Item = Vec<u8>>) -> Vec<Cert> {
    let mut certs: BTreeMap<Vec<u8>, Cert> = BTreeMap::new();
    for octets in submissions {
        for incoming in Keyring::read(&octets, &Limits::default()).certs {
            let (id, mut cert) = (incoming.cert.id(), incoming.cert);
            let known = certs.remove(&id);
            verify(&mut cert, known.as_ref());
            let cert = match known {
                Some(known) => merge(known, cert).unwrap(),
                None => cert,
            };
            certs.insert(id, cert);
        }
    }
    certs.into_values().collect()
}

/// Submits a projection and asks for it by its digest.
fn offer(client: &mut Client, octets: &[u8], cert: &Cert) -> Result<(), String> {
    let digest = cert.digest(Projection::Sks).ok_or("no digest")?;
    let added = client.add(&armor(octets)).map_err(|error| error.to_string())?;
    let target = format!("/pks/lookup?op=hget&options=mr&search={}", hex(&digest));
    let found = client.get(&target).map_err(|error| error.to_string())?;
    if found.status == 200 && !dearmor(&found.text()).is_empty() {
        return Ok(());
    }
    Err(format!(
        "submission answered with {} {:?}, digest {} with {}",
        added.status,
        added.text(),
        hex(&digest),
        found.status
    ))
}
