//! Repairs the first request line of a connection, for clients that do not escape what a URI must not hold.
//!
//! GnuPG's dirmngr 2.2 sends `GET /pks/lookup?op=index&search=Name%20<mail@host> HTTP/1.0`, with the angle brackets
//! as they are; hyper refuses such a line. [`RequestLine`] sits between the socket and hyper and percent-encodes the
//! offending octets of the first line, so that everything behind it sees a valid request of the same meaning.
//! Only the first line of a connection is looked at: the clients in question close after each answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose first request line is repaired while it is read.
pub struct RequestLine<T> {
    inner: T,
    state: State,
}

enum State {
    /// The end of the first line has not been read yet.
    Repairing(Repaired),
    /// Everything is passed on as it is.
    Passing,
}

/// Repaired octets that have been read but did not fit into the reader's buffer yet.
#[derive(Default)]
struct Repaired {
    octets: Vec<u8>,
    taken: usize,
    line_ended: bool,
}

impl<T> RequestLine<T> {
    /// Wraps a connection from which nothing has been read yet.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            state: State::Repairing(Repaired::default()),
        }
    }
}

impl Repaired {
    /// Repairs what lies in `raw` up to the end of the first line and keeps the rest as it is.
    fn extend(&mut self, raw: &[u8]) {
        for (i, &octet) in raw.iter().enumerate() {
            match octet {
                b'"' | b'<' | b'>' | 0x7F.. => self.octets.extend([b'%', hex(octet >> 4), hex(octet & 15)]),
                b'\n' if self.line_begun() => {
                    self.octets.extend(&raw[i..]);
                    self.line_ended = true;
                    return;
                }
                _ => self.octets.push(octet),
            }
        }
    }

    /// Empty lines before a request are allowed (RFC 9112, section 2.2) and are not the request line.
    fn line_begun(&self) -> bool {
        self.taken > 0 || self.octets.iter().any(|octet| !matches!(octet, b'\r' | b'\n'))
    }

    fn copy_into(&mut self, buffer: &mut ReadBuf<'_>) {
        let rest = &self.octets[self.taken..];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.taken += count;
    }

    fn is_empty(&self) -> bool {
        self.taken == self.octets.len()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for RequestLine<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let State::Repairing(repaired) = &mut this.state else {
            return Pin::new(&mut this.inner).poll_read(cx, buffer);
        };
        if repaired.is_empty() {
            let mut raw = [0; CHUNK_OCTETS];
            let mut chunk = ReadBuf::new(&mut raw);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            repaired.extend(chunk.filled());
        }
        repaired.copy_into(buffer);
        if repaired.line_ended && repaired.is_empty() {
            this.state = State::Passing;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for RequestLine<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
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

fn hex(digit: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(digit)]
}

/// How much is read at once while the first line is repaired; most requests fit.
const CHUNK_OCTETS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    async fn repaired(input: &[u8], buffer_octets: usize) -> Vec<u8> {
        let mut reader = RequestLine::new(input);
        let mut output = Vec::new();
        let mut buffer = vec![0; buffer_octets];
        loop {
            let count = reader.read(&mut buffer).await.unwrap();
            if count == 0 {
                return output;
            }
            output.extend(&buffer[..count]);
        }
    }

    #[tokio::test]
    async fn only_the_first_line_changes() {
        let input = b"\r\nGET /?search=<a\"b>\xFF HTTP/1.0\r\nX: <a>\xFF\r\n\r\nGET /<> HTTP/1.1\r\n";
        let expected = b"\r\nGET /?search=%3Ca%22b%3E%FF HTTP/1.0\r\nX: <a>\xFF\r\n\r\nGET /<> HTTP/1.1\r\n";
        for buffer_octets in [1, 2, 3, 7, 4096] {
            assert_eq!(
                repaired(input, buffer_octets).await,
                expected,
                "buffer of {buffer_octets}"
            );
        }
    }

    #[tokio::test]
    async fn long_lines_pass_in_chunks() {
        let line = [vec![b'<'; 3 * CHUNK_OCTETS], b"\n<".to_vec()].concat();
        let expected = ["%3C".repeat(3 * CHUNK_OCTETS).into_bytes(), b"\n<".to_vec()].concat();
        assert_eq!(repaired(&line, 100).await, expected);
        assert_eq!(repaired(b"", 10).await, b"");
    }
}
