//! Finds connections that move next to nothing, so that slow readers and idle HTTP/2 peers don't hold a place for ever, and
//! those that do nothing at the moment, so that others get their places when there are no more.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that counts the octets it moves.
pub(super) struct Metered<T> {
    inner: T,
    marks: Arc<Marks>,
}

/// What a connection does; shared with its [`Metered`] end and its requests.
pub(super) struct Meter {
    marks: Arc<Marks>,
    seen: u64,
}

struct Marks {
    start: Instant,
    /// Octets in both directions.
    moved: AtomicU64,
    /// When octets were sent last, in milliseconds after the start.
    sent: AtomicU64,
    /// Requests in the works.
    requests: AtomicU64,
}

/// A request in the works, until it is dropped.
pub(super) struct Working(Arc<Marks>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Notes requests.
#[derive(Clone)]
pub(super) struct Requests(Arc<Marks>);

impl Requests {
    /// A request is in the works from now on.
    pub(super) fn begin(&self) -> Working {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        Working(Arc::clone(&self.0))
    }
}

impl Default for Meter {
    fn default() -> Self {
        let marks = Marks {
            start: Instant::now(),
            moved: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        };
        Self {
            marks: Arc::new(marks),
            seen: 0,
        }
    }
}

impl Meter {
    /// Counts what `inner` moves.
    pub(super) fn watch<T>(&self, inner: T) -> Metered<T> {
        Metered {
            inner,
            marks: Arc::clone(&self.marks),
        }
    }

    /// Where its requests are noted.
    pub(super) fn requests(&self) -> Requests {
        Requests(Arc::clone(&self.marks))
    }

    /// For how long nothing has been sent and no request was in the works; zero if one is.
    pub(super) fn idle(&self) -> Duration {
        if self.marks.requests.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        let sent = Duration::from_millis(self.marks.sent.load(Ordering::Relaxed));
        self.marks.start.elapsed().saturating_sub(sent)
    }

    /// Octets moved since the last call.
    pub(super) fn lap(&mut self) -> u64 {
        let moved = self.marks.moved.load(Ordering::Relaxed);
        moved - std::mem::replace(&mut self.seen, moved)
    }
}

impl<T> Metered<T> {
    fn count(&self, octets: usize) {
        self.marks.moved.fetch_add(octets as u64, Ordering::Relaxed);
    }

    fn count_sent(&self, octets: usize) -> usize {
        let now = self.marks.start.elapsed().as_millis() as u64;
        self.marks.sent.store(now, Ordering::Relaxed);
        self.count(octets);
        octets
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.count(buffer.filled().len() - before);
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, octets);
        written.map_ok(|count| self.count_sent(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        written.map_ok(|count| self.count_sent(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn connections_with_a_request_or_an_answer_are_not_idle() {
        let meter = Meter::default();
        let mut connection = meter.watch(Vec::new());
        let pause = async || tokio::time::sleep(Duration::from_millis(20)).await;
        pause().await;
        assert!(meter.idle() >= Duration::from_millis(20));
        let working = meter.requests().begin();
        assert_eq!(meter.idle(), Duration::ZERO);
        drop(working);
        let idle = meter.idle();
        connection.write_all(b"answer").await.unwrap();
        assert!(meter.idle() < idle);
    }
}
