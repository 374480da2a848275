//! Making rows agree with their records again, after something else than this program changed them.

use rusqlite::params;

use super::fault::Fault;
use super::log;
use super::write::Transaction;
use crate::batch::Kept;
use crate::{Derived, Element, Realm, RecordId, Term};

/// A record as it is now, with its number.
type Current<'a> = Option<&'a (i64, Kept)>;

impl Transaction<'_> {
    /// Looks at each of these rows; how many were wrong.
    pub(super) fn mend(&mut self, realm: Realm, rows: &[(RecordId, Derived)]) -> Result<u64, Fault> {
        let mut wrong = 0;
        for of_one in rows.chunk_by(|(one, _), (other, _)| one == other) {
            let id = &of_one[0].0;
            let current = self.current(realm, id)?;
            for (_, row) in of_one {
                wrong += u64::from(match row {
                    Derived::Term(term) => self.mend_term(realm, term, current.as_ref())?,
                    Derived::Element(element) => self.mend_element(realm, id, element, current.as_ref())?,
                    // This engine has no rows of these.
                    Derived::Component(_) => false,
                });
            }
        }
        Ok(wrong)
    }

    fn mend_term(&self, realm: Realm, term: &Term, current: Current<'_>) -> Result<bool, Fault> {
        let row = params![realm.0, term.kind, term.text];
        let Some((rec, kept)) = current else {
            let sql = "DELETE FROM term WHERE realm = ?1 AND kind = ?2 AND text = ?3
                       AND NOT EXISTS (SELECT 1 FROM record WHERE record.rec = term.rec)";
            return Ok(self.connection().prepare_cached(sql)?.execute(row)? > 0);
        };
        let row = params![realm.0, term.kind, term.text, rec];
        let sql = match kept.terms.contains(term) {
            true => "INSERT OR IGNORE INTO term (realm, kind, text, rec) VALUES (?1, ?2, ?3, ?4)",
            false => "DELETE FROM term WHERE realm = ?1 AND kind = ?2 AND text = ?3 AND rec = ?4",
        };
        Ok(self.connection().prepare_cached(sql)?.execute(row)? > 0)
    }

    fn mend_element(
        &mut self,
        realm: Realm,
        id: &RecordId,
        element: &Element,
        current: Current<'_>,
    ) -> Result<bool, Fault> {
        let sql = match current.is_some_and(|(_, kept)| kept.elements.contains(element)) {
            true => "INSERT OR IGNORE INTO element (dataset, bytes, id, realm) VALUES (?1, ?2, ?3, ?4)",
            false => "DELETE FROM element WHERE dataset = ?1 AND bytes = ?2 AND id = ?3 AND realm = ?4",
        };
        let held = self.held(element)?;
        let row = params![element.dataset.0, element.bytes, id.as_bytes(), realm.0];
        let wrong = self.connection().prepare_cached(sql)?.execute(row)? > 0;
        let holds = self.held(element)?;
        if held != holds {
            self.log().add(element, holds);
        }
        Ok(wrong)
    }

    /// Counts the records of a realm; whether the count that is kept was another.
    pub(super) fn recount(&mut self, realm: Realm) -> Result<bool, Fault> {
        let sql = "SELECT count(*) FROM record WHERE realm = ?1";
        let mut statement = self.connection().prepare_cached(sql)?;
        let there: i64 = statement.query_row([realm.0], |row| row.get(0))?;
        let more = there - log::count(self.connection(), realm)?.cast_signed();
        self.log().tally(realm, more);
        Ok(more != 0)
    }
}
