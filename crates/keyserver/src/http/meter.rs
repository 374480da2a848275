//! Finds connections that move next to nothing, so that slow readers and idle HTTP/2 peers don't hold a place for ever.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that counts the octets it moves.
pub(super) struct Metered<T> {
    inner: T,
    moved: Arc<AtomicU64>,
}

/// How much a connection has moved; shared with its [`Metered`] end.
#[derive(Default)]
pub(super) struct Meter {
    moved: Arc<AtomicU64>,
    seen: u64,
}

impl Meter {
    /// Counts what `inner` moves.
    pub(super) fn watch<T>(&self, inner: T) -> Metered<T> {
        Metered {
            inner,
            moved: self.moved.clone(),
        }
    }

    /// Octets moved since the last call.
    pub(super) fn lap(&mut self) -> u64 {
        let moved = self.moved.load(Ordering::Relaxed);
        moved - std::mem::replace(&mut self.seen, moved)
    }
}

impl<T> Metered<T> {
    fn count(&self, octets: usize) {
        self.moved.fetch_add(octets as u64, Ordering::Relaxed);
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
        Pin::new(&mut self.inner).poll_write(cx, octets).map_ok(|count| {
            self.count(count);
            count
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner)
            .poll_write_vectored(cx, slices)
            .map_ok(|count| {
                self.count(count);
                count
            })
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
