//! Completes the answers that hyper gives without asking us: to requests that it cannot read, or whose headers are too long.
//!
//! They are heads without a body (`HTTP/1.1 431 ...`) and lack what [`super::answer`] gives to every other answer, so
//! that a script in a browser may not even read the status. [`HyperRefusals`] sits between hyper and the socket and adds
//! those headers. HTTP/2 has no such answers but one for long headers, which nobody can complete from here.

use super::answer;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection on which the server's own answers are complete.
pub(super) struct HyperRefusals<T> {
    inner: T,
    /// An answer that was completed and is not yet written.
    completed: Vec<u8>,
    /// Everything before was flushed, so that what is written next can be the head of an answer.
    flushed: bool,
}

impl<T> HyperRefusals<T> {
    /// Wraps a connection to which nothing has been written yet.
    pub(super) fn new(inner: T) -> Self {
        Self {
            inner,
            completed: Vec::new(),
            flushed: true,
        }
    }
}

impl<T: AsyncWrite + Unpin> HyperRefusals<T> {
    fn poll_completed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.completed.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.completed))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.completed.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes over what is about to be written if it is an answer of the server's own.
    fn takes(&mut self, octets: &[u8]) -> bool {
        let flushed = std::mem::replace(&mut self.flushed, false);
        if flushed && let Some(completed) = completed(octets) {
            self.completed = completed;
        }
        !self.completed.is_empty()
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for HyperRefusals<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_completed(cx))?;
        if self.takes(octets) {
            return Poll::Ready(Ok(octets.len()));
        }
        Pin::new(&mut self.inner).poll_write(cx, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_completed(cx))?;
        // An own answer has no body: it comes as the only slice.
        let only = if let [only] = slices { &**only } else { &[] };
        if self.takes(only) {
            return Poll::Ready(Ok(only.len()));
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_completed(cx))?;
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_completed(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for HyperRefusals<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

/// The answer with the headers that all have, if it is the whole head of a refusal that lacks them.
fn completed(answer: &[u8]) -> Option<Vec<u8>> {
    let refuses = answer.starts_with(b"HTTP/1.") && answer.get(9) == Some(&b'4');
    if !refuses || answer.len() > HEAD_OCTETS_MAX {
        return None;
    }
    let head = std::str::from_utf8(answer).ok()?.strip_suffix("\r\n\r\n")?;
    let (name, _) = &answer::ALWAYS[0];
    if head.contains("\r\n\r\n") || head.contains(name.as_str()) {
        return None;
    }
    let mut completed = head.as_bytes().to_vec();
    for (name, value) in &answer::ALWAYS {
        for part in [&b"\r\n"[..], name.as_ref(), b": ", value.as_bytes()] {
            completed.extend_from_slice(part);
        }
    }
    completed.extend_from_slice(b"\r\n\r\n");
    Some(completed)
}

/// Longer than the answers in question.
const HEAD_OCTETS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const REFUSAL: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";

    async fn written(pieces: &[&[u8]]) -> String {
        let mut connection = HyperRefusals::new(Vec::new());
        for piece in pieces {
            connection.write_all(piece).await.unwrap();
        }
        connection.shutdown().await.unwrap();
        String::from_utf8(connection.inner).unwrap()
    }

    #[tokio::test]
    async fn refusals_are_completed() {
        let head = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n";
        let headers = "access-control-allow-origin: *\r\nx-content-type-options: nosniff\r\n\r\n";
        assert_eq!(written(&[REFUSAL]).await, format!("{head}{headers}"));
    }

    #[tokio::test]
    async fn other_octets_pass_as_they_are() {
        let complete = b"HTTP/1.1 404 Not Found\r\naccess-control-allow-origin: *\r\n\r\n";
        for pieces in [
            &[&complete[..]][..],
            &[b"HTTP/1.1 200 OK\r\n\r\n", REFUSAL],
            &[&[REFUSAL, b"body"].concat()],
        ] {
            assert_eq!(written(pieces).await.as_bytes(), pieces.concat());
        }
    }
}
