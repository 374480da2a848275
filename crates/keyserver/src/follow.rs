//! Follows the change table, so that what this process shows is true whoever wrote: itself, a load, another server.

use crate::lifecycle::Rules;
use keyrink_store::{Store, StoreError, Vector};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A thread that reads the change table every second until it is dropped.
pub(crate) struct Follower {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Starts to follow `store` from now on. Counts what comes and goes in the metrics, keeps the number of
    /// certificates there current, and removes change rows that are older than a week.
    pub(crate) fn start(store: Arc<dyn Store>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("keyrink-follow".into())
            .spawn(move || follow(&*store, &stopped))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already and must not become another one here.
            let _ = thread.join();
        }
    }
}

const POLL_EVERY: Duration = Duration::from_secs(1);
const MAINTAIN_EVERY: u32 = 3600;
/// Rounds between two counts of what is blocked, and the most that is counted.
const COUNT_EVERY: u32 = 60;
const BLOCKED_MAX: usize = 100_000;
const KEEP_SECS: u64 = 7 * 24 * 3600;
const ROWS: usize = 10_000;

fn follow(store: &dyn Store, stopped: &mpsc::Receiver<()>) {
    let away = AtomicBool::new(false);
    let mut seen: Option<Vector> = None;
    let mut rounds = 0u32;
    let rules = Rules::default();
    while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(POLL_EVERY) {
        let result = read_changes(store, &mut seen);
        rounds = rounds.wrapping_add(1);
        let result = result.and_then(|()| count_rules(store, &rules, rounds));
        let result = result.and_then(|()| {
            if rounds % MAINTAIN_EVERY == 1 {
                maintain(store)
            } else {
                Ok(())
            }
        });
        // One line when it goes and one when it comes back, not one each second.
        match result {
            Err(error) if !away.swap(true, Ordering::Relaxed) => tracing::error!(%error, "changes can't be read"),
            Ok(()) if away.swap(false, Ordering::Relaxed) => tracing::info!("changes are read again"),
            _ => {}
        }
    }
}

fn read_changes(store: &dyn Store, seen: &mut Option<Vector>) -> Result<(), StoreError> {
    let Some(seen) = seen else {
        *seen = Some(store.vector()?);
        return count(store);
    };
    loop {
        let rows = store.changes(seen, ROWS)?;
        for row in &rows {
            let name = if row.added {
                "keyrink_elements_added_total"
            } else {
                "keyrink_elements_removed_total"
            };
            metrics::counter!(name, "dataset" => crate::formats::dataset_name(row.element.dataset)).increment(1);
            let newest = seen.entry(row.writer).or_default();
            *newest = row.n.max(*newest);
        }
        if rows.len() < ROWS {
            return count(store);
        }
    }
}

fn count(store: &dyn Store) -> Result<(), StoreError> {
    metrics::gauge!("keyrink_certificates").set(store.count(crate::formats::OPENPGP)? as f64);
    Ok(())
}

fn count_rules(store: &dyn Store, rules: &Rules, rounds: u32) -> Result<(), StoreError> {
    for (action, count) in rules.newest(store)?.counts() {
        metrics::gauge!("keyrink_rules", "action" => action.name()).set(count as f64);
    }
    if rounds % COUNT_EVERY == 1 {
        let blocked = store.holders(crate::formats::OPENPGP, &crate::formats::blocked(), BLOCKED_MAX)?;
        metrics::gauge!("keyrink_blocked_certificates").set(blocked as f64);
    }
    Ok(())
}

fn maintain(store: &dyn Store) -> Result<(), StoreError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    store.maintain(now.saturating_sub(KEEP_SECS))
}
