//! How often one address may ask: a bucket of tokens for each.
//!
//! Whoever asks too often waits. Peers of the first generation give up a whole bundle when a request is refused, so
//! only who has very many requests waiting is refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A bucket for each address.
pub struct Throttle {
    per_second: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

/// Tokens at a moment; fewer than none when requests wait.
#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Throttle {
    /// So many requests a second from each address.
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            buckets: Mutex::default(),
        }
    }

    /// How long a request from `address` has to wait; `None` if too many wait already.
    pub fn wait(&self, address: IpAddr) -> Option<Duration> {
        let now = Instant::now();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= ADDRESSES_MAX {
            let rate = self.per_second;
            buckets.retain(|_, bucket| bucket.refilled(now, rate) < rate);
            // Still too many: those who flood from everywhere share nothing with anybody.
            if buckets.len() >= ADDRESSES_MAX {
                buckets.clear();
            }
        }
        let full = Bucket {
            tokens: self.per_second,
            at: now,
        };
        let bucket = buckets.entry(address).or_insert(full);
        let tokens = bucket.refilled(now, self.per_second) - 1.0;
        if tokens < -WAITING_SECS * self.per_second {
            return None;
        }
        *bucket = Bucket { tokens, at: now };
        Some(Duration::from_secs_f64((-tokens).max(0.0) / self.per_second))
    }
}

impl Bucket {
    fn refilled(&self, now: Instant, rate: f64) -> f64 {
        let gained = now.duration_since(self.at).as_secs_f64() * rate;
        (self.tokens + gained).min(rate)
    }
}

const ADDRESSES_MAX: usize = 4096;
/// Requests that would have to wait for longer are refused.
const WAITING_SECS: f64 = 20.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_often_waits_and_others_do_not() {
        let throttle = Throttle::new(10);
        let (one, other) = (IpAddr::from([1, 2, 3, 4]), IpAddr::from([1, 2, 3, 5]));
        let mut waits = (0..30).map(|_| throttle.wait(one).unwrap());
        assert!(waits.by_ref().take(10).all(|wait| wait.is_zero()));
        let last = waits.last().unwrap();
        assert!((1.5..2.1).contains(&last.as_secs_f64()), "{last:?}");
        assert_eq!(throttle.wait(other), Some(Duration::ZERO));
        assert!((0..1000).any(|_| throttle.wait(one).is_none()));
    }
}
