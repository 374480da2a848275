//! Databases that are spoken to by TLS: only one whose certificate is verified, for its own name, is believed.

use std::path::Path;
use std::process::Command;

use keyrink_testkit::peers::run;

use super::*;

fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    run(command.current_dir(folder).args(arguments.split(' ')), "openssl").unwrap();
}

/// An authority, and a certificate that it made for a name.
fn authority(folder: &Path, name: &str, subject: &str) {
    openssl(
        folder,
        &format!("req -x509 -newkey ed25519 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"),
    );
    openssl(
        folder,
        &format!("req -newkey ed25519 -nodes -subj /CN=db -keyout {name}-db.key -out {name}-db.csr"),
    );
    std::fs::write(folder.join("names"), format!("subjectAltName={subject}")).unwrap();
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}-db.csr -CA {name}.pem -CAkey {name}.key -days 2 -CAcreateserial -extfile names -out {name}-db.pem"
        ),
    );
}

/// A database that shows the certificate of an authority.
fn server(folder: &Path, name: &str) -> Postgres {
    let key = folder.join(format!("{name}-db.key"));
    if run(Command::new("chown").arg("postgres").arg(&key), "coreutils").is_err() {
        println!("not root: the database runs as this user");
    }
    let certificate = folder.join(format!("{name}-db.pem"));
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", certificate.display()),
        format!("ssl_key_file={}", key.display()),
    ];
    Postgres::start_with(&settings.each_ref().map(String::as_str)).unwrap()
}

#[test]
fn only_the_right_certificate_is_believed() {
    let folder = tempfile::Builder::new().prefix("tls-").tempdir_in("/tmp").unwrap();
    run(Command::new("chmod").arg("755").arg(folder.path()), "coreutils").unwrap();
    authority(folder.path(), "ours", "IP:127.0.0.1");
    authority(folder.path(), "other", "DNS:db.example.org");
    let (ours, other, plain) = (
        server(folder.path(), "ours"),
        server(folder.path(), "other"),
        Server::start(),
    );
    let try_with =
        |database: &Postgres, query: &str| PostgresStore::open(&Options::new(&format!("{}?{query}", database.url())));
    let roots = |name: &str| format!("sslrootcert={}/{name}.pem", folder.path().display());

    let store = try_with(&ours, &format!("sslmode=verify-full&{}", roots("ours"))).unwrap();
    crate::conformance::toy::put(&store, 1, "brown fox");
    let encrypted =
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'keyrink'";
    assert_eq!(ours.ask("postgres", encrypted).unwrap(), "t");
    drop(store);
    // An authority that is named is asked for also on this machine.
    try_with(&ours, &roots("ours")).unwrap();

    let unknown = unavailable(try_with(&ours, "sslmode=verify-full"));
    assert!(unknown.contains("certificate"), "{unknown}");
    for (database, query) in [
        (&ours, format!("sslmode=verify-full&{}", roots("other"))),
        (&other, format!("sslmode=verify-full&{}", roots("other"))),
        (&other, format!("sslmode=require&{}", roots("other"))),
    ] {
        let reason = unavailable(try_with(database, &query));
        assert!(reason.contains("certificate"), "{query}: {reason}");
    }
    let reason = unavailable(try_with(
        &plain.postgres,
        &format!("sslmode=verify-full&{}", roots("ours")),
    ));
    assert!(reason.contains("TLS"), "{reason}");
    let missing = unavailable(try_with(&ours, "sslrootcert=/nowhere"));
    assert!(missing.contains("/nowhere"), "{missing}");
}
