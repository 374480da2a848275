//! The fixtures with the real programs, and the real programs' judgement of generated certificates.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use keyrink_testkit::http::Client;
use keyrink_testkit::peers::{Chromium, Gpg, Postgres, Script, Sks, SksOptions, Sq, run};
use keyrink_testkit::{Certificate, Error, HOSTILE_USER_IDS, Key, Reason, generate};

/// `gpg --check-sigs` in machine form: per signature the verdict (`!` good, `-` bad, `?` unknown signer) and class.
fn verdicts(gpg: &Gpg) -> Vec<(char, String)> {
    let output = gpg
        .run(&["--with-colons", "--check-sigs"])
        .expect("gpg reads its own keyring");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("sig:") || line.starts_with("rev:"));
    let fields = lines.map(|line| line.split(':').collect::<Vec<_>>());
    fields
        .map(|fields| (fields[1].chars().next().unwrap_or(' '), fields[10][..2].to_owned()))
        .collect()
}

#[test]
fn gnupg_takes_generated_certificates_without_complaint() {
    let gpg = Gpg::new().unwrap();
    let mut octets = Vec::new();
    generate::write(&mut octets, 1, 0..20).unwrap();
    let said = gpg.import(&octets).unwrap();
    assert!(said.contains("imported: 20"), "{said}");
    assert_eq!(gpg.fingerprints().unwrap().len(), 20);
    let verdicts = verdicts(&gpg);
    assert_eq!(verdicts.len(), 40);
    assert!(verdicts.iter().all(|(verdict, _)| *verdict == '!'), "{verdicts:?}");
}

#[test]
fn gnupg_agrees_with_what_was_built() {
    let gpg = Gpg::new().unwrap();
    let bob = Certificate::v4(1, "bob").user_id("Bob").signing_subkey("sign");
    let alice = Certificate::v4(1, "alice")
        .expires_after(3_000_000_000)
        .user_id("Alice <alice@example.org>")
        .certified_by(bob.primary())
        .user_id("Alice <old@example.org>")
        .revoke_last(Reason::UserIdInvalid)
        .encryption_subkey("encrypt")
        .encryption_subkey("lost")
        .revoke_last(Reason::Compromised);
    let carol = Certificate::v4(1, "carol").user_id("Carol").revoke(Reason::Retired);
    let octets = [alice.to_bytes(), bob.to_bytes(), carol.to_bytes()].concat();
    gpg.import(&octets).unwrap();
    let mut verdicts = verdicts(&gpg);
    verdicts.sort();
    let kinds: Vec<_> = verdicts.iter().map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["10", "13", "13", "13", "13", "18", "18", "18", "20", "28", "30"]
    );
    assert!(verdicts.iter().all(|(verdict, _)| *verdict == '!'), "{verdicts:?}");
    let listing = gpg
        .run(&["--with-colons", "--list-keys", &carol.fingerprint()])
        .unwrap();
    assert!(String::from_utf8_lossy(&listing.stdout).contains("pub:r:"), "revoked");
}

#[test]
fn gnupg_takes_secret_keys_and_bare_revocations() {
    let gpg = Gpg::new().unwrap();
    let dave = Certificate::v4(1, "dave").user_id("Dave").encryption_subkey("encrypt");
    gpg.import(&dave.to_secret_bytes()).unwrap();
    let listing = gpg.run(&["--with-colons", "--list-secret-keys"]).unwrap();
    assert!(String::from_utf8_lossy(&listing.stdout).contains(&dave.fingerprint()));
    gpg.import(&dave.revocation(Reason::Superseded)).unwrap();
    let listing = gpg.run(&["--with-colons", "--list-keys"]).unwrap();
    assert!(String::from_utf8_lossy(&listing.stdout).contains("pub:r:"));
}

#[test]
fn gnupg_accepts_hostile_user_ids_as_valid() {
    let gpg = Gpg::new().unwrap();
    // GnuPG drops an empty user id, and sees a damaged key in nothing else.
    let ids = HOSTILE_USER_IDS.iter().filter(|id| !id.is_empty());
    let hostile = ids.fold(Certificate::v4(1, "mallory"), |certificate, id| certificate.user_id(id));
    gpg.import(&hostile.to_bytes()).unwrap();
    assert!(verdicts(&gpg).iter().all(|(verdict, _)| *verdict == '!'));
}

#[test]
fn sequoia_agrees_on_signatures() {
    let sq = Sq::new().unwrap();
    let good = Certificate::v4(1, "erin").user_id("Erin").signing_subkey("sign");
    let said = sq.inspect(&good.to_bytes()).unwrap();
    assert!(said.contains("Erin") && !said.contains("Invalid"), "{said}");
    let signature = keyrink_testkit::Signature::new(keyrink_testkit::Kind::PositiveCertification).damaged();
    let bad = Certificate::v4(1, "frank").user_id_with("Frank", signature);
    let said = sq.inspect(&bad.to_bytes()).unwrap();
    assert!(said.contains("UserID: Frank") && said.contains("Invalid"), "{said}");
}

#[test]
fn sks_serves_what_it_was_built_from_and_what_is_added() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = folder.path().join("keyring.pgp");
    let mut octets = Vec::new();
    generate::write(&mut octets, 1, 0..100).unwrap();
    std::fs::write(&keyring, &octets).unwrap();
    let options = SksOptions {
        keyrings: vec![keyring],
        recon: true,
        both_filters: true,
        ..SksOptions::default()
    };
    let sks = Sks::start(options).unwrap();
    let mut client = Client::new(sks.http());
    let lookup = |fingerprint: &str| format!("/pks/lookup?op=get&options=mr&search=0x{fingerprint}");
    let known = generate::certificate(1, 99).fingerprint();
    assert_eq!(client.get(&lookup(&known)).unwrap().status, 200);

    let new = Certificate::v4(2, "new")
        .user_id("New <new@example.org>")
        .certified_by(&Key::primary(1, "99"));
    assert_eq!(client.get(&lookup(&new.fingerprint())).unwrap().status, 404);
    assert_eq!(client.add(&new.armored()).unwrap().status, 200);
    let answer = client.get(&lookup(&new.fingerprint())).unwrap();
    assert!(answer.text().contains("BEGIN PGP PUBLIC KEY BLOCK"));

    let gpg = Gpg::new().unwrap();
    gpg.with_keyserver(sks.http(), &["--recv-keys", &known]).unwrap();
    assert_eq!(gpg.fingerprints().unwrap(), [known.as_str()]);
    let sq = Sq::new().unwrap();
    assert!(sq.get(sks.http(), &known).unwrap().starts_with(&[0xC6]));
    sq.send(sks.http(), &Certificate::v4(3, "sent").user_id("Sent").to_bytes())
        .unwrap();
}

#[test]
fn an_empty_sks_starts() {
    let sks = Sks::start(SksOptions {
        recon: true,
        ..SksOptions::default()
    })
    .unwrap();
    let stats = Client::new(sks.http()).get("/pks/lookup?op=stats").unwrap();
    assert_eq!(stats.status, 200);
}

#[test]
fn script_runs_in_chromium_only_when_allowed() {
    const PAGE: &str = "<!doctype html><title>before</title><p class=a>one<p class=a>two &lt;b&gt;\
        <form action=/found><input name=q><button>Go</button></form><script>document.title='after'</script>";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 4096]);
            let length = PAGE.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n");
            let _ = write!(connection, "{head}Connection: close\r\n\r\n{PAGE}");
        }
    });
    for (script, title) in [(Script::On, "after"), (Script::Off, "before")] {
        let mut browser = Chromium::start(script).unwrap();
        browser.open(&url).unwrap();
        assert_eq!(browser.title().unwrap(), title);
        assert_eq!(browser.texts("p.a").unwrap(), ["one", "two <b>"]);
        browser.fill("input", "a b").unwrap();
        browser.click("button").unwrap();
        assert_eq!(browser.url().unwrap(), format!("{url}found?q=a+b"));
        assert!(browser.source().unwrap().contains("<title>"));
        assert!(browser.screenshot().unwrap().starts_with(b"\x89PNG"));
    }
}

#[test]
fn postgres_answers() {
    let server = match Postgres::start() {
        Err(error @ Error::Missing { .. }) => return eprintln!("skipped: {error}"),
        result => result.unwrap(),
    };
    let mut psql = Command::new("psql");
    let output = run(psql.args([&server.url(), "-Atc", "select 6 * 7"]), "postgresql-client").unwrap();
    assert_eq!(output.stdout, b"42\n");
}
