//! Many rows into a table: by COPY where that may be tried, else by a statement that takes the columns as arrays and knows what
//! to do about rows that are there.

use tokio_postgres::types::{ToSql, Type};

use super::connection::Connection;
use super::fault::Fault;
use super::read::{number, number_64};
use super::sql::{self, Sql};
use crate::{Component, Realm, RecordId};

/// The ways to write rows into a table.
pub(super) struct Table {
    copy: Sql,
    /// What takes the columns as arrays.
    insert: Sql,
    types: &'static [Type],
}

/// A column of the rows that are written.
pub(super) trait Column {
    /// All of it.
    fn whole(&self) -> &(dyn ToSql + Sync);
    /// Its value in one row.
    fn cell(&self, row: usize) -> &(dyn ToSql + Sync);
    /// How many rows there are.
    fn rows(&self) -> usize;
}

impl<T: ToSql + Sync> Column for Vec<T> {
    fn whole(&self) -> &(dyn ToSql + Sync) {
        self
    }

    fn cell(&self, row: usize) -> &(dyn ToSql + Sync) {
        &self[row]
    }

    fn rows(&self) -> usize {
        self.len()
    }
}

impl Table {
    /// Writes rows; how many were written.
    pub(super) fn insert(&self, connection: &mut Connection, columns: &[&dyn Column]) -> Result<u64, Fault> {
        let rows = columns.first().map_or(0, |column| column.rows());
        if rows == 0 {
            return Ok(0);
        }
        if connection.copies && rows >= COPY_ROWS_MIN {
            self.copy(connection, columns)?;
            return Ok(rows as u64);
        }
        let parameters: Vec<_> = columns.iter().map(|column| column.whole()).collect();
        connection.execute(self.insert, &parameters)
    }

    /// Writes rows of which none is there.
    pub(super) fn copy(&self, connection: &mut Connection, columns: &[&dyn Column]) -> Result<(), Fault> {
        let rows = columns.first().map_or(0, |column| column.rows());
        let cells = |row| columns.iter().map(|column| column.cell(row)).collect();
        connection.copy(self.copy, self.types, rows, &cells)
    }
}

/// Fewer rows are as quick by the other way, and need not be tried twice.
pub(super) const COPY_ROWS_MIN: usize = 32;

pub(super) static RECORDS: Table = Table {
    copy: sql::COPY_RECORDS,
    insert: sql::INSERT_RECORDS,
    types: &[
        Type::BYTEA,
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::INT8,
        Type::BYTEA,
        Type::BYTEA,
    ],
};

pub(super) static TERMS: Table = Table {
    copy: sql::COPY_TERMS,
    insert: sql::INSERT_TERMS,
    types: &[Type::BYTEA, Type::INT2, Type::BYTEA],
};

/// Adding holders has to tell which elements are new, so that is not done by `insert`.
pub(super) static ELEMENTS: Table = Table {
    copy: sql::COPY_ELEMENTS,
    insert: sql::ADD_HOLDERS,
    types: &[Type::BYTEA, Type::INT2, Type::BYTEA_ARRAY],
};

pub(super) static CHANGES: Table = Table {
    copy: sql::COPY_CHANGES,
    insert: sql::INSERT_CHANGES,
    types: &[Type::INT4, Type::INT8, Type::INT2, Type::BYTEA, Type::BOOL, Type::INT8],
};

static COMPONENTS: Table = Table {
    copy: sql::COPY_COMPONENTS,
    insert: sql::INSERT_COMPONENTS,
    types: &[
        Type::BYTEA,
        Type::INT2,
        Type::INT4,
        Type::INT2,
        Type::INT2,
        Type::BYTEA,
        Type::TEXT,
        Type::INT2,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
    ],
};

/// Rows of the component table, column by column.
#[derive(Default)]
pub(super) struct Parts<'a> {
    ids: Vec<&'a [u8]>,
    realms: Vec<i16>,
    places: Vec<i32>,
    kinds: Vec<i16>,
    versions: Vec<Option<i16>>,
    fingerprints: Vec<Option<&'a [u8]>>,
    texts: Vec<Option<&'a str>>,
    algorithms: Vec<Option<i16>>,
    bits: Vec<Option<i64>>,
    created: Vec<Option<i64>>,
    expires: Vec<Option<i64>>,
    revoked: Vec<Option<i64>>,
}

impl<'a> Parts<'a> {
    pub(super) fn push(&mut self, realm: Realm, id: &'a RecordId, component: &'a Component) {
        self.ids.push(id.as_bytes());
        self.realms.push(number(realm.0));
        self.places.push(component.place.cast_signed());
        self.kinds.push(number(component.kind));
        self.versions.push(component.version.map(number));
        self.fingerprints.push(component.fingerprint.as_deref());
        self.texts.push(component.text.as_deref());
        self.algorithms.push(component.algorithm.map(number));
        self.bits.push(component.bits.map(i64::from));
        self.created.push(component.created.map(number_64));
        self.expires.push(component.expires.map(number_64));
        self.revoked.push(component.revoked.map(number_64));
    }

    pub(super) fn insert(&self, connection: &mut Connection) -> Result<u64, Fault> {
        let columns: &[&dyn Column] = &[
            &self.ids,
            &self.realms,
            &self.places,
            &self.kinds,
            &self.versions,
            &self.fingerprints,
            &self.texts,
            &self.algorithms,
            &self.bits,
            &self.created,
            &self.expires,
            &self.revoked,
        ];
        COMPONENTS.insert(connection, columns)
    }
}
