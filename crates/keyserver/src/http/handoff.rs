//! Where work that blocks is done.
//!
//! A point read of the store takes about 10 µs; handing it to another thread and waiting for the result costs more than that.
//! So short reads run right on the threads that serve connections, of which there are several for each core, but
//! never on the last one that is free: should the store stall, the server still accepts, answers and stops. What takes
//! somewhat longer, such as a small submission with its commit, may occupy half of them. While another process holds the
//! lock for writing, such a submission waits on its thread, up to the 30 seconds after which the store gives up: so long
//! half of the threads serve, and further submissions wait on threads of their own.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::Handle;

/// Runs what is short unless something is wrong: on this thread, or on another if too many are occupied.
pub async fn short<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match Place::take(Handle::current().metrics().num_workers()) {
        Some(_place) => work(),
        None => blocking(work).await,
    }
}

/// Runs what takes about a millisecond unless something is wrong: on this thread while at least half of them are free.
pub async fn brief<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match Place::take(Handle::current().metrics().num_workers() / 2 + 1) {
        Some(_place) => work(),
        None => blocking(work).await,
    }
}

/// Runs what may wait for a commit or compute for long, off the threads that serve connections.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work)
        .await
        .map_err(tokio::task::JoinError::try_into_panic)
    {
        Ok(value) => value,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Nobody aborts such work, and a runtime that ends drops this future too.
        Err(Err(_aborted)) => std::future::pending().await,
    }
}

/// One of the serving threads, occupied by work that blocks.
struct Place;

impl Place {
    /// Takes a place while more than one of so many is left.
    fn take(places: usize) -> Option<Self> {
        let occupied = OCCUPIED.fetch_add(1, Ordering::Relaxed);
        let place = Self;
        (occupied + 1 < places).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OCCUPIED.fetch_sub(1, Ordering::Relaxed);
    }
}

static OCCUPIED: AtomicUsize = AtomicUsize::new(0);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_stalled_store_leaves_the_server_awake() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(3)
            .enable_time()
            .build()
            .unwrap();
        let (release, stalled) = mpsc::channel::<()>();
        let stalled = std::sync::Arc::new(std::sync::Mutex::new(stalled));
        let reads: Vec<_> = (0..6)
            .map(|_| {
                let stalled = stalled.clone();
                runtime.spawn(short(move || {
                    let _ = stalled.lock().map(|stalled| stalled.recv());
                    std::thread::current().id()
                }))
            })
            .collect();
        let awake = runtime.spawn(async { tokio::time::sleep(Duration::from_millis(50)).await });
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(5), awake)
                .await
                .unwrap()
                .unwrap()
        });
        drop(release);
        for read in reads {
            runtime.block_on(read).unwrap();
        }
        assert_eq!(OCCUPIED.load(Ordering::Relaxed), 0);
        let here = runtime
            .block_on(
                runtime.spawn(async { (short(|| std::thread::current().id()).await, std::thread::current().id()) }),
            )
            .unwrap();
        assert_eq!(here.0, here.1, "a read that finds place stays on its thread");
    }

    #[test]
    #[should_panic(expected = "a bug")]
    fn panics_pass_through() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        runtime.block_on(blocking(|| panic!("a bug")))
    }
}
