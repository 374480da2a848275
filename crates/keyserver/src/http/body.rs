//! Reading a request body within the limits of octets and time.

use super::room::{Held, NoRoom};
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How much body a client may send, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The longest body, in octets.
    pub octets: u64,
    /// The longest time from the first to the last octet.
    pub time: Duration,
}

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Longer than allowed; found out from `Content-Length` or while reading.
    #[error("the request body is longer than {0} octets")]
    TooLong(u64),
    /// The client sent too slowly.
    #[error("the request body did not arrive in time")]
    TooSlow,
    /// The connection broke, or the body's framing is wrong.
    #[error("the request body is broken")]
    Broken,
    /// What has arrived finds no room in memory.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}

impl BodyError {
    /// The status that tells the client.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::NoRoom(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// Reads the whole body into room that grows with what has arrived, never with what is announced. It may take ten seconds,
/// and one more for each KiB, as long as that is not more than all the time there is.
///
/// A body that is too long is read on and thrown away for a while, because a client that is still sending
/// would see its connection reset and never the answer that tells it why.
pub async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limits: BodyLimits,
    room: &mut Held,
) -> Result<Bytes, BodyError> {
    let waits_for_permission = headers.contains_key(header::EXPECT);
    let reading = async {
        let result = match body.size_hint().lower() > limits.octets {
            true => Err(BodyError::TooLong(limits.octets)),
            false => collect(&mut body, limits.octets, room).await,
        };
        if matches!(result, Err(BodyError::TooLong(_))) && !waits_for_permission {
            discard(body).await;
        }
        result
    };
    tokio::time::timeout(limits.time, reading)
        .await
        .unwrap_or(Err(BodyError::TooSlow))
}

async fn collect(body: &mut Body, octets_max: u64, room: &mut Held) -> Result<Bytes, BodyError> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut slowest = Instant::now() + PATIENCE;
    while let Some(frame) = timeout_at(slowest, body.frame())
        .await
        .map_err(|_| BodyError::TooSlow)?
    {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
            continue;
        };
        let octets = first.len() + all.len() + data.len();
        if octets as u64 > octets_max {
            return Err(BodyError::TooLong(octets_max));
        }
        let arrived = Instant::now();
        room.grow(octets).await?;
        slowest += arrived.elapsed() + TIME_PER_KIBIBYTE.mul_f64(data.len() as f64 / 1024.0);
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Reads a body on and throws it away, up to an end.
pub(super) async fn discard(mut body: Body) {
    let mut discarded = 0;
    while let Some(Ok(frame)) = body.frame().await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > DISCARD_OCTETS_MAX {
            return;
        }
    }
}

/// How long a client may take to begin with the body, and more for each KiB of it.
const PATIENCE: Duration = Duration::from_secs(10);
const TIME_PER_KIBIBYTE: Duration = Duration::from_secs(1);
/// How much of a body that is too long is read and thrown away.
const DISCARD_OCTETS_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::room::Room;

    const LIMITS: BodyLimits = BodyLimits {
        octets: 10,
        time: Duration::from_millis(50),
    };

    fn chunks(chunks: Vec<Vec<u8>>) -> Body {
        let mut frames: std::collections::VecDeque<_> = chunks.into();
        let next = move || frames.pop_front();
        Body::new(Chunks(Box::new(next)))
    }

    struct Chunks(Box<dyn FnMut() -> Option<Vec<u8>> + Send>);

    impl hyper::body::Body for Chunks {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Ready((self.0)().map(|chunk| Ok(hyper::body::Frame::data(chunk.into()))))
        }
    }

    async fn read(body: Body, limits: BodyLimits) -> Result<Bytes, BodyError> {
        let room = Room::new(1, 1);
        let mut room = room.open([127, 0, 0, 1].into());
        super::read(&HeaderMap::new(), body, limits, &mut room).await
    }

    struct Silent;

    impl hyper::body::Body for Silent {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }

    #[tokio::test]
    async fn bodies_are_bounded() {
        assert_eq!(
            read(Body::from("0123456789"), LIMITS).await.as_deref(),
            Ok(&b"0123456789"[..])
        );
        assert_eq!(
            read(Body::from("0123456789a"), LIMITS).await,
            Err(BodyError::TooLong(10))
        );
        assert_eq!(read(Body::empty(), LIMITS).await.as_deref(), Ok(&b""[..]));
        assert_eq!(
            read(chunks(vec![b"01234".into(), b"56".into(), b"7".into()]), LIMITS)
                .await
                .as_deref(),
            Ok(&b"01234567"[..])
        );
        assert_eq!(
            read(chunks(vec![b"01234".into(), b"567890".into()]), LIMITS).await,
            Err(BodyError::TooLong(10))
        );
        assert_eq!(read(Body::new(Silent), LIMITS).await, Err(BodyError::TooSlow));
    }
}
