//! The page about the schema, drawn from the migrations.

use super::super::schema::MIGRATIONS;

/// What stands before the tables, and what behind them.
const HEAD: &str = "# The tables in PostgreSQL\n\nDrawn from the migrations in `crates/store/src/postgres/migrations`. Times are Unix \
seconds. Octets are shown as `\\x…`; `encode(id, 'hex')` gives a fingerprint as people write it.\n";
const QUERIES: &str = "\n## Queries to start from\n
```sql
-- Certificates first stored here, month by month.
SELECT date_trunc('month', to_timestamp(created)) AS month, count(*) FROM record GROUP BY 1 ORDER BY 1;

-- The largest certificates.
SELECT encode(id, 'hex'), length(data) FROM record ORDER BY length(data) DESC LIMIT 20;

-- Certificates by the version of their key, going by the length of the fingerprint.
SELECT CASE length(id) WHEN 20 THEN '4' WHEN 32 THEN '5 or 6' ELSE 'older' END AS version, count(*) FROM record GROUP BY 1;

-- Primary keys by algorithm (RFC 9580, section 9.1) and year.
SELECT algorithm, bits, date_part('year', to_timestamp(created)) AS year, count(*) FROM component WHERE kind = 1
GROUP BY algorithm, bits, year ORDER BY year, count(*) DESC;

-- Certificates that expire within 30 days, with their addresses.
SELECT encode(key.id, 'hex'), to_timestamp(key.expires), name.text FROM component AS key
JOIN component AS name ON name.id = key.id AND name.realm = key.realm AND name.kind = 3
WHERE key.kind = 1 AND key.revoked IS NULL
AND key.expires BETWEEN extract(epoch FROM now()) AND extract(epoch FROM now() + interval '30 days') ORDER BY key.expires;

-- Revoked keys by year of their revocation; in 1970 stand those that were taken back for all time.
SELECT kind, date_part('year', to_timestamp(revoked)) AS year, count(*) FROM component WHERE kind < 3 AND revoked IS NOT NULL
GROUP BY kind, year ORDER BY year, kind;

-- What changed in the last hour.
SELECT added, count(*) FROM change WHERE time > extract(epoch FROM now()) - 3600 GROUP BY added;

-- Who calls the partners.
SELECT key, convert_from(value, 'UTF8') FROM note WHERE key LIKE 'lease %';

-- What partners offer and do not deliver.
SELECT source, count(*), max(times) FROM refusal GROUP BY source;
```\n";

#[test]
fn the_page_about_the_schema_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/postgresql-schema.md");
    let scripts = MIGRATIONS.iter().map(|migration| page(migration.script));
    let page = format!("{HEAD}{}{QUERIES}", scripts.collect::<String>());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, page, "run this test with UPDATE_DOCS=1");
}

/// Tables with what is said about them and their columns.
fn page(script: &str) -> String {
    let (mut page, mut said) = (String::new(), Vec::new());
    for line in script.lines() {
        if let Some(remark) = line.strip_prefix("-- ") {
            said.push(remark);
        } else if let Some(name) = line.strip_prefix("CREATE TABLE ") {
            let name = name.trim_end_matches(" (");
            page.push_str(&format!(
                "\n## `{name}`\n\n{}\n\n| column | type | |\n|---|---|---|\n",
                said.join(" ")
            ));
        } else if let Some(key) = line.trim().strip_prefix("PRIMARY KEY ") {
            page.push_str(&format!("\nPrimary key: {}.\n", key.trim_matches(['(', ')'])));
        } else if let Some(column) = line.strip_prefix("    ") {
            let (column, remark) = column.split_once(" -- ").unwrap_or((column, ""));
            let mut words = column.trim_end_matches(',').split_whitespace();
            let (name, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            page.push_str(&format!("| `{name}` | {kind} | {remark} |\n"));
        } else {
            said.clear();
        }
    }
    page
}
