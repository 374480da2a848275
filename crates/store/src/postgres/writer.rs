//! The writer: the one session of this process that updates records.
//!
//! Callers queue their batches and block. A thread takes all that wait, runs them in one transaction and answers when it
//! has committed. A conflict with another process runs the transaction again, so does a connection that breaks. If it breaks
//! while the commit is under way, the lane tells afterwards whether it was committed, so nothing is done twice.
//!
//! A lazy writer commits without waiting for the disk. A database that crashes takes the last of these commits back, and
//! breaks every connection; so such a writer never goes on in another session, and nothing later is built on what may be gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::database::Database;
use super::fault::{Cure, Fault};
use super::lane::{Lane, random};
use super::sql;
use super::write::{Results, Transaction};
use crate::batch::now;
use crate::{Applied, Batch, StoreError};

/// The way to the writer thread. Dropping it finishes what is queued.
pub(super) struct Writer {
    lane: Lane,
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Callers.
    waiting: AtomicUsize,
    /// Whether the last update failed because the database could not do it.
    troubled: AtomicBool,
}

enum Job {
    Batch(Waiting),
    /// Anything else that commits in the lane; it sends its own answer.
    Task(Task),
}

type Waiting = (Batch, SyncSender<Result<Vec<Applied>, StoreError>>);
type Task = Box<dyn FnOnce(&mut Worker) + Send>;

/// What the thread has to itself.
struct Worker {
    database: Arc<Database>,
    lane: Lane,
    connection: Option<Connection>,
    /// Whether commits don't wait for the disk.
    lazy: bool,
    /// Whether something was committed in this session of which the disk may know nothing yet.
    owes: bool,
}

/// How an attempt ended that did not succeed.
enum Failed<T> {
    /// Nothing was committed.
    Nothing(Fault),
    /// It may have been committed.
    Perhaps(T, i64),
}

/// A transaction up to but without its commit. Pure but for that; may run again. The number is what it marks the lane with.
type Work<'a, T> = &'a dyn Fn(&mut Connection, Lane, i64) -> Result<Written<T>, Fault>;

/// What a transaction comes to, and whether there is anything to commit.
type Written<T> = (T, bool);

impl Writer {
    /// Claims a lane and starts the thread.
    pub(super) fn start(database: &Arc<Database>, lazy: bool) -> Result<Self, StoreError> {
        let lane = claim(database)?;
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        let mut worker = Worker {
            database: Arc::clone(database),
            lane,
            connection: None,
            lazy,
            owes: false,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || worker.run(&queue))
            .map_err(|error| StoreError::Unavailable(format!("no thread for writing: {error}")))?;
        Ok(Self {
            lane,
            jobs: Some(jobs),
            thread: Some(thread),
            waiting: AtomicUsize::new(0),
            troubled: AtomicBool::new(false),
        })
    }

    /// Runs `batch` and waits until it is durable.
    pub(super) fn update(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        let (answer, result) = sync_channel(1);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = self.send(Job::Batch((batch, answer)));
        let result = sent.and_then(|()| result.recv().map_err(|_| stopped())?);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let troubled = matches!(result, Err(StoreError::Unavailable(_)));
        self.troubled.store(troubled, Ordering::Relaxed);
        result
    }

    /// Whether the last update failed because the database could not do it.
    pub(super) fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed)
    }

    /// It was seen that the database can do it again.
    pub(super) fn calm(&self) {
        self.troubled.store(false, Ordering::Relaxed);
    }

    /// How many callers it works for.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Runs another transaction, which has something to commit.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Connection, Lane, i64) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, result) = sync_channel(1);
        self.send(Job::Task(Box::new(move |worker| {
            let done = worker.until_done(&|connection, lane, token| Ok((work(connection, lane, token)?, true)));
            // A caller that went away needs no answer.
            let _ = answer.send(done);
        })))?;
        result.recv().map_err(|_| stopped())?
    }

    /// Waits until everything that was committed is on the disk.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        let (answer, result) = sync_channel(1);
        self.send(Job::Task(Box::new(move |worker| {
            // A caller that went away needs no answer.
            let _ = answer.send(worker.settle());
        })))?;
        result.recv().map_err(|_| stopped())?
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        self.jobs.as_ref().ok_or_else(stopped)?.send(job).map_err(|_| stopped())
    }

    /// The lane of this process.
    pub(super) fn lane(&self) -> Lane {
        self.lane
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

impl Worker {
    /// The life of the thread.
    fn run(&mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let (mut ids, mut waiting, mut next) = (0, Vec::new(), Some(first));
            while let Some(job) = next {
                match job {
                    Job::Batch(batch) => {
                        ids += batch.0.ids.len();
                        waiting.push(batch);
                    }
                    Job::Task(task) => task(self),
                }
                next = if ids < GROUP_IDS_MAX {
                    jobs.try_recv().ok()
                } else {
                    None
                };
            }
            self.commit(waiting);
        }
        self.close();
    }

    /// Runs batches in one transaction and answers them.
    fn commit(&mut self, waiting: Vec<Waiting>) {
        if waiting.is_empty() {
            return;
        }
        let batches: Vec<&Batch> = waiting.iter().map(|(batch, _)| batch).collect();
        let results = self.until_done(&|connection, lane, token| update(connection, lane, &batches, token));
        if matches!(results, Err(StoreError::Damaged(_))) && waiting.len() > 1 {
            // The database objects to something in one of them, which is no reason to refuse the others.
            return waiting.into_iter().for_each(|one| self.commit(vec![one]));
        }
        for (at, (_, answer)) in waiting.into_iter().enumerate() {
            let _ = answer.send(match &results {
                Ok(results) => results[at].clone(),
                Err(error) => Err(error.clone()),
            });
        }
    }

    /// Runs a transaction again and again until it is done or that is no use.
    fn until_done<T>(&mut self, work: Work<'_, T>) -> Result<T, StoreError> {
        let started = Instant::now();
        let (mut pause, mut copies) = (PAUSE_MIN, true);
        loop {
            let fault = match self.attempt(work, copies) {
                Ok(result) => return Ok(result),
                Err(Failed::Nothing(fault)) => fault,
                Err(Failed::Perhaps(result, token)) => match self.was_committed(token, started)? {
                    true => return Ok(result),
                    false => Fault::Conflict,
                },
            };
            // Whatever is in the way of a COPY is none for other statements.
            copies = false;
            let patience = match fault.cure() {
                Cure::Again => CONFLICTS_MAX,
                Cure::Reconnect => AWAY_MAX,
                Cure::Tell => Duration::ZERO,
            };
            if started.elapsed() >= patience {
                return Err(self.database.told(fault));
            }
            // A different time for each process, so that they do not meet again.
            sleep(pause.mul_f64((random() % 1000) as f64 / 1000.0));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn attempt<T>(&mut self, work: Work<'_, T>, copies: bool) -> Result<T, Failed<T>> {
        let mut connection = self.connect().map_err(Failed::Nothing)?;
        connection.copies = copies;
        let token = random().cast_signed();
        let (result, writes) = match work(&mut connection, self.lane, token) {
            Ok(done) => done,
            Err(fault) => return Err(self.nothing(connection, fault)),
        };
        let end = if writes { sql::COMMIT } else { sql::ROLLBACK };
        self.owes |= self.lazy && writes;
        match connection.execute(end, &[]) {
            Ok(_) => {
                self.connection = Some(connection);
                Ok(result)
            }
            Err(_) if !writes => Ok(result),
            // The database says itself that it did not commit.
            Err(fault) if fault.cure() == Cure::Again => Err(self.nothing(connection, fault)),
            Err(_) => Err(Failed::Perhaps(result, token)),
        }
    }

    /// Ends a transaction of which nothing was committed. After a conflict the session is as good as before.
    fn nothing<T>(&mut self, mut connection: Connection, fault: Fault) -> Failed<T> {
        if fault.cure() == Cure::Again && connection.execute(sql::ROLLBACK, &[]).is_ok() {
            self.connection = Some(connection);
        }
        Failed::Nothing(fault)
    }

    /// Finds out whether a transaction whose commit was not answered was committed.
    fn was_committed(&mut self, token: i64, started: Instant) -> Result<bool, StoreError> {
        loop {
            let ended = self.connect().and_then(|mut connection| {
                let ended = self.lane.ended_with(&mut connection, token)?;
                self.connection = Some(connection);
                Ok(ended)
            });
            match ended {
                Ok(ended) => return Ok(ended),
                Err(fault) if self.owes => return Err(self.database.told(fault)),
                Err(fault) if started.elapsed() >= AWAY_MAX => return Err(self.database.told(fault)),
                Err(_) => sleep(PAUSE_MAX),
            }
        }
    }

    /// The session; it is given back by whoever finds it in order.
    fn connect(&mut self) -> Result<Connection, Fault> {
        if let Some(connection) = self.connection.take().filter(|connection| !connection.is_closed()) {
            return Ok(connection);
        }
        if self.owes {
            return Err(self.lost());
        }
        let mut connection = self.database.connect()?;
        connection.set(sql::IDLE_TIME)?;
        Ok(connection)
    }

    /// Waits until what was committed is on the disk: a commit that waits for it waits for all before it.
    fn settle(&mut self) -> Result<(), StoreError> {
        if !self.owes {
            return Ok(());
        }
        self.until_done(&|connection, lane, token| {
            connection.set(sql::STRICT)?;
            connection.execute(sql::BEGIN, &[])?;
            lane.advance(connection, 0, token)?;
            Ok(((), true))
        })?;
        // This session is not a lazy one any more; whatever comes begins another.
        (self.connection, self.owes) = (None, false);
        Ok(())
    }

    /// What it means that the session is gone in which something was committed that the disk may not know.
    fn lost(&self) -> Fault {
        let reason = "broke a connection, and with it may have lost what was not on its disk yet: start again, that goes on \
                      where the database says it was";
        StoreError::Unavailable(format!("{} {reason}", self.database.name())).into()
    }

    /// Gives the lane back.
    fn close(&mut self) {
        let lane = self.lane;
        // Without this the claim ends by itself.
        let _ = self.connect().and_then(|mut connection| lane.release(&mut connection));
    }
}

/// Claims a lane; one that was claimed on a connection that broke becomes free by itself.
fn claim(database: &Database) -> Result<Lane, StoreError> {
    let mut tried = 0;
    loop {
        tried += 1;
        let claimed = database
            .connect()
            .and_then(|mut connection| Lane::claim(&mut connection));
        match claimed {
            Err(fault) if tried < CLAIMS_MAX && fault.cure() != Cure::Tell => {}
            other => return other.map_err(|fault| database.told(fault)),
        }
    }
}

/// Runs batches, up to but without the commit.
fn update(connection: &mut Connection, lane: Lane, batches: &[&Batch], token: i64) -> Result<Written<Results>, Fault> {
    let mut transaction = Transaction::begin(connection, lane, now(), batches)?;
    let results = transaction.decide(batches);
    let writes = transaction.write(token)?;
    Ok((results, writes))
}

fn stopped() -> StoreError {
    StoreError::Unavailable("its writer has stopped: start the program again".into())
}

/// How often a lane is asked for.
const CLAIMS_MAX: u32 = 10;
/// Batches that may wait before callers have to.
const QUEUE_MAX: usize = 64;
/// A transaction takes no further batch once it has this many ids.
const GROUP_IDS_MAX: usize = 1_000;
/// How long a transaction is tried that others keep from being committed.
const CONFLICTS_MAX: Duration = Duration::from_secs(30);
/// How long callers wait for a database that is away.
const AWAY_MAX: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(4);
const PAUSE_MAX: Duration = Duration::from_millis(200);
