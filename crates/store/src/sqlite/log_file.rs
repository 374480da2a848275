//! The file of the write-ahead log, written one transaction at a time.
//!
//! SQLite writes each page of a transaction in two steps, its header and then the page, which for a dozen pages costs more
//! than everything else that a commit asks of the system but its sync. Here is a file system for SQLite (a VFS,
//! <https://sqlite.org/vfs.html>) that is the usual one, except that it keeps in memory what is appended to a log until the
//! transaction's last page is there, or the file is read, synced or cut; then it is written in one piece. In the format of the
//! log (<https://sqlite.org/fileformat2.html#walformat>) a page's header tells whether it is the last.
//!
//! That is sound for a connection that writes nothing to the log before it commits: no page waits for memory
//! (`PRAGMA cache_spill = OFF`, which [`open`] sets). Then all is written when the last page is there, an error of the disk
//! reaches SQLite while it commits, and only after that the index of the log tells others of the transaction. With pages
//! that are written earlier, what is held could outlast a transaction that is rolled back, and go where another process
//! has written meanwhile. The price is that all pages that a transaction changes are in memory until it commits.
//!
//! The second of two modules with `unsafe`: SQLite speaks of files through pointers to functions.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::mem::size_of;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

use rusqlite::ffi::{
    SQLITE_ERROR, SQLITE_OK, SQLITE_OPEN_WAL, sqlite3_file, sqlite3_filename, sqlite3_int64, sqlite3_io_methods,
    sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};
use rusqlite::{Connection, OpenFlags};

/// Opens a connection that writes its log so. Where SQLite does not take the file system, it is a usual one.
pub(super) fn open(file: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    if usual_open().is_none() {
        return Connection::open_with_flags(file, flags);
    }
    let connection = Connection::open_with_flags_and_vfs(file, flags, NAME)?;
    connection.execute_batch("PRAGMA cache_spill = OFF")?;
    Ok(connection)
}

/// How the usual file system opens files, once SQLite knows this one; nothing if it refused.
fn usual_open() -> Option<Open> {
    static USUAL: OnceLock<Option<Open>> = OnceLock::new();
    *USUAL.get_or_init(register)
}

type Open = unsafe extern "C" fn(*mut sqlite3_vfs, sqlite3_filename, *mut sqlite3_file, c_int, *mut c_int) -> c_int;

const NAME: &CStr = c"keyrink";
/// What is kept of a transaction before it is written all the same: no more than SQLite's usual file system takes at once.
const HELD_OCTETS_MAX: usize = (128 << 10) - 1;
/// Octets before each page in the log. Those from the fifth to the eighth are zero but before a transaction's last page.
const PAGE_HEADER_OCTETS: usize = 24;

/// An open log as SQLite sees it. The usual file lies behind it in the same memory.
#[repr(C)]
struct LogFile {
    /// What SQLite takes this for; nothing is before it.
    seen: sqlite3_file,
    /// Where the usual file is: the part of this memory behind `self`.
    inner: *mut sqlite3_file,
    held: Held,
}

/// What was appended and is not written yet.
#[derive(Default)]
struct Held {
    octets: Vec<u8>,
    /// Where in the file the first of them belongs.
    start: i64,
    /// What was written last, or taken, ends here.
    end: i64,
    /// The last header was that of a transaction's last page.
    ends: bool,
}

/// What to do about something that SQLite writes.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It was taken, to be written later.
    Keep,
    /// It was taken, and all that is held has to be written now.
    Finish,
    /// It was not taken: what is held has to be written, and then this.
    Through,
}

impl Held {
    /// Looks at `octets` that belong to `offset`.
    fn take(&mut self, octets: &[u8], offset: i64) -> Step {
        let fits = offset == self.end
            && self.octets.len() + octets.len() <= HELD_OCTETS_MAX
            && self.octets.try_reserve(octets.len()).is_ok();
        self.end = offset + octets.len() as i64;
        let is_header = octets.len() == PAGE_HEADER_OCTETS;
        if is_header {
            self.ends = octets[4..8] != [0; 4];
        }
        if !fits {
            return Step::Through;
        }
        if self.octets.is_empty() {
            self.start = offset;
        }
        self.octets.extend_from_slice(octets);
        if self.ends && !is_header {
            Step::Finish
        } else {
            Step::Keep
        }
    }
}

/// Makes the file system known to SQLite. Gives how the usual one opens files.
fn register() -> Option<Open> {
    // SAFETY: SQLite's own file systems are never freed. The copy is leaked, so that it lives as long as SQLite may use it,
    // and complete: functions of the usual file system take what they need from the one they were called through, which a
    // copy has as well.
    unsafe {
        let usual = sqlite3_vfs_find(ptr::null()).as_ref()?;
        let ours = Box::leak(Box::new(sqlite3_vfs {
            szOsFile: usual.szOsFile + size_of::<LogFile>() as c_int,
            pNext: ptr::null_mut(),
            zName: NAME.as_ptr(),
            xOpen: Some(open_file),
            ..*usual
        }));
        usual.xOpen.filter(|_| sqlite3_vfs_register(ours, 0) == SQLITE_OK)
    }
}

/// Opens any file in the usual way, and what is a log inside a [`LogFile`].
///
/// # Safety
///
/// Called by SQLite, with `file` pointing to as much memory as the file system asked for.
unsafe extern "C" fn open_file(
    vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let Some(usual) = usual_open() else { return SQLITE_ERROR };
    // SAFETY: the memory has room for a `LogFile` and the usual file behind it, and SQLite aligns it for both. On an error
    // there is no file: SQLite is told so by a missing table of functions and does not touch it again.
    unsafe {
        if flags & SQLITE_OPEN_WAL == 0 {
            return usual(vfs, name, file, flags, flags_out);
        }
        let inner = file.byte_add(size_of::<LogFile>());
        let code = usual(vfs, name, inner, flags, flags_out);
        if code == SQLITE_OK {
            file.cast::<LogFile>().write(LogFile {
                seen: sqlite3_file {
                    pMethods: &raw const METHODS,
                },
                inner,
                held: Held::default(),
            });
        } else {
            (*file).pMethods = ptr::null();
        }
        code
    }
}

impl LogFile {
    /// The file that SQLite means.
    ///
    /// # Safety
    ///
    /// `file` is one that [`open_file`] made and that is not closed; SQLite uses a file in one thread at a time.
    unsafe fn of<'a>(file: *mut sqlite3_file) -> &'a mut Self {
        // SAFETY: as above.
        unsafe { &mut *file.cast() }
    }

    /// The usual functions, all of which the usual file system has.
    fn usual(&self) -> &'static sqlite3_io_methods {
        // SAFETY: it set them when it opened the file, and keeps such tables for ever.
        unsafe { &*(*self.inner).pMethods }
    }

    fn write(&mut self, octets: &[u8], offset: i64) -> c_int {
        match self.held.take(octets, offset) {
            Step::Keep => SQLITE_OK,
            Step::Finish => self.flush(),
            Step::Through => match self.flush() {
                SQLITE_OK => self.write_through(octets, offset),
                code => code,
            },
        }
    }

    /// Writes what is held. What the disk refuses is forgotten: SQLite rolls back what it can't commit.
    fn flush(&mut self) -> c_int {
        if self.held.octets.is_empty() {
            return SQLITE_OK;
        }
        let code = self.write_through(&self.held.octets, self.held.start);
        self.held.octets.clear();
        code
    }

    fn write_through(&self, octets: &[u8], offset: i64) -> c_int {
        let Some(write) = self.usual().xWrite else {
            return SQLITE_ERROR;
        };
        // SAFETY: the file is open, and what is held is far below 2 GiB, as everything that SQLite writes.
        unsafe { write(self.inner, octets.as_ptr().cast(), octets.len() as c_int, offset) }
    }
}

/// A function of an open log that first writes what is held, and then is the usual one.
macro_rules! after_flush {
    ($name:ident, $method:ident $(, $argument:ident: $type:ty)*) => {
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $type)*) -> c_int {
            // SAFETY: SQLite calls it with a log that is open, and with arguments that the usual function takes.
            unsafe {
                let log = LogFile::of(file);
                match (log.flush(), log.usual().$method) {
                    (SQLITE_OK, Some(usual)) => usual(log.inner $(, $argument)*),
                    (SQLITE_OK, None) => SQLITE_ERROR,
                    (code, _) => code,
                }
            }
        }
    };
}

after_flush!(read, xRead, octets: *mut c_void, length: c_int, offset: sqlite3_int64);
after_flush!(truncate, xTruncate, size: sqlite3_int64);
after_flush!(sync, xSync, flags: c_int);
after_flush!(file_size, xFileSize, size: *mut sqlite3_int64);
after_flush!(control, xFileControl, what: c_int, argument: *mut c_void);

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    octets: *const c_void,
    length: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite calls it with a log that is open and with so many octets.
    unsafe {
        let octets = std::slice::from_raw_parts(octets.cast(), length as usize);
        LogFile::of(file).write(octets, offset)
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite calls it with a log that is open, once, and does not use it again.
    unsafe {
        let log = LogFile::of(file);
        // Of a transaction that never came to its end nothing is wanted.
        let code = log.usual().xClose.map_or(SQLITE_ERROR, |usual| usual(log.inner));
        ptr::drop_in_place(&raw mut log.held);
        code
    }
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite calls it with a log that is open.
    unsafe {
        let log = LogFile::of(file);
        log.usual().xSectorSize.map_or(0, |usual| usual(log.inner))
    }
}

unsafe extern "C" fn characteristics(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite calls it with a log that is open.
    unsafe {
        let log = LogFile::of(file);
        log.usual().xDeviceCharacteristics.map_or(0, |usual| usual(log.inner))
    }
}

/// Logs need no more than the first version of this table has, and are never locked.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: None,
    xUnlock: None,
    xCheckReservedLock: None,
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn header(last: bool) -> [u8; PAGE_HEADER_OCTETS] {
        let mut header = [1; PAGE_HEADER_OCTETS];
        header[4..8].copy_from_slice(&u32::from(last).to_be_bytes());
        header
    }

    /// What happens to each of these writes, and where that begins which is held after it.
    fn steps(writes: &[(&[u8], i64)]) -> Vec<(Step, Option<i64>)> {
        let mut held = Held::default();
        let step = |(octets, offset): &(&[u8], i64)| {
            let step = held.take(octets, *offset);
            if step == Step::Through {
                held.octets.clear();
            }
            let start = (!held.octets.is_empty()).then_some(held.start);
            if step == Step::Finish {
                held.octets.clear();
            }
            (step, start)
        };
        writes.iter().map(step).collect()
    }

    #[test]
    fn a_transaction_is_held_until_its_last_page() {
        let (more, last, page) = (header(false), header(true), [7; 512]);
        let found = steps(&[
            (&[7; 32], 0),
            (&more, 32),
            (&page, 56),
            (&last, 568),
            (&page, 592),
            (&more, 1104),
            (&page, 1128),
        ]);
        let held = |start| (Step::Keep, Some(start));
        let finished = (Step::Finish, Some(0));
        assert_eq!(
            found,
            [held(0), held(0), held(0), held(0), finished, held(1104), held(1104)]
        );
    }

    #[test]
    fn what_is_not_appended_is_written_at_once() {
        let (last, page) = (header(true), [7; 512]);
        let found = steps(&[
            // Behind a log that was there.
            (&last, 568),
            (&page, 592),
            // Headers that are written again, of pages that were written twice.
            (&last, 32),
            (&last, 568),
            (&last, 1104),
            (&page, 1128),
            // The log begins anew.
            (&[7; 32], 0),
            (&last, 32),
            (&page, 56),
        ]);
        let through = || (Step::Through, None);
        let finished = |start| (Step::Finish, Some(start));
        assert_eq!(
            found,
            [
                through(),
                finished(592),
                through(),
                through(),
                through(),
                finished(1128),
                through(),
                (Step::Keep, Some(32)),
                finished(32)
            ]
        );
    }

    #[test]
    fn little_is_held() {
        let large = vec![0; HELD_OCTETS_MAX];
        let found = steps(&[
            (&large, 0),
            (&[0], HELD_OCTETS_MAX as i64),
            (&[0], HELD_OCTETS_MAX as i64 + 1),
        ]);
        assert_eq!(found[0], (Step::Keep, Some(0)));
        assert_eq!(found[1], (Step::Through, None));
        assert_eq!(found[2], (Step::Keep, Some(HELD_OCTETS_MAX as i64 + 1)));
    }
}
