//! Every statement the engine can send is parsed and held against a list of what databases that speak PostgreSQL's protocol
//! understand. What is not on the list is refused, whether or not it would work on PostgreSQL.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    AlterTableOperation, Expr, FunctionArguments, ObjectName, Statement, TableFactor, Visit, Visitor,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::super::sql::ALL;
use super::schema::TWO;

/// Functions that may be called.
const FUNCTIONS: &[&str] = &[
    "array_remove",
    "cardinality",
    "coalesce",
    "count",
    "current_schema",
    "length",
    "row_number",
    "sum",
    "unnest",
    "any",
];

/// Settings that may be asked for; a database that does not know one does without.
const SETTINGS: &[&str] = &[
    "default_transaction_read_only",
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_seqscan",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "synchronous_commit",
];

/// Types of columns and casts.
const TYPES: &[&str] = &["bigint", "boolean", "bytea", "integer", "smallint", "text"];

/// Columns of few values: rows of a table whose key led with one would all be in one place.
const CROWDED: &[&str] = &["realm", "dataset", "kind", "place", "policy", "n", "time", "source"];

/// What a statement may not say, in whatever place.
const WORDS: &[&str] = &[
    "advisory",
    "serial",
    "nextval",
    "generated",
    "trigger",
    "references",
    "temp",
    "temporary",
    "listen",
    "notify",
    "unlisten",
    "tsvector",
    "trigram",
    "skip",
    "nowait",
    "ctid",
    "xmin",
    "xmax",
    "merge",
    "lateral",
    "recursive",
    "materialized",
    "inherits",
    "partition",
    "tablespace",
    "extension",
    "function",
    "procedure",
    "do",
    "using gin",
    "using gist",
    "using hash",
    "using brin",
    "concurrently",
    "on commit",
    "offset",
];

#[test]
fn every_statement_is_widely_understood() {
    let mut faults = Vec::new();
    for (name, sql) in ALL {
        faults.extend(wrong(sql.text()).into_iter().map(|fault| format!("{name}: {fault}")));
    }
    // All that there are, and a made-up one after them.
    for (number, migration) in TWO.iter().enumerate() {
        let found = wrong(migration.script).into_iter();
        faults.extend(found.map(|fault| format!("migration {}: {fault}", number + 1)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(ALL.len() > 40, "where are the statements?");
}

#[test]
fn what_is_not_widely_understood_is_refused() {
    for (sql, reason) in [
        ("SELECT pg_advisory_xact_lock(1)", "pg_advisory_xact_lock"),
        ("LISTEN changes", "listen"),
        ("SELECT n FROM change ORDER BY n FOR UPDATE SKIP LOCKED", "skip"),
        ("CREATE TABLE t (n bigserial PRIMARY KEY)", "bigserial"),
        ("CREATE TABLE t (n jsonb)", "jsonb"),
        ("CREATE TABLE t (n bigint)", "primary key"),
        (
            "CREATE TABLE t (realm smallint, id bytea, PRIMARY KEY (realm, id))",
            "leads with realm",
        ),
        ("ALTER TABLE t RENAME COLUMN a TO b", "RENAME"),
        ("ALTER TABLE t ADD COLUMN a jsonb", "jsonb"),
        (
            "CREATE TABLE t (n bigint PRIMARY KEY, m bigint REFERENCES u (m))",
            "references",
        ),
        ("CREATE INDEX i ON t USING gin (n)", "gin"),
        ("CREATE TEMP TABLE t (n bigint PRIMARY KEY)", "temp"),
        ("TRUNCATE record", "TRUNCATE"),
        ("SET search_path = x", "search_path"),
        ("SELECT 'a' <-> 'b'", "operator"),
        ("SELEC 1", "parse"),
    ] {
        let faults = wrong(sql).join("; ");
        assert!(faults.contains(reason), "{sql}: {faults:?}");
    }
}

/// What is wrong with some statements.
fn wrong(sql: &str) -> Vec<String> {
    let statements = match Parser::parse_sql(&PostgreSqlDialect {}, sql) {
        Ok(statements) => statements,
        Err(error) => return vec![format!("does not parse: {error}")],
    };
    let mut review = Review::default();
    for statement in &statements {
        review.statement(statement);
        let _ = statement.visit(&mut review);
        // What it means, without comments.
        let text = format!(
            " {} ",
            statement.to_string().to_lowercase().replace(['(', ')', ',', '\n'], " ")
        );
        let said = WORDS.iter().filter(|word| text.contains(&format!(" {word} ")));
        // `ON CONFLICT DO` is on the list.
        let allowed =
            |word: &&&str| **word == "do" && text.matches(" do ").count() == text.matches(" on conflict ").count();
        review
            .faults
            .extend(said.filter(|word| !allowed(word)).map(|word| format!("says {word}")));
    }
    review.faults.into_iter().collect()
}

#[derive(Default)]
struct Review {
    faults: BTreeSet<String>,
}

impl Review {
    fn refuse(&mut self, fault: impl Into<String>) {
        self.faults.insert(fault.into());
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Query(_)
            | Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::StartTransaction { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { .. } => {}
            Statement::CreateTable(table) => {
                let text = table.to_string().to_lowercase();
                match text.split_once("primary key") {
                    None => self.refuse("a table without a primary key"),
                    Some((_, key)) => {
                        let first = key
                            .trim_start_matches([' ', '('])
                            .split([',', ')'])
                            .next()
                            .unwrap_or_default();
                        if CROWDED.contains(&first) {
                            self.refuse(format!("a primary key that leads with {first}"));
                        }
                    }
                }
                for column in &table.columns {
                    self.data_type(&column.data_type.to_string());
                }
            }
            Statement::CreateIndex(index) if index.using.is_none() && index.predicate.is_none() => {}
            Statement::CreateIndex(index) => self.refuse(format!("not a plain index: {index}")),
            Statement::Set(set) => {
                let text = set.to_string().to_lowercase();
                let name = text
                    .trim_start_matches("set ")
                    .split([' ', '='])
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                if !SETTINGS.contains(&name.as_str()) {
                    self.refuse(format!("sets {name}"));
                }
            }
            Statement::Copy { .. } => {}
            Statement::AlterTable(change) => {
                for operation in &change.operations {
                    match operation {
                        AlterTableOperation::AddColumn { column_def, .. } => {
                            self.data_type(&column_def.data_type.to_string());
                        }
                        other => self.refuse(format!("alters a table otherwise: {other}")),
                    }
                }
            }
            other => self.refuse(format!("a statement of another kind: {other}")),
        }
    }

    fn data_type(&mut self, name: &str) {
        let name = name.to_lowercase();
        if !TYPES.contains(&name.trim_end_matches("[]")) {
            self.refuse(format!("the type {name}"));
        }
    }

    fn function(&mut self, name: &ObjectName) {
        let name = name.to_string().to_lowercase();
        if !FUNCTIONS.contains(&name.as_str()) {
            self.refuse(format!("calls {name}"));
        }
    }
}

impl Visitor for Review {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        match expression {
            Expr::Function(function) => {
                self.function(&function.name);
                if matches!(function.args, FunctionArguments::Subquery(_)) {
                    self.refuse("a query as an argument");
                }
            }
            Expr::Cast { data_type, .. } => self.data_type(&data_type.to_string()),
            Expr::BinaryOp { op, .. } => {
                let plain = ["=", "<>", "<", ">", "<=", ">=", "AND", "OR", "+", "-", "||"];
                if !plain.contains(&op.to_string().as_str()) {
                    self.refuse(format!("the operator {op}"));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table {
                name, args: Some(_), ..
            }
            | TableFactor::Function { name, .. } => self.function(name),
            TableFactor::Table { .. }
            | TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::UNNEST { .. } => {}
            other => self.refuse(format!("reads from {other}")),
        }
        ControlFlow::Continue(())
    }
}
