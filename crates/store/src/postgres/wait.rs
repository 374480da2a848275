//! From asynchronous to blocking: waits for a future on the caller's thread, whatever thread that is.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// What `future` comes to, unless that takes until after `deadline`. Others have to drive whatever it waits for.
pub(super) fn wait<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // Wakes that have nothing to do with the future only poll it once more.
        thread::park_timeout(left);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future;
    use std::time::Duration;

    #[test]
    fn a_future_is_waited_for_and_not_for_ever() {
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(wait(soon, future::ready(7)), Some(7));
        assert_eq!(wait(soon, future::pending::<()>()), None);
        assert!(Instant::now() >= soon);
    }
}
