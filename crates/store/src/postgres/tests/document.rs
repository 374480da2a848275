//! The page about the schema, drawn from the migrations.

use super::super::schema::MIGRATIONS;
use super::super::sql;

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
    let page = format!("{HEAD}{}{}{QUERIES}", scripts.collect::<String>(), version_table());
    assert!(
        !page.contains(",|") && !page.contains(", |"),
        "a comma that belongs to SQL"
    );
    assert_eq!(page.matches("\n## `").count(), page.matches("\nPrimary key: ").count());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, page, "run this test with UPDATE_DOCS=1");
}

/// Tables with what is said about them and their columns.
fn page(script: &str) -> String {
    let (mut page, mut said, mut inline) = (String::new(), Vec::new(), None);
    for line in script.lines() {
        if let Some(remark) = line.strip_prefix("-- ") {
            said.push(remark);
        } else if let Some(name) = line.strip_prefix("CREATE TABLE ") {
            let name = name.trim_end_matches(" (");
            page.push_str(&table(name, &said.join(" ")));
        } else if let Some(key) = line.trim().strip_prefix("PRIMARY KEY ") {
            page.push_str(&primary(key.trim_matches(['(', ')'])));
        } else if let Some(index) = line.strip_prefix("CREATE INDEX ") {
            page.push_str(&format!("\nIndex: {}.\n", index.trim_end_matches(';')));
        } else if let Some(definition) = line.strip_prefix("    ") {
            let (definition, remark) = definition.split_once(" -- ").unwrap_or((definition, ""));
            let definition = definition.trim().trim_end_matches(',');
            page.push_str(&column(definition, remark));
            inline = definition
                .ends_with("PRIMARY KEY")
                .then(|| name_of(definition))
                .or(inline);
        } else if line == ");" {
            page.extend(inline.take().map(primary));
        } else {
            said.clear();
        }
    }
    page
}

fn table(name: &str, said: &str) -> String {
    format!("\n## `{name}`\n\n{said}\n\n| column | type | |\n|---|---|---|\n")
}

fn primary(columns: &str) -> String {
    format!("\nPrimary key: {columns}.\n")
}

/// The row for a column; what may be null says so.
fn column(definition: &str, remark: &str) -> String {
    let kind = definition.split_whitespace().nth(1).unwrap_or_default();
    let null = if definition.contains("NOT NULL") {
        ""
    } else {
        ", may be null"
    };
    format!("| `{}` | {kind}{null} | {remark} |\n", name_of(definition))
}

fn name_of(definition: &str) -> &str {
    definition.split_whitespace().next().unwrap_or_default()
}

/// The table that says how far the migrations are, which is there before them.
fn version_table() -> String {
    let made = sql::NEW_META.text();
    let (name, columns) = made.trim_start_matches("CREATE TABLE ").split_once(" (").unwrap();
    let columns: Vec<_> = columns.trim_end_matches(')').split(", ").collect();
    let rows = columns.iter().zip([
        "`schema` or `oldest`",
        "the version of the schema; the oldest that a program must know",
    ]);
    let rows: String = rows.map(|(definition, remark)| column(definition, remark)).collect();
    let said = "How far the migrations are. Locked while they run.";
    table(name, said) + &rows + &primary(name_of(columns[0]))
}
