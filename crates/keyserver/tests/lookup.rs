//! Every answer of the read side, as a client gets it, over a small store.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, header};
use common::{On, on_store};
use http_body_util::BodyExt;
use keyrink::config::Config;
use keyrink::http::answer::Answers;
use keyrink::http::room::Room;
use keyrink::http::web::{Web, routes};
use keyrink::ingest::Ingest;
use keyrink_store::Store;
use keyrink_testkit::{Certificate, EPOCH, HOSTILE_USER_IDS, Key, Kind, Reason, Signature};
use std::sync::Arc;

const YEAR: u32 = 365 * 86_400;

/// Two years after the keys were made.
fn now() -> u64 {
    u64::from(EPOCH + 2 * YEAR)
}

fn certificates() -> Vec<Certificate> {
    let alice = Certificate::v4(1, "alice")
        .user_id("Alice Example <alice@example.org>")
        .certified_by(&Key::primary(1, "bob"))
        .certified_by(&Key::primary(1, "carol"))
        .user_id("Alice Maria <maria@example.net>")
        .user_id("Alice <old@example.org>")
        .revoke_last(Reason::UserIdInvalid)
        .encryption_subkey("alice/encrypt")
        .signing_subkey("alice/sign")
        .revoke_last(Reason::Retired);
    let expiring = Signature::new(Kind::PositiveCertification).expires_after(YEAR / 2);
    let mut all = vec![
        alice,
        Certificate::v4(1, "bob")
            .user_id_with("Bob <bob@example.org>", expiring)
            .expires_after(5 * YEAR)
            .user_id("Bob, 100%: <bob@example.com>"),
        Certificate::v4(1, "expired")
            .expires_after(YEAR)
            .user_id("Exp <expired@example.org>"),
        Certificate::v4(1, "lost")
            .user_id("Lost <lost@example.org>")
            .revoke(Reason::Compromised),
        Certificate::v4(1, "retired")
            .user_id("Retired <retired@example.org>")
            .revoke(Reason::Retired),
        Certificate::v4(1, "gone")
            .user_id("Gone <gone@example.org>")
            .revoke_last(Reason::UserIdInvalid),
        Certificate::v6(1, "six").user_id("Six <six@example.org>"),
        Certificate::v4(1, "both").user_id("Both <both@example.org>"),
        Certificate::v6(1, "both").user_id("Both <both@example.org>"),
        Certificate::v4(1, "bare").bare_user_id("Bare <bare@example.org>"),
        Certificate::v4(1, "nameless")
            .encryption_subkey("nameless/encrypt")
            .direct(Signature::new(Kind::DirectKey)),
    ];
    all.extend((0..5).map(|number| Certificate::v4(1, &format!("many {number}")).user_id("Many <many@example.org>")));
    let hostile = HOSTILE_USER_IDS.iter().filter(|user_id| !user_id.is_empty());
    all.push(hostile.fold(Certificate::v4(1, "hostile"), |certificate, user_id| {
        certificate.user_id(user_id)
    }));
    all
}

fn fingerprint(label: &str) -> String {
    Certificate::v4(1, label).fingerprint()
}

struct Site {
    answers: Answers,
    store: Arc<dyn Store>,
}

impl Site {
    fn new(words: bool, now: fn() -> u64) -> On<Self> {
        on_store(|store| Self::on(store, words, now))
    }

    fn on(store: Arc<dyn Store>, words: bool, now: fn() -> u64) -> Self {
        let mut config = Config::default();
        config.search.words = words;
        config.http.hostname = "keys.example.org".into();
        config.http.contact = Some("operator@keys.example.org".into());
        let ingest = Ingest::new(&config, Arc::clone(&store));
        for certificate in certificates() {
            ingest.submit(&certificate.to_bytes()).unwrap();
        }
        let web = Web {
            results_max: 3,
            now,
            ..Web::new(&config, Arc::clone(&store), Arc::new(Room::new(64 << 20, 0)))
        };
        let answers = Answers::new(routes(Arc::new(web)), &config);
        Self { answers, store }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.answers.answer(request, ([127, 0, 0, 1], 1).into()).await;
        let (parts, body) = response.into_parts();
        Answer {
            parts,
            body: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[]).await
    }
}

struct Answer {
    parts: axum::http::response::Parts,
    body: Vec<u8>,
}

impl Answer {
    fn status(&self) -> u16 {
        self.parts.status.as_u16()
    }

    fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.parts.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// As it goes over the wire, pages broken before each tag.
    fn shown(&self) -> String {
        let mut out = format!("{}\n", self.parts.status);
        for (name, value) in &self.parts.headers {
            out += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
        }
        let is_page = self
            .header(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.starts_with("text/html"));
        let body = match std::str::from_utf8(&self.body) {
            Ok(page) if is_page => page.replace('<', "\n<").replace("\n</", "</").trim_start().to_owned(),
            Ok(text) => text.to_owned(),
            Err(_) => format!("({} octets)", self.body.len()),
        };
        format!("{out}\n{body}")
    }
}

/// Name of the snapshot, path, `Accept`.
type Asked = (&'static str, String, &'static str);

fn requests() -> Vec<Asked> {
    [for_programs(), for_people(), mistaken()].concat()
}

fn lookup(rest: &str) -> String {
    format!("/pks/lookup?{rest}")
}

fn for_programs() -> Vec<Asked> {
    let alice = fingerprint("alice");
    vec![
        ("start", "/".into(), BROWSER),
        ("stats_page", "/pks/stats".into(), BROWSER),
        ("stats_json", "/pks/stats?options=json".into(), ""),
        ("stats_operation", lookup("op=stats&options=json"), ""),
        ("health", "/pks/health".into(), ""),
        ("ready", "/readyz".into(), ""),
        ("get", lookup(&format!("op=get&options=mr&search=0x{alice}")), ""),
        ("get_binary", lookup(&format!("op=get&options=bin&search={alice}")), ""),
        ("get_nothing", lookup("op=get&search=0x0123456789ABCDEF"), ""),
        ("get_nothing_page", lookup("op=get&search=nobody@example.org"), BROWSER),
        ("get_version_6", lookup("op=get&search=six@example.org"), ""),
        (
            "get_unpresentable",
            lookup(&format!("op=get&search={}", fingerprint("bare"))),
            "",
        ),
        (
            "hget_nothing",
            lookup("op=hget&search=00112233445566778899AABBCCDDEEFF"),
            "",
        ),
        ("hget_no_digest", lookup("op=hget&search=alice"), ""),
        ("index_mr", lookup("op=index&options=mr&search=alice@example.org"), ""),
        (
            "index_mr_escaped",
            lookup("op=index&options=mr&search=bob@example.org"),
            "",
        ),
        (
            "index_mr_hostile",
            lookup("op=index&options=mr&search=quote@example.org"),
            "",
        ),
        (
            "index_mr_expired",
            lookup("op=index&options=mr&search=expired@example.org"),
            "",
        ),
        (
            "index_mr_revoked",
            lookup(&format!("op=index&options=mr&search={}", fingerprint("lost"))),
            "",
        ),
        (
            "index_mr_nameless",
            lookup(&format!("op=index&options=mr&search={}", fingerprint("nameless"))),
            "",
        ),
        (
            "index_mr_version_4_of_both",
            lookup("op=index&options=mr&search=both@example.org"),
            "",
        ),
        (
            "index_mr_first_page",
            lookup("op=index&options=mr&search=many@example.org"),
            "",
        ),
    ]
}

fn for_people() -> Vec<Asked> {
    let alice = fingerprint("alice");
    vec![
        (
            "index_json",
            lookup("op=index&options=json&hash=on&search=alice@example.org"),
            "",
        ),
        (
            "index_json_first_page",
            lookup("op=index&options=json&search=many@example.org"),
            "",
        ),
        ("index_json_nothing", lookup("op=index&options=json&search=x"), ""),
        (
            "vindex_json",
            lookup("op=vindex&options=json&search=bob@example.com"),
            "",
        ),
        (
            "index_page_user_ids_revoked",
            lookup("op=index&search=gone@example.org"),
            BROWSER,
        ),
        (
            "vindex_page_user_ids_revoked",
            lookup("op=vindex&search=gone@example.org"),
            BROWSER,
        ),
        (
            "index_page",
            lookup("op=index&hash=on&search=alice@example.org"),
            BROWSER,
        ),
        (
            "index_page_of_both",
            lookup("op=index&search=both@example.org"),
            BROWSER,
        ),
        ("index_page_first", lookup("op=index&search=many@example.org"), BROWSER),
        (
            "index_page_hostile",
            lookup("op=index&search=quote@example.org"),
            BROWSER,
        ),
        (
            "index_page_nothing",
            lookup("op=index&search=%3Cscript%3Ealert(1)%3C/script%3E%E2%80%AE"),
            BROWSER,
        ),
        ("vindex_page", lookup(&format!("op=vindex&search=0x{alice}")), BROWSER),
        (
            "vindex_page_expiring",
            lookup("op=vindex&search=bob@example.com"),
            BROWSER,
        ),
        (
            "vindex_page_compromised",
            lookup(&format!("op=vindex&search={}", fingerprint("lost"))),
            BROWSER,
        ),
        (
            "vindex_page_retired",
            lookup("op=vindex&search=retired@example.org"),
            BROWSER,
        ),
    ]
}

fn mistaken() -> Vec<Asked> {
    vec![
        ("search_missing", lookup("op=get"), ""),
        ("search_empty_page", lookup("op=index&search="), BROWSER),
        ("search_short_key_id", lookup("op=get&options=mr&search=0x01234567"), ""),
        (
            "search_wrong_digits",
            lookup("op=get&options=mr&search=0x0123456789"),
            "",
        ),
        ("search_words_off", lookup("op=index&options=mr&search=alice"), ""),
        (
            "search_long",
            lookup(&format!("op=index&options=mr&search={}", "x".repeat(1025))),
            "",
        ),
        ("operation_missing", lookup("search=alice"), ""),
        ("operation_unknown", lookup("op=x-delete&search=alice&options=json"), ""),
        ("after_forged", lookup("op=get&search=many@example.org&after=zz"), ""),
        ("style", "/assets/style.css".into(), ""),
        ("nowhere", "/nowhere".into(), ""),
    ]
}

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[tokio::test]
async fn every_answer_is_as_recorded() {
    let site = Site::new(false, now);
    for (name, path, accept) in requests() {
        let accept: &[_] = if accept.is_empty() { &[] } else { &[("accept", accept)] };
        let answer = site.ask(Method::GET, &path, accept).await;
        let shown = match name {
            "style" => answer.shown().split_inclusive("\n\n").next().unwrap().to_owned(),
            _ => answer.shown(),
        };
        let shown = shown.replace(concat!("v=", env!("CARGO_PKG_VERSION")), "v=VERSION");
        insta::with_settings!({ description => path.clone(), omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name, shown.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
        });
        let head = site.ask(Method::HEAD, &path, accept).await;
        assert_eq!((head.status(), head.body.len()), (answer.status(), 0), "{path}");
    }
}

#[tokio::test]
async fn a_certificate_is_found_in_every_way_it_is_asked_for() {
    let site = Site::new(false, now);
    let digits = fingerprint("alice");
    let spaced: String = digits
        .as_bytes()
        .chunks(4)
        .map(|group| format!("{}+", std::str::from_utf8(group).unwrap()))
        .collect();
    let subkey = Key::primary(1, "alice").subkey("alice/sign", keyrink_testkit::Algorithm::EdDsaLegacy);
    let subkey_digits = keyrink_testkit::hex(&subkey.fingerprint());
    let ways = [
        format!("0x{digits}"),
        format!("0X{}", digits.to_lowercase()),
        format!("0x{}", &digits[24..]),
        digits.clone(),
        spaced,
        format!("openpgp4fpr:{digits}"),
        format!("0x{subkey_digits}"),
        format!("0x{}", &subkey_digits[24..]),
        "alice@example.org".into(),
        "ALICE@Example.org".into(),
        "%3Calice@example.org%3E".into(),
        "maria@example.net".into(),
        "Alice+Example+%3Calice@example.org%3E".into(),
        "=Alice%20Example%20%3Calice@example.org%3E".into(),
        "alice%20EXAMPLE%20%3Calice@example.org%3E&exact=on".into(),
    ];
    for way in ways {
        for operation in ["index", "vindex"] {
            let answer = site
                .get(&format!("/pks/lookup?op={operation}&options=mr&search={way}"))
                .await;
            assert!(
                answer.text().starts_with(&format!("info:1:1\npub:{digits}:22:256:")),
                "{way}: {}",
                answer.text()
            );
            assert_eq!(answer.header("x-hkp-results-count"), Some("1"));
        }
        let answer = site.get(&format!("/pks/lookup?op=get&options=mr&search={way}")).await;
        assert_eq!(
            (answer.status(), answer.header("content-type")),
            (200, Some("application/pgp-keys")),
            "{way}"
        );
        assert!(answer.text().starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"));
        assert!(answer.text().ends_with("\n-----END PGP PUBLIC KEY BLOCK-----\n"));
    }
}

#[tokio::test]
async fn a_digest_of_sks_finds_its_certificate() {
    let site = Site::new(false, now);
    let index = site
        .get("/pks/lookup?op=index&options=json&hash=on&search=alice@example.org")
        .await;
    let index: serde_json::Value = serde_json::from_slice(&index.body).unwrap();
    let digest = index["certificates"][0]["md5"].as_str().unwrap();
    let by_digest = site.get(&format!("/pks/lookup?op=hget&search={digest}")).await;
    let by_address = site.get("/pks/lookup?op=get&search=alice@example.org").await;
    assert_eq!((by_digest.status(), by_digest.text()), (200, by_address.text()));
}

#[tokio::test]
async fn armored_and_binary_answers_hold_the_same_packets() {
    let site = Site::new(false, now);
    let armored = site.get("/pks/lookup?op=get&search=alice@example.org").await;
    let binary = site
        .get("/pks/lookup?op=get&options=mr,bin&search=alice@example.org")
        .await;
    assert_eq!(binary.header("content-type"), Some("application/pgp"));
    assert_eq!(keyrink_testkit::dearmor(armored.text()), binary.body);
    let both = site.get("/pks/lookup?op=get&options=bin&search=both@example.org").await;
    assert_eq!(
        both.header("x-hkp-results-count"),
        Some("2"),
        "version 6 is part of binary answers"
    );
    assert!(
        site.get("/pks/lookup?op=get&options=bin&search=six@example.org")
            .await
            .status()
            == 200
    );
}

#[tokio::test]
async fn pages_lead_to_every_result_once() {
    let site = Site::new(false, now);
    for operation in [
        "index&options=mr",
        "index",
        "index&options=json",
        "get",
        "get&options=bin",
    ] {
        let mut path = format!("/pks/lookup?op={operation}&search=many@example.org");
        let mut found = 0;
        for page in 1..=2 {
            let answer = site.get(&path).await;
            found += answer.header("x-hkp-results-count").unwrap().parse::<usize>().unwrap();
            match answer.header("link") {
                Some(link) => {
                    let (address, rel) = link.strip_prefix('<').unwrap().split_once(">; ").unwrap();
                    assert_eq!((page, rel), (1, "rel=\"next\""));
                    path = address.to_owned();
                }
                None => assert_eq!(page, 2, "{operation}"),
            }
        }
        assert_eq!(found, 5, "{operation}");
    }
}

#[tokio::test]
async fn words_are_found_where_they_are_switched_on() {
    let site = Site::new(true, now);
    let counted = async |search: &str| {
        let answer = site
            .get(&format!("/pks/lookup?op=index&options=mr&search={search}"))
            .await;
        (
            answer.status(),
            answer.header("x-hkp-results-count").unwrap_or("0").to_owned(),
        )
    };
    assert_eq!(counted("alice").await, (200, "1".into()));
    assert_eq!(counted("example+ALICE+maria").await, (200, "1".into()));
    assert_eq!(counted("alice+bob").await, (404, "0".into()));
    assert_eq!(counted("example").await, (200, "3".into()));
    assert_eq!(counted("alice&exact=on").await, (404, "0".into()));
    assert_eq!(counted("=alice").await, (404, "0".into()));
}

#[tokio::test]
async fn caches_learn_when_a_certificate_has_changed() {
    let site = Site::new(false, || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs()
            + 60
    });
    let path = "/pks/lookup?op=get&search=bob@example.org";
    let first = site.get(path).await;
    let tag = first.header("etag").unwrap();
    assert_eq!(first.header("cache-control"), Some("no-cache"));
    let again = site.ask(Method::GET, path, &[("if-none-match", tag)]).await;
    assert_eq!(
        (again.status(), again.body.len(), again.header("etag")),
        (304, 0, Some(tag))
    );
    let binary = site
        .ask(Method::GET, &format!("{path}&options=bin"), &[("if-none-match", tag)])
        .await;
    assert_eq!(binary.status(), 200);
    let revocation = Certificate::v4(1, "bob").revocation(Reason::Retired);
    Ingest::new(&Config::default(), Arc::clone(&site.store))
        .submit(&revocation)
        .unwrap();
    let changed = site.ask(Method::GET, path, &[("if-none-match", tag)]).await;
    assert_eq!(changed.status(), 200);
}

#[tokio::test]
async fn hostile_user_ids_stay_inert() {
    let site = Site::new(false, now);
    for operation in ["index", "vindex"] {
        let page = site
            .get(&format!("/pks/lookup?op={operation}&search=quote@example.org"))
            .await;
        let text = page.text().to_lowercase();
        for harmful in [
            "<script",
            "<img src=x",
            "<svg",
            "onload=document",
            "\u{202E}",
            "\u{200B}",
            "\u{FEFF}",
            "\u{1B}",
        ] {
            let escaped = harmful == "onload=document" && !text.contains(&format!("<svg {harmful}"));
            assert!(escaped || !text.contains(harmful), "{operation}: {harmful:?}");
        }
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("script-src"));
    }
    let index = site
        .get("/pks/lookup?op=index&options=mr&search=quote@example.org")
        .await;
    let lines: Vec<&str> = index.text().lines().collect();
    assert!(lines[0] == "info:1:1" && lines[1].starts_with("pub:"));
    assert!(
        lines[2..]
            .iter()
            .all(|line| line.starts_with("uid:") && line.split(':').count() == 5),
        "{lines:#?}"
    );
    let lines_expected = HOSTILE_USER_IDS.iter().filter(|user_id| !user_id.is_empty()).count();
    assert_eq!(index.text().split_inclusive('\n').count(), 2 + lines_expected);
}
