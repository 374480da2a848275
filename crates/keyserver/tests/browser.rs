//! The pages in a real browser that runs no script: what people see, type and click.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::fs;

use common::Node;
use keyrink_testkit::peers::{Chromium, Script};
use keyrink_testkit::{Certificate, HOSTILE_USER_IDS, Kind, Reason, Signature, generate};

#[test]
fn people_submit_search_and_look_at_a_key() {
    let node = Node::new();
    let server = node.serve();
    let start = format!("http://{}/", server.http());
    let mut browser = Chromium::start(Script::Off).unwrap();
    browser.open(&start).unwrap();
    picture(&mut browser, "start");
    assert!(browser.title().unwrap().contains("Keyrink"));

    let alice = alice();
    browser.fill("textarea", &alice.armored()).unwrap();
    browser.click("form[action='/pks/add'] button").unwrap();
    picture(&mut browser, "submitted");
    let page = browser.texts("main").unwrap().concat();
    assert!(page.contains("Stored") && page.contains(&alice.fingerprint()), "{page}");
    assert!(page.contains("Parts that are not shown"), "{page}");

    browser.open(&start).unwrap();
    browser.fill("input[type=search]", "alice@example.org").unwrap();
    browser.click("form[role=search] button").unwrap();
    picture(&mut browser, "list");
    let found = browser.texts("article h2 a").unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("Alice Ærøskøbing <alice@example.org>"), "{found:?}");

    browser.click("article h2 a").unwrap();
    picture(&mut browser, "certificate");
    let page = browser.texts("main").unwrap().concat();
    for part in ["User ids", "Subkeys", "revoked", "old@example.org"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let digits: String = browser.texts("p.fingerprint").unwrap()[0].split_whitespace().collect();
    assert_eq!(digits, alice.fingerprint());

    browser.fill("header input[type=search]", "x").unwrap();
    browser.click("header form button").unwrap();
    picture(&mut browser, "nothing");
    assert!(browser.texts("main h1").unwrap()[0].contains("Nothing found"));
    browser.open(&format!("{start}pks/stats")).unwrap();
    picture(&mut browser, "statistics");
}

#[test]
fn a_wrong_submission_is_explained() {
    let node = Node::new();
    let server = node.serve();
    let mut browser = Chromium::start(Script::Off).unwrap();
    browser.open(&format!("http://{}/", server.http())).unwrap();
    let button = "form[action='/pks/add'] button";
    browser.click(button).unwrap();
    let page = browser.texts("main").unwrap().concat();
    assert!(page.contains("no field") || page.contains("empty"), "{page}");
    browser.open(&format!("http://{}/", server.http())).unwrap();
    browser.fill("textarea", "my key, please").unwrap();
    browser.click(button).unwrap();
    picture(&mut browser, "refused");
    let page = browser.texts("main").unwrap().concat();
    assert!(page.contains("no armored OpenPGP block was found"), "{page}");
    assert_eq!(browser.texts("header form[role='search']").unwrap().len(), 1);
}

#[test]
fn hostile_user_ids_stay_inert() {
    let mallory = HOSTILE_USER_IDS
        .iter()
        .fold(Certificate::v4(1, "mallory"), |mallory, id| mallory.user_id(id));
    let node = Node::with(&[&mallory.to_bytes()]);
    let server = node.serve();
    // Script may run here, so that whatever gets through would show.
    for script in [Script::On, Script::Off] {
        let mut browser = Chromium::start(script).unwrap();
        for op in ["index", "vindex"] {
            let page = format!(
                "http://{}/pks/lookup?op={op}&search=0x{}",
                server.http(),
                mallory.fingerprint()
            );
            browser.open(&page).unwrap();
            picture(&mut browser, &format!("hostile-{op}"));
            is_inert(&mut browser);
            let text = browser.texts("main").unwrap().concat();
            for seen in [
                "<script>document.title='owned'</script>",
                "{{7*7}}",
                "&lt;b&gt;",
                "U+202E",
                "U+0007",
                "U+200B",
            ] {
                assert!(text.contains(seen), "{seen}: {text}");
            }
            assert!(!text.contains(['\u{202E}', '\u{7}', '\u{1B}', '\u{200B}']), "{text}");
        }
        // What is searched for stands in the page too.
        for search in [
            "%22%3E%3Cscript%3Edocument.title%3D%27owned%27%3C/script%3E",
            "%27%22%3E%3Csvg%20onload%3Ddocument.title%3D1%3E",
        ] {
            for op in ["index", "vindex", "get", search] {
                let page = format!("http://{}/pks/lookup?op={op}&search={search}", server.http());
                browser.open(&page).unwrap();
                is_inert(&mut browser);
            }
        }
    }
}

/// Nothing from outside has become markup.
fn is_inert(browser: &mut Chromium) {
    let title = browser.title().unwrap();
    assert!(title != "owned" && title != "1", "{title}");
    for selector in [
        "main script",
        "main img",
        "main svg",
        "main [onload]",
        "main [onerror]",
        "main [onmouseover]",
        "a[href^=javascript]",
    ] {
        assert_eq!(
            browser.texts(selector).unwrap().len(),
            0,
            "{selector}: {}",
            browser.source().unwrap()
        );
    }
}

fn alice() -> Certificate {
    let bob = Certificate::v4(2, "bob");
    Certificate::v4(2, "alice")
        .user_id("Alice Ærøskøbing <alice@example.org>")
        .certified_by(bob.primary())
        .certified_by(generate::certificate(2, 0).primary())
        .user_id("Alice <old@example.org>")
        .revoke_last(Reason::UserIdInvalid)
        .user_id_with("Somebody else", Signature::new(Kind::PositiveCertification).damaged())
        .encryption_subkey("alice/encrypt")
        .signing_subkey("alice/sign")
}

/// Keeps a picture for people who want to look at the pages.
fn picture(browser: &mut Chromium, name: &str) {
    if let Some(folder) = std::env::var_os("PICTURES_FOLDER") {
        let path = std::path::PathBuf::from(folder).join(format!("{name}.png"));
        fs::write(path, browser.screenshot().unwrap()).unwrap();
    }
}
