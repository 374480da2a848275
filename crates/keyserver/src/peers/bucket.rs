//! A bucket of tokens: so much at once, and then one now and then.

use std::time::{Duration, Instant};

/// Tokens at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: f64,
    most: f64,
    at: Instant,
}

impl Bucket {
    /// A full one that holds so many.
    pub(super) fn full(most: u32) -> Self {
        Self {
            tokens: most.into(),
            most: most.into(),
            at: Instant::now(),
        }
    }

    /// Takes a token if there is one; one comes in each time.
    pub(super) fn take(&mut self, each: Duration) -> bool {
        self.take_at(Instant::now(), each)
    }

    fn take_at(&mut self, now: Instant, each: Duration) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let gained = passed / each.as_secs_f64().max(f64::MIN_POSITIVE);
        self.tokens = (self.tokens + gained).min(self.most);
        self.at = now;
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_one_now_and_then() {
        let (mut bucket, each) = (Bucket::full(3), Duration::from_secs(6));
        let start = bucket.at;
        let mut given = |seconds| {
            (0..10)
                .filter(|_| bucket.take_at(start + Duration::from_secs(seconds), each))
                .count()
        };
        assert_eq!((given(0), given(5), given(7), given(1000)), (3, 0, 1, 3));
    }
}
