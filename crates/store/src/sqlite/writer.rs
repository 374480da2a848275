//! The writer: the one connection of this process that writes to the database.
//!
//! Callers queue their batches and block. A thread takes all that wait, runs them in one transaction and answers
//! when it has committed, so that many callers share one sync of the disk. A batch that is refused has written
//! nothing; the others go on. Whatever fails beyond that fails the whole transaction, and every caller is told.
//! A caller that finds nobody else there commits on its own thread, which saves waking another and being woken.
//!
//! Checkpoints (moving pages from the write-ahead log into the database) happen past a size of the log, when there is nothing
//! to do, and at the end. Of a long log another thread moves the most while writing goes on; only after that, when little
//! is left, the writer moves the rest, which it has to do itself for the log to begin anew.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::Durability;
use super::fault::Fault;
use super::readers::Readers;
use super::schema::{self, Migrations};
use super::write::Transaction;
use crate::batch::now;
use crate::{Applied, Batch, StoreError};

/// The way to the writer thread. Dropping it finishes what is queued and closes the database.
pub(super) struct Writer {
    file: PathBuf,
    worker: Arc<Mutex<Worker>>,
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Batch(Batch, Answer),
    /// Anything else that needs the writing connection; it sends its own answer.
    Task(Task),
}

type Answer = SyncSender<Result<Vec<Applied>, StoreError>>;
type Waiting = (Batch, Answer);
type Task = Box<dyn FnOnce(&Connection) + Send>;

/// What whoever writes has to itself.
struct Worker {
    file: PathBuf,
    connection: Connection,
    /// The disk was read-only when the connection was opened, which it then is for good.
    read_only: bool,
    readers: Arc<Readers>,
    durability: Durability,
    migrations: Migrations,
    /// Pages in the log after the last commit, kept by SQLite's hook.
    log_pages: Arc<AtomicI32>,
    /// The size of the log that asks for the next checkpoint.
    checkpoint_at: i32,
    /// Moves the most of a long log into the database.
    mover: Option<JoinHandle<()>>,
    /// How many batches the last transaction had.
    company: usize,
    /// How long it is worth waiting for batches to share a commit: a part of what the last commit took.
    patience: Duration,
    /// How often in a row the thread found nothing to do.
    rests: u32,
}

impl Writer {
    /// Opens `file` and starts the thread.
    pub(super) fn start(
        file: &Path,
        durability: Durability,
        migrations: Migrations,
        readers: Arc<Readers>,
    ) -> Result<Self, StoreError> {
        let log_pages = Arc::new(AtomicI32::new(0));
        let (connection, read_only) = open(file, durability, migrations, &log_pages).map_err(|fault| fault.at(file))?;
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        let checkpoint_at = checkpoint_pages(durability);
        let file = file.to_owned();
        let worker = Arc::new(Mutex::new(Worker {
            file: file.clone(),
            connection,
            read_only,
            readers,
            durability,
            migrations,
            log_pages,
            checkpoint_at,
            mover: None,
            company: 1,
            patience: Duration::ZERO,
            rests: 0,
        }));
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn({
                let worker = Arc::clone(&worker);
                move || run(&worker, &queue)
            })
            .map_err(|error| StoreError::Unavailable(format!("no thread for writing: {error}")))?;
        Ok(Self {
            file,
            worker,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Runs `batch` and waits until it is durable.
    pub(super) fn update(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        if let Some(mut worker) = self.idle_worker()
            && batch.ids.len() < LARGE_IDS
        {
            return worker.commit_alone(&batch);
        }
        let (answer, result) = sync_channel(1);
        self.send(Job::Batch(batch, answer))?;
        result.recv().map_err(|_| stopped())?
    }

    /// Runs `task` on the writing connection and waits for what it returns.
    pub(super) fn run<T: Send + 'static>(
        &self,
        task: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, result) = sync_channel(1);
        self.send(Job::Task(Box::new(move |connection| {
            // A caller that went away needs no answer.
            let _ = answer.send(task(connection));
        })))?;
        result
            .recv()
            .map_err(|_| stopped())?
            .map_err(|fault| fault.at(&self.file))
    }

    /// The worker, if nobody uses it, nobody did at the same time as the last caller, and no checkpoint is due.
    fn idle_worker(&self) -> Option<MutexGuard<'_, Worker>> {
        let worker = match self.worker.try_lock() {
            Ok(worker) => worker,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        (worker.company <= 1 && !worker.checkpoint_is_due()).then_some(worker)
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        self.jobs.as_ref().ok_or_else(stopped)?.send(job).map_err(|_| stopped())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The life of the thread.
fn run(worker: &Mutex<Worker>, jobs: &Receiver<Job>) {
    // A panic under the lock has rolled its transaction back on the way out.
    let lock = || worker.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match jobs.recv_timeout(IDLE) {
            Ok(job) => lock().work(job, jobs),
            Err(RecvTimeoutError::Timeout) => lock().rest(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    lock().close();
}

impl Worker {
    fn work(&mut self, first: Job, jobs: &Receiver<Job>) {
        self.reopen_if_read_only();
        let waiting = self.gather(first, jobs);
        let ids: usize = waiting.iter().map(|(batch, _)| batch.ids.len()).sum();
        self.company = waiting.len();
        self.commit(waiting);
        if ids >= LARGE_IDS {
            sleep(GAP);
        }
        if self.checkpoint_is_due() {
            self.begin_checkpoint();
        }
    }

    /// A disk that is writable again needs new connections. Those of one process share how they see the index of the log,
    /// so all have to go before one comes that can write.
    fn reopen_if_read_only(&mut self) {
        if !self.read_only || File::options().write(true).open(&self.file).is_err() {
            return;
        }
        let Ok(nothing) = Connection::open_in_memory() else {
            return;
        };
        self.end_mover();
        self.connection = nothing;
        self.readers.forget();
        if let Ok((connection, read_only)) = open(&self.file, self.durability, self.migrations, &self.log_pages) {
            (self.connection, self.read_only) = (connection, read_only);
        }
    }

    fn checkpoint_is_due(&self) -> bool {
        match &self.mover {
            Some(mover) => mover.is_finished(),
            None => self.log_pages.load(Ordering::Relaxed) >= self.checkpoint_at,
        }
    }

    /// Takes the batches that wait; tasks are done on the way.
    fn gather(&self, first: Job, jobs: &Receiver<Job>) -> Vec<Waiting> {
        let started = Instant::now();
        let mut waiting = Vec::new();
        let mut ids = 0;
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Task(task) => task(&self.connection),
                Job::Batch(batch, answer) => {
                    ids += batch.ids.len();
                    waiting.push((batch, answer));
                }
            }
            next = if ids < GROUP_IDS_MAX {
                self.next(jobs, waiting.len(), started)
            } else {
                None
            };
        }
        waiting
    }

    /// The next job that waits. Callers whose batches were committed together come back together: as long as there are
    /// fewer than last time, it is worth a moment's patience.
    fn next(&self, jobs: &Receiver<Job>, waiting: usize, started: Instant) -> Option<Job> {
        let patience = self.patience.saturating_sub(started.elapsed());
        if waiting < self.company && !patience.is_zero() {
            jobs.recv_timeout(patience).ok()
        } else {
            jobs.try_recv().ok()
        }
    }

    /// Runs the batches in one transaction and answers them.
    fn commit(&mut self, batches: Vec<Waiting>) {
        if batches.is_empty() {
            return;
        }
        let results = self.transaction(batches.iter().map(|(batch, _)| batch));
        match results {
            Ok(results) => {
                for ((_, answer), result) in batches.into_iter().zip(results) {
                    let _ = answer.send(result);
                }
            }
            Err(fault) => {
                let reason = fault.at(&self.file);
                for (_, answer) in batches {
                    let _ = answer.send(Err(reason.clone()));
                }
            }
        }
    }

    /// Runs one batch in a transaction of its own.
    fn commit_alone(&mut self, batch: &Batch) -> Result<Vec<Applied>, StoreError> {
        self.reopen_if_read_only();
        let results = self
            .transaction(std::iter::once(batch))
            .map_err(|fault| fault.at(&self.file))?;
        results.into_iter().next().unwrap_or_else(|| Err(stopped()))
    }

    fn transaction<'b>(
        &mut self,
        batches: impl Iterator<Item = &'b Batch>,
    ) -> Result<Vec<Result<Vec<Applied>, StoreError>>, Fault> {
        self.rests = 0;
        let mut transaction = Transaction::begin(&self.connection, now())?;
        let mut results = Vec::new();
        for batch in batches {
            results.push(match transaction.run(batch) {
                Ok(applied) => Ok(applied),
                Err(Fault::Store(refused)) => Err(refused),
                Err(fault) => return Err(fault),
            });
        }
        let started = Instant::now();
        transaction.commit()?;
        self.patience = (started.elapsed() / 8).min(PATIENCE_MAX);
        Ok(results)
    }

    /// Has the most of the log moved while writing goes on, or, where that is done, moves the rest.
    fn begin_checkpoint(&mut self) {
        if self.mover.is_none() {
            let (file, durability, log_pages) = (self.file.clone(), self.durability, Arc::clone(&self.log_pages));
            let mover = std::thread::Builder::new().name("store-checkpoint".into());
            // What it can't do is left to the writer.
            let spawned = mover.spawn(move || _ = move_most(&file, durability, &log_pages));
            self.mover = spawned.ok();
        }
        if self.mover.as_ref().is_none_or(JoinHandle::is_finished) {
            self.checkpoint();
        }
    }

    /// Waits until nobody else moves pages.
    fn end_mover(&mut self) {
        if let Some(mover) = self.mover.take() {
            let _ = mover.join();
        }
    }

    /// Moves what it can from the log into the database. The next commit then starts the log from its beginning,
    /// unless some reader still needs it; in that case the next attempt comes when the log has grown by as much again.
    fn checkpoint(&mut self) {
        self.end_mover();
        let done = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok(row.get::<_, i32>(1)? == row.get::<_, i32>(2)?)
        });
        let step = checkpoint_pages(self.durability);
        self.checkpoint_at = match done {
            Ok(true) => step,
            _ => self.log_pages.load(Ordering::Relaxed).saturating_add(step),
        };
    }

    /// Nothing to do: moves the log into the database, and if that lasts, empties it and gives memory back. A log that is
    /// used again costs less to sync than one that has to grow.
    fn rest(&mut self) {
        self.reopen_if_read_only();
        self.rests = self.rests.saturating_add(1);
        match self.rests {
            RESTS_TO_CHECKPOINT if self.log_pages.load(Ordering::Relaxed) > 0 => self.checkpoint(),
            RESTS_TO_EMPTY if self.log_pages.swap(0, Ordering::Relaxed) > 0 => {
                self.empty_log();
                let _ = self.connection.execute_batch("PRAGMA shrink_memory");
            }
            _ => {}
        }
    }

    /// Cuts the log to nothing, or, if some reader needs it or another process writes, does what can be done without
    /// making anyone wait.
    fn empty_log(&mut self) {
        self.checkpoint();
        let _ = schema::without_waiting(&mut self.connection, |connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        });
    }

    fn close(&mut self) {
        // Only a connection that can write removes the log, and only as the last one.
        self.readers.forget();
        self.empty_log();
        if self.durability == Durability::Normal {
            // Another process may have kept the checkpoint from happening; then the log holds what must last.
            let mut log = self.file.clone().into_os_string();
            log.push("-wal");
            if let Ok(log) = File::open(log) {
                let _ = log.sync_all();
            }
        }
    }
}

/// Moves pages of the log into the database until few are left, though more keep coming.
fn move_most(file: &Path, durability: Durability, log_pages: &AtomicI32) -> Result<(), Fault> {
    let connection = schema::open_mover(file, durability)?;
    for _ in 0..PASSES_MAX {
        let moved = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i32>(2))?;
        if log_pages.load(Ordering::Relaxed).saturating_sub(moved) < FEW_PAGES {
            break;
        }
    }
    Ok(())
}

/// Opens the connection, whose commits will note the size of the log; whether it can only read.
fn open(
    file: &Path,
    durability: Durability,
    migrations: Migrations,
    log_pages: &Arc<AtomicI32>,
) -> Result<(Connection, bool), Fault> {
    let mut connection = schema::open_writer(file, durability, migrations)?;
    let pages = Arc::clone(log_pages);
    connection.wal_hook(Some(move |_: &mut _, count| {
        pages.store(count, Ordering::Relaxed);
        Ok(())
    }))?;
    let read_only = connection.is_readonly(rusqlite::MAIN_DB)?;
    Ok((connection, read_only))
}

/// Log pages that ask for a checkpoint: a bulk load rewrites the same pages many times over and gains from waiting.
fn checkpoint_pages(durability: Durability) -> i32 {
    match durability {
        Durability::Full => 16_000,
        Durability::Normal => 24_000,
    }
}

/// How often the log is gone through before the writer moves the rest, and what counts as little of it: some milliseconds.
const PASSES_MAX: usize = 4;
const FEW_PAGES: i32 = 1_000;

fn stopped() -> StoreError {
    StoreError::Unavailable("its writer has stopped: start the program again".into())
}

/// Batches that may wait before callers have to.
const QUEUE_MAX: usize = 64;
/// A transaction takes no further batch once it has this many ids.
const GROUP_IDS_MAX: usize = 1_000;
/// The longest wait for batches to share a commit.
const PATIENCE_MAX: Duration = Duration::from_micros(150);
/// How long nothing must happen to count as a rest.
const IDLE: Duration = Duration::from_millis(500);
/// Rests in a row before the log is moved into the database, and before it is emptied.
const RESTS_TO_CHECKPOINT: u32 = 2;
const RESTS_TO_EMPTY: u32 = 20;
/// After a transaction as large as this the lock is left alone for [`GAP`], so that a writer of another process, which
/// looks every millisecond, gets its turn.
const LARGE_IDS: usize = 200;
const GAP: Duration = Duration::from_millis(2);
