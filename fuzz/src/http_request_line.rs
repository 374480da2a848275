//! The repair of request lines: whatever pieces it is read in, it changes octets of the first line alone, and changes
//! nothing the second time.

use keyrink::http::request_line::RequestLine;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, ReadBuf};

/// Takes what comes from a connection.
pub fn run(input: &[u8]) {
    let whole = repaired(input, 4096);
    assert_eq!(repaired(input, 3), whole);
    assert_eq!(repaired(&whole, 4096), whole);
    let begin = input
        .iter()
        .position(|octet| !b"\r\n".contains(octet))
        .unwrap_or(input.len());
    let rest = input[begin..]
        .iter()
        .position(|&octet| octet == b'\n')
        .map_or(&[][..], |end| &input[begin + end..]);
    let line = whole.strip_suffix(rest).expect("nothing changes behind the first line");
    assert!(!line.iter().any(|octet| matches!(octet, b'"' | b'<' | b'>' | 0x7f..)));
    assert!(line.len() <= 3 * (input.len() - rest.len()));
}

fn repaired(input: &[u8], buffer_octets: usize) -> Vec<u8> {
    let (mut reader, mut out) = (pin!(RequestLine::new(input)), Vec::new());
    loop {
        let mut octets = vec![0; buffer_octets];
        let mut buffer = ReadBuf::new(&mut octets);
        let read = reader
            .as_mut()
            .poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
        assert!(matches!(read, Poll::Ready(Ok(()))), "octets at hand are read at once");
        if buffer.filled().is_empty() {
            return out;
        }
        out.extend(buffer.filled());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn request_lines_survive_anything() {
        let corpus = [
            &b"\r\nGET /?search=<a\"b>\xFF HTTP/1.0\r\nX: <a>\xFF\r\n\r\nGET /<> HTTP/1.1\r\n"[..],
            b"\n\n\r\n<",
            &[b'<'; 3000],
        ];
        crate::mutation::run(&corpus.map(<[u8]>::to_vec), super::run);
    }
}
