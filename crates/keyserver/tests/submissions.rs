//! `POST /pks/add` with everything that people and programs send, and with what nobody should.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::{Node, get};
use keyrink_openpgp::packet::Frames;
use keyrink_testkit::http::{Answer, Client};
use keyrink_testkit::keyring::entries;
use keyrink_testkit::peers::{Keyrink, run};
use keyrink_testkit::{
    Algorithm, Certificate, Format, Key, Kind, Reason, Signature, Tag, armor, dearmor, form_encode, generate, hex,
    packet,
};

#[test]
fn every_form_of_a_submission_is_taken() {
    let (_node, _server, mut client) = start();
    let armored = |index| generate::certificate(1, index).armored();
    let binary = |index| generate::certificate(1, index).to_bytes();
    let form = |text: &str| format!("keytext={}", form_encode(text)).into_bytes();
    let multipart = |name: &str, octets: &[u8]| {
        let head = format!(
            "--cut\r\nContent-Disposition: form-data; name=\"keytext\"\r\n\r\n\r\n--cut\r\nContent-Disposition: \
             form-data; name=\"{name}\"; filename=\"key\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        [head.as_bytes(), octets, b"\r\n--cut--\r\n"].concat()
    };
    let urlencoded = "application/x-www-form-urlencoded";
    let in_parts = "multipart/form-data; boundary=cut";
    let bodies = [
        (urlencoded, form(&armored(0))),
        ("application/x-www-form-urlencoded; charset=utf-8", form(&armored(1))),
        (urlencoded, form(&armored(2).replace('\n', "\r\n"))),
        (urlencoded, armored(3).into_bytes()),
        (
            urlencoded,
            form(&format!("Dear server,\n\n{}\nyours, somebody\n", armored(4))),
        ),
        (in_parts, multipart("keyfile", &binary(5))),
        (in_parts, multipart("keyfile", armored(6).as_bytes())),
        ("application/octet-stream", binary(7)),
        ("application/pgp", binary(8)),
        ("application/pgp-keys", armored(9).into_bytes()),
        ("text/plain", armored(10).into_bytes()),
    ];
    for (index, (kind, body)) in (0..).zip(bodies) {
        let answer = post(&mut client, kind, &body);
        let fingerprint = generate::certificate(1, index).fingerprint();
        assert_eq!(answer.status, 200, "{kind} {index}: {}", answer.text());
        assert_eq!(answer.text(), format!("inserted {fingerprint}\n"));
        assert!(holds(&mut client, &fingerprint, &binary(index)), "{kind} {index}");
    }
    let answer = client.request("POST", "/pks/add", &[], &binary(11)).unwrap();
    assert_eq!(answer.status, 200, "without a content type: {}", answer.text());
}

#[test]
fn one_submission_may_hold_many_certificates() {
    let (_node, _server, mut client) = start();
    let blocks: String = (0..3).map(|index| generate::certificate(2, index).armored()).collect();
    let text = client.add(&blocks).unwrap().text();
    assert_eq!(text.matches("inserted ").count(), 3, "{text}");
    let keyring: Vec<u8> = (2..200)
        .flat_map(|index| generate::certificate(2, index).to_bytes())
        .collect();
    let answer = json(&mut client, &keyring);
    assert_eq!(
        (answer.0, count(&answer, "inserted"), count(&answer, "ignored")),
        (200, 197, 1)
    );
}

#[test]
fn a_second_time_says_so() {
    let (_node, _server, mut client) = start();
    let first = generate::certificate(3, 0);
    let more = generate::certificate(3, 0).user_id("Another <another@example.org>");
    let lists = ["inserted", "updated", "ignored", "invalid"];
    for (sent, expected) in [
        (first.to_bytes(), "inserted"),
        (first.to_bytes(), "ignored"),
        (more.to_bytes(), "updated"),
        (first.to_bytes(), "ignored"),
        (more.to_bytes(), "ignored"),
    ] {
        let answer = json(&mut client, &sent);
        for list in lists {
            assert_eq!(count(&answer, list), usize::from(list == expected), "{:?}", answer.1);
        }
        let entry = &answer.1[expected][0];
        assert_eq!(entry["fingerprint"], first.fingerprint().to_lowercase());
        assert_eq!(
            (&entry["version"], &entry["dropped"]),
            (&4.into(), &serde_json::json!([]))
        );
    }
    assert!(holds(&mut client, &first.fingerprint(), &more.to_bytes()));
}

#[test]
fn revocations_arrive_in_every_form() {
    let (_node, _server, mut client) = start();
    let alice = || {
        Certificate::v4(4, "alice")
            .user_id("Alice <alice@example.org>")
            .user_id("Alice <old@example.org>")
            .encryption_subkey("alice/encrypt")
    };
    let fingerprint = alice().fingerprint();
    assert_eq!(json(&mut client, &alice().to_bytes()).0, 200);
    let revoked = |client: &mut Client| {
        let index = format!("/pks/lookup?op=index&options=json&search=0x{fingerprint}");
        let index: serde_json::Value = serde_json::from_slice(&client.get(&index).unwrap().body).unwrap();
        let certificate = &index["certificates"][0];
        let revoked = |list: &str| {
            let all = certificate[list].as_array().unwrap();
            all.iter().filter(|one| one["isRevoked"] == true).count()
        };
        (certificate["isRevoked"] == true, revoked("userIDs"), revoked("subkeys"))
    };
    assert_eq!(revoked(&mut client), (false, 0, 0));

    let user_id = Certificate::v4(4, "alice")
        .user_id("Alice <old@example.org>")
        .revoke_last(Reason::UserIdInvalid);
    assert_eq!(json(&mut client, &user_id.to_bytes()).0, 200);
    assert_eq!(revoked(&mut client), (false, 1, 0));

    let subkey = Certificate::v4(4, "alice")
        .encryption_subkey("alice/encrypt")
        .revoke_last(Reason::Compromised);
    let answer = json(&mut client, &subkey.to_bytes());
    assert_eq!((answer.0, count(&answer, "updated")), (200, 1), "{:?}", answer.1);
    assert_eq!(revoked(&mut client), (false, 1, 1));

    // Alone, as owners keep it in a drawer.
    let bare = alice().revocation(Reason::Compromised);
    let answer = client.add(&armor(&bare)).unwrap();
    assert_eq!(
        (answer.status, answer.text()),
        (200, format!("updated {fingerprint}\n"))
    );
    assert!(revoked(&mut client).0);
    let shown = dearmor(&get(&mut client, &fingerprint).text());
    assert!(
        entries(&shown)[0]
            .bodies
            .iter()
            .any(|(tag, body)| *tag == 2 && body[1] == 0x20)
    );

    // One that fits no key here, or is no valid one, changes nothing.
    let stranger = Certificate::v4(4, "stranger").revocation(Reason::Compromised);
    let forged = Signature::revocation(Kind::KeyRevocation, Reason::Compromised)
        .damaged()
        .packet(
            generate::certificate(4, 0).primary(),
            keyrink_testkit::Target::Key(generate::certificate(4, 0).primary()),
        );
    assert_eq!(json(&mut client, &generate::certificate(4, 0).to_bytes()).0, 200);
    for alone in [stranger, forged] {
        let answer = client.add(&armor(&alone)).unwrap();
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(is_one_sentence(&answer.text()), "{}", answer.text());
    }
}

/// A copy that proves nothing by itself is explained together with what is stored.
#[test]
fn parts_of_a_certificate_are_explained_by_all_of_it() {
    let (_node, _server, mut client) = start();
    let key = || Certificate::v4(5, "bob");
    let whole = key()
        .user_id("Bob <bob@example.org>")
        .user_id("Bob <old@example.org>")
        .encryption_subkey("bob/encrypt");
    assert_eq!(json(&mut client, &whole.to_bytes()).0, 200);
    let fingerprint = whole.fingerprint();
    let user_id = key()
        .user_id("Bob <old@example.org>")
        .revoke_last(Reason::UserIdInvalid);
    let subkey = key().encryption_subkey("bob/encrypt").revoke_last(Reason::Retired);
    for copy in [user_id, subkey] {
        let octets = copy.to_bytes();
        let alone = Frames::new(&octets).map(|frame| frame.unwrap().span).last().unwrap();
        for (sent, outcome) in [(alone, "updated"), (alone, "unchanged"), (&octets, "unchanged")] {
            let answer = client.add(&armor(sent)).unwrap();
            assert_eq!(
                (answer.status, answer.text()),
                (200, format!("{outcome} {fingerprint}\n"))
            );
        }
    }
    // What stays hidden is still named.
    let hidden = key().bare_user_id("Bob <unsigned@example.org>").to_bytes();
    let (_, answer) = json(&mut client, &hidden);
    let dropped = answer["updated"][0]["dropped"].as_array().unwrap();
    assert_eq!(dropped.len(), 1, "{answer}");
    assert!(dropped[0]["part"].as_str().unwrap().contains("unsigned"), "{answer}");
}

#[test]
fn secret_keys_are_refused_and_forgotten() {
    let node = Node::new();
    let server = node.serve_with(&["KEYRINK_LOG_FILTER=info,keyrink=trace"], &[]);
    let mut client = Client::new(server.http());
    let dave = Certificate::v4(5, "dave")
        .user_id("Dave <dave@example.org>")
        .encryption_subkey("dave/encrypt");
    let secret = dave.to_secret_bytes();
    let private = armor(&secret).replace("PUBLIC", "PRIVATE");
    // The secret is at the end of the packet, before a checksum.
    let packet = dave.primary().secret_packet(Tag::SecretKey);
    let number = &packet[packet.len() - 30..packet.len() - 2];
    let beside = [generate::certificate(5, 0).to_bytes(), secret.clone()].concat();
    let subkey_only = [
        dave.to_bytes(),
        Key::derive(5, "dave/other", Algorithm::EcdhLegacy).secret_packet(Tag::SecretSubkey),
    ]
    .concat();
    // Armor that was cut off, beside another key.
    let damaged = private[..private.len() - 60].to_owned();
    let two_fields = |text: &str| {
        let field = |name: &str, text: &str| {
            format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
        };
        let other = generate::certificate(5, 1).armored();
        format!("{}{}--cut--\r\n", field("keytext", text), field("keyfile", &other)).into_bytes()
    };
    for (kind, body) in [
        ("application/octet-stream", secret.clone()),
        ("text/plain", private.clone().into_bytes()),
        ("text/plain", armor(&secret).into_bytes()),
        (
            "application/x-www-form-urlencoded",
            format!("keytext={}", form_encode(&private)).into_bytes(),
        ),
        ("application/octet-stream", beside),
        ("application/octet-stream", subkey_only),
        ("multipart/form-data; boundary=cut", two_fields(&damaged)),
    ] {
        let answer = post(&mut client, kind, &body);
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(answer.text().contains("SECRET KEY"), "{}", answer.text());
        assert!(!answer.text().contains("Dave"), "{}", answer.text());
    }
    for fingerprint in [dave.fingerprint(), generate::certificate(5, 0).fingerprint()] {
        assert_eq!(get(&mut client, &fingerprint).status, 404);
    }
    let log = server.log();
    assert!(
        !log.contains("Dave") && !log.to_uppercase().contains(&hex(number)),
        "{log}"
    );
    if !node.is_embedded() {
        let mut dump = node.postgres().client("pg_dump");
        let dump = run(dump.arg(node.data()), "postgresql").unwrap();
        let text = String::from_utf8_lossy(&dump.stdout).to_uppercase();
        assert!(
            text.contains("COPY PUBLIC.RECORD") && !text.contains(&hex(number)),
            "the secret is in the database"
        );
        return;
    }
    for file in std::fs::read_dir(node.data()).unwrap() {
        let octets = std::fs::read(file.unwrap().path()).unwrap();
        assert!(
            !octets.windows(number.len()).any(|window| window == number),
            "the secret is in the store"
        );
    }
}

#[test]
fn what_nobody_vouches_for_is_not_shown() {
    let (_node, _server, mut client) = start();
    let damaged = || Signature::new(Kind::PositiveCertification).damaged();
    let forged = Certificate::v4(6, "forged").user_id_with("Forged <forged@example.org>", damaged());
    let bare = Certificate::v4(6, "bare").bare_user_id("Bare <bare@example.org>");
    for nothing in [&forged, &bare] {
        let answer = json(&mut client, &nothing.to_bytes());
        assert_eq!((answer.0, count(&answer, "invalid")), (422, 1), "{:?}", answer.1);
        assert_eq!(get(&mut client, &nothing.fingerprint()).status, 404);
    }

    let partly = Certificate::v4(6, "partly")
        .user_id("Partly <partly@example.org>")
        .user_id_with("<script>forged</script>", damaged())
        .user_attribute(b"\x05\x01\x10\x00\x01\x01");
    let both = [partly.to_bytes(), forged.to_bytes()].concat();
    let answer = json(&mut client, &both);
    assert_eq!(
        (answer.0, count(&answer, "inserted"), count(&answer, "invalid")),
        (200, 1, 1)
    );
    let dropped = answer.1["inserted"][0]["dropped"].to_string();
    assert!(
        dropped.contains("user id") && dropped.contains("<script>forged</script>"),
        "{dropped}"
    );
    assert!(dropped.contains("user attribute"), "{dropped}");
    let shown = get(&mut client, &partly.fingerprint());
    let ids: Vec<u8> = entries(&dearmor(&shown.text()))[0]
        .bodies
        .iter()
        .map(|(tag, _)| *tag)
        .collect();
    assert_eq!(ids, [6, 13, 2], "one user id with its signature, nothing else");

    let text = post(&mut client, "application/octet-stream", &both);
    assert!(text.text().contains("not shown: user id"), "{}", text.text());
    let fields = [("Content-Type", "application/octet-stream"), ("Accept", "text/html")];
    let page = client.request("POST", "/pks/add", &fields, &both).unwrap();
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("role=\"search\""), "{}", page.text());
    assert!(page.text().contains(&partly.fingerprint()) && page.text().contains("&lt;script&gt;"));
    assert!(!page.text().contains("<script"), "{}", page.text());
}

#[test]
fn version_6_is_for_those_who_ask_for_it() {
    let (_node, _server, mut client) = start();
    let six = Certificate::v6(7, "six")
        .user_id("Six <six@example.org>")
        .encryption_subkey("six/encrypt");
    let answer = json(&mut client, &six.to_bytes());
    assert_eq!((answer.0, &answer.1["inserted"][0]["version"]), (200, &6.into()));
    let fingerprint = six.fingerprint();
    let plain = get(&mut client, &fingerprint);
    assert_eq!(plain.status, 404);
    assert!(plain.text().contains("options=bin"), "{}", plain.text());
    for search in [format!("0x{fingerprint}"), "six@example.org".to_owned()] {
        let target = format!("/pks/lookup?op=get&options=bin&search={search}");
        let answer = client.get(&target).unwrap();
        assert_eq!(answer.status, 200);
        for (tag, body) in &entries(&answer.body)[0].bodies {
            assert!(entries(&six.to_bytes())[0].bodies.contains(&(*tag, body.clone())));
        }
    }
    let index = client
        .get("/pks/lookup?op=index&options=mr&search=six@example.org")
        .unwrap();
    assert_eq!(index.status, 404, "{}", index.text());
}

#[test]
fn broken_input_gets_a_sentence_and_does_no_harm() {
    let (node, server, mut client) = start();
    let good = generate::certificate(8, 0);
    assert_eq!(client.add(&good.armored()).unwrap().status, 200);
    let octets = generate::certificate(8, 1).to_bytes();
    let before = node.check();
    let mut wrong = Vec::new();
    for (what, status, body) in broken(&octets) {
        let answer = post(&mut client, "application/octet-stream", &body);
        if answer.status != status {
            wrong.push(format!("{what}: {} {}", answer.status, answer.text()));
        }
        assert!(is_one_sentence(&answer.text()), "{what}: {}", answer.text());
        assert_eq!(get(&mut client, &good.fingerprint()).status, 200, "{what}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(node.check(), before);
    drop(server);
}

/// Bodies that hold no certificate, with the status they deserve.
fn broken(octets: &[u8]) -> Vec<(&'static str, u16, Vec<u8>)> {
    let armored = armor(octets);
    let text = |from: &str, to: &str| armored.replacen(from, to, 1).into_bytes();
    let line = armored.lines().nth(3).unwrap().to_owned();
    let header = |octets: &[u8]| octets.to_vec();
    let foreign = |tag: u8, body: &[u8]| [&[0xC0 | tag, body.len() as u8], body].concat();
    vec![
        ("nothing", 400, Vec::new()),
        ("spaces", 400, b" \r\n\t\n".to_vec()),
        ("armor that is not base64", 400, text(&line, "!!! not base64 !!!")),
        (
            "armor without an end",
            400,
            text("-----END PGP PUBLIC KEY BLOCK-----", ""),
        ),
        ("armor with one endless line", 400, text(&line, &"A".repeat(1 << 20))),
        ("armor with nothing in it", 422, armor(&[]).into_bytes()),
        ("prose", 400, b"Dear server, I have no key.".to_vec()),
        ("zeros", 400, vec![0; 100_000]),
        ("ones", 422, vec![0xFF; 100_000]),
        ("noise", 400, noise(100_000)),
        ("a truncated key packet", 422, octets[..20].to_vec()),
        (
            "a length of 4 GiB",
            422,
            header(&[0xC6, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 4]),
        ),
        (
            "an old length of 4 GiB",
            422,
            header(&[0x9A, 0xFF, 0xFF, 0xFF, 0xFF, 4]),
        ),
        ("a partial length", 422, [&[0xC6, 0xFE][..], &octets[2..40]].concat()),
        ("a key of version 0", 422, foreign(6, &[0; 50])),
        ("a key of no octets", 422, foreign(6, &[])),
        ("compressed data", 422, foreign(8, &[1, 2, 3])),
        ("a message", 422, foreign(11, b"b\0\0\0\0\0hello")),
        (
            "a user id without a key",
            422,
            packet(Tag::UserId, Format::Legacy, b"Nobody"),
        ),
        (
            "ten thousand user ids without a key",
            422,
            packet(Tag::UserId, Format::Legacy, b"N").repeat(10_000),
        ),
        ("ten thousand empty keys", 422, foreign(6, &[]).repeat(10_000)),
        (
            "ten thousand padding packets",
            422,
            foreign(21, &[0; 10]).repeat(10_000),
        ),
    ]
}

#[test]
fn damage_behind_a_certificate_costs_only_itself() {
    let (_node, _server, mut client) = start();
    let tails = [
        vec![0; 50],
        noise(500),
        vec![0xC2, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        packet(Tag::Signature, Format::Legacy, b"").to_vec(),
        packet(Tag::UserId, Format::Legacy, b"nul\0nul").to_vec(),
        packet(Tag::UserId, Format::Legacy, b"N").repeat(10_000),
    ];
    for (index, tail) in (0..).zip(tails) {
        let good = generate::certificate(9, index);
        let answer = json(&mut client, &[good.to_bytes(), tail].concat());
        assert_eq!(
            (answer.0, count(&answer, "inserted")),
            (200, 1),
            "{index}: {:?}",
            answer.1
        );
        assert!(holds(&mut client, &good.fingerprint(), &good.to_bytes()), "{index}");
    }
    // A copy with more packets than a certificate may have is refused; the one that is there stays.
    let many: Vec<u8> = (0..25_000_u32)
        .flat_map(|number| packet(Tag::UserId, Format::Legacy, &number.to_be_bytes()))
        .collect();
    let good = generate::certificate(9, 100);
    assert_eq!(client.add(&good.armored()).unwrap().status, 200);
    let copy = [good.to_bytes(), many].concat();
    let answer = post(&mut client, "application/octet-stream", &copy);
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(holds(&mut client, &good.fingerprint(), &good.to_bytes()));
}

#[test]
fn requests_that_are_no_submission_say_why() {
    let node = Node::new();
    let server = node.serve_with(&["KEYRINK_HTTP_BODY_OCTETS=100000"], &[]);
    let mut client = Client::new(server.http());
    let form = "application/x-www-form-urlencoded";
    for (kind, body, status) in [
        (form, b"key=value".to_vec(), 400),
        (form, b"keytext=".to_vec(), 400),
        (form, b"".to_vec(), 400),
        (form, b"keytext=%ZZ%0".to_vec(), 400),
        (form, b"%00%00=%00&keytext=%00%00".to_vec(), 400),
        ("multipart/form-data", b"--x--".to_vec(), 400),
        ("multipart/form-data; boundary=x", b"--x--\r\n".to_vec(), 400),
        ("multipart/form-data; boundary=x", b"no boundary".to_vec(), 400),
        ("image/png", b"\x89PNG".to_vec(), 415),
        ("application/json", b"{}".to_vec(), 415),
        ("application/octet-stream", vec![b'x'; 100_001], 413),
        (form, vec![b'x'; 5_000_000], 413),
    ] {
        let answer = post(&mut client, kind, &body);
        assert_eq!(answer.status, status, "{kind}: {}", answer.text());
        assert!(is_one_sentence(&answer.text()), "{kind}: {}", answer.text());
        let fields = [("Content-Type", kind)];
        let answer = client.request("POST", "/pks/add?options=json", &fields, &body).unwrap();
        let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, said["error"].is_string()), (status, true));
    }
    assert_eq!(client.get("/pks/add").unwrap().status, 405);
    assert_eq!(client.add(&generate::certificate(10, 0).armored()).unwrap().status, 200);
}

fn start() -> (Node, Keyrink, Client) {
    let node = Node::new();
    let server = node.serve();
    let client = Client::new(server.http());
    (node, server, client)
}

fn post(client: &mut Client, kind: &str, body: &[u8]) -> Answer {
    client
        .request("POST", "/pks/add", &[("Content-Type", kind)], body)
        .unwrap()
}

/// Status and content of the answer in JSON.
fn json(client: &mut Client, packets: &[u8]) -> (u16, serde_json::Value) {
    let fields = [("Content-Type", "application/octet-stream")];
    let answer = client
        .request("POST", "/pks/add?options=json", &fields, packets)
        .unwrap();
    let content = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", answer.text()));
    (answer.status, content)
}

fn count(answer: &(u16, serde_json::Value), list: &str) -> usize {
    answer.1[list].as_array().map_or(0, Vec::len)
}

/// `op=get` gives every packet that was sent.
fn holds(client: &mut Client, fingerprint: &str, sent: &[u8]) -> bool {
    let got = entries(&dearmor(&get(client, fingerprint).text()));
    let sent = entries(sent).remove(0).bodies;
    got.len() == 1 && sent.iter().all(|packet| got[0].bodies.contains(packet))
}

/// Short enough to read, one line, and nothing of what was sent.
fn is_one_sentence(text: &str) -> bool {
    let sentence = text.trim_end_matches('\n');
    (10..300).contains(&sentence.len()) && sentence.contains(' ') && !sentence.chars().any(char::is_control)
}

/// The same octets in every run (a linear congruential generator).
fn noise(octets: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(octets).collect()
}
