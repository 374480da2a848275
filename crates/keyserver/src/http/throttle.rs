//! How much one network may ask: a bucket of tokens for each, which every request takes from as its route costs.
//!
//! Clients that find too few tokens are told when to come again. Peers wait instead: those of the first generation give up
//! a whole bundle when a request is refused, so of them only who has very many requests waiting is refused.

use crate::config;
use crate::network::Network;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tokens that a request to a route costs. One stands for a lookup of one certificate; what is as good as free, or is
/// bounded by itself, costs none.
pub(super) fn cost(route: &str) -> u32 {
    match route {
        // And the work of verifying, as soon as it is known.
        "/pks/add" | "/pks/delete" | "/pks/replace" => 5,
        "/pks/hashquery" | "/healthz" | "/pks/health" | "/readyz" | "/metrics" | "/assets/style.css"
        | "/assets/icon.svg" => 0,
        _ => 1,
    }
}

/// Tokens that a request cost beyond its [`cost`], noted in its answer, or that a question of a peer cost beyond one.
#[derive(Clone, Copy, Debug)]
pub(super) struct FurtherCost(pub(super) u32);

/// A bucket for each network of a client.
pub struct Throttle {
    per_second: f64,
    most: f64,
    /// Fewer than none: the most that somebody can owe.
    least: f64,
    exempt: Vec<Network>,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

/// Tokens at a moment; fewer than none when requests wait or were dearer than expected.
#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Throttle {
    /// For peers: so many requests a second of each network.
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second: per_second.into(),
            most: per_second.into(),
            least: -WAITING_SECS * f64::from(per_second),
            exempt: Vec::new(),
            buckets: Mutex::default(),
        }
    }

    /// For clients, as configured.
    pub(super) fn of_clients(throttle: &config::Throttle) -> Self {
        Self {
            most: throttle.tokens.get().into(),
            least: -f64::from(throttle.tokens.get()),
            exempt: throttle.exempt.clone(),
            ..Self::new(throttle.tokens_per_second)
        }
    }

    /// Takes what a request costs, or says how long it takes until there is enough. Costs above a full bucket are taken
    /// from a full one.
    pub(super) fn take(&self, client: IpAddr, cost: u32, now: Instant) -> Result<(), Duration> {
        if cost == 0 || self.spares(client) {
            return Ok(());
        }
        let cost = f64::from(cost);
        self.change(client, now, |tokens| {
            let missing = cost.min(self.most) - tokens;
            match missing > 0.0 {
                true => (tokens, Err(self.time_for(missing))),
                false => (tokens - cost, Ok(())),
            }
        })
    }

    /// Takes what a request turned out to cost besides. What anybody owes has an end: a full bucket, of peers what they may
    /// have to wait for.
    pub(super) fn charge(&self, client: IpAddr, FurtherCost(cost): FurtherCost, now: Instant) {
        if cost > 0 && !self.spares(client) {
            self.change(client, now, |tokens| ((tokens - f64::from(cost)).max(self.least), ()));
        }
    }

    /// How long a request of a peer has to wait; `None` if too many wait already.
    pub fn wait(&self, peer: IpAddr, now: Instant) -> Option<Duration> {
        self.change(peer, now, |tokens| match tokens - 1.0 {
            left if left < self.least => (tokens, None),
            left => (left, Some(self.time_for(-left))),
        })
    }

    /// Nobody is throttled, or not this one.
    fn spares(&self, client: IpAddr) -> bool {
        self.per_second == 0.0 || self.exempt.iter().any(|network| network.holds(client))
    }

    fn time_for(&self, tokens: f64) -> Duration {
        Duration::try_from_secs_f64(tokens.max(0.0) / self.per_second).unwrap_or(Duration::MAX)
    }

    fn change<T>(&self, client: IpAddr, now: Instant, change: impl FnOnce(f64) -> (f64, T)) -> T {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= NETWORKS_MAX {
            self.forget_some(&mut buckets, now);
        }
        let full = Bucket {
            tokens: self.most,
            at: now,
        };
        let bucket = buckets.entry(Network::of_client(client)).or_insert(full);
        let (tokens, answer) = change(self.tokens(bucket, now));
        *bucket = Bucket { tokens, at: now };
        answer
    }

    fn tokens(&self, bucket: &Bucket, now: Instant) -> f64 {
        let gained = now.duration_since(bucket.at).as_secs_f64() * self.per_second;
        (bucket.tokens + gained).min(self.most)
    }

    /// Forgets full buckets; if few are, those that are fuller than most, so that nobody gets rid of his debts by asking
    /// from elsewhere.
    fn forget_some(&self, buckets: &mut HashMap<IpAddr, Bucket>, now: Instant) {
        buckets.retain(|_, bucket| self.tokens(bucket, now) < self.most);
        if buckets.len() <= NETWORKS_MAX / 2 {
            return;
        }
        let mut all: Vec<f64> = buckets.values().map(|bucket| self.tokens(bucket, now)).collect();
        let median = *all.select_nth_unstable_by(NETWORKS_MAX / 2 - 1, f64::total_cmp).1;
        let emptier = all.iter().filter(|tokens| **tokens < median).count();
        let mut equal = NETWORKS_MAX / 2 - emptier;
        buckets.retain(|_, bucket| match self.tokens(bucket, now).total_cmp(&median) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => {
                let stays = equal > 0;
                equal -= usize::from(stays);
                stays
            }
        });
    }
}

/// Networks remembered at the same time: some 3 MiB.
const NETWORKS_MAX: usize = 1 << 16;
/// Requests of peers that would have to wait for longer are refused.
const WAITING_SECS: f64 = 20.0;

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn of_clients(tokens_per_second: u32, tokens: u32) -> Throttle {
        Throttle::of_clients(&config::Throttle {
            tokens_per_second,
            tokens: tokens.try_into().unwrap(),
            ..config::Throttle::default()
        })
    }

    #[test]
    fn peers_that_ask_too_often_wait_and_others_do_not() {
        let (throttle, now) = (Throttle::new(10), Instant::now());
        let mut waits = (0..30).map(|_| throttle.wait(ONE, now).unwrap());
        assert!(waits.by_ref().take(10).all(|wait| wait.is_zero()));
        assert_eq!(waits.last(), Some(Duration::from_secs(2)));
        assert_eq!(throttle.wait(OTHER, now), Some(Duration::ZERO));
        assert!((0..1000).any(|_| throttle.wait(ONE, now).is_none()));
    }

    #[test]
    fn long_answers_let_a_peer_wait_with_its_next_question() {
        let (throttle, now) = (Throttle::new(10), Instant::now());
        throttle.charge(ONE, FurtherCost(64), now);
        assert_eq!(throttle.wait(ONE, now), Some(Duration::from_millis(5500)));
        assert_eq!(throttle.wait(OTHER, now), Some(Duration::ZERO));
        throttle.charge(ONE, FurtherCost(u32::MAX), now);
        assert_eq!(throttle.wait(ONE, now), None, "there is an end to debts");
        assert!(throttle.wait(ONE, now + Duration::from_secs(1)).is_some());
    }

    #[test]
    fn clients_that_ask_too_much_are_told_when_to_come_again() {
        let (throttle, now) = (of_clients(2, 10), Instant::now());
        assert_eq!((0..9).find(|_| throttle.take(ONE, 1, now).is_err()), None);
        assert_eq!(throttle.take(ONE, 5, now), Err(Duration::from_secs(2)));
        assert_eq!(throttle.take(ONE, 1, now), Ok(()), "what is cheaper passes");
        assert_eq!(throttle.take(OTHER, 5, now), Ok(()));
        let later = now + Duration::from_millis(2500);
        assert_eq!(throttle.take(ONE, 5, later), Ok(()));
        let later = now + Duration::from_secs(60);
        assert_eq!((0..99).find(|_| throttle.take(ONE, 1, later).is_err()), Some(10));
        assert_eq!(
            throttle.take(OTHER, 1000, later),
            Ok(()),
            "what costs more than all is possible"
        );
    }

    #[test]
    fn what_was_dearer_than_expected_is_paid_later() {
        let (throttle, now) = (of_clients(2, 10), Instant::now());
        throttle.charge(ONE, FurtherCost(14), now);
        assert_eq!(throttle.take(ONE, 1, now), Err(Duration::from_millis(2500)));
        throttle.charge(ONE, FurtherCost(u32::MAX), now);
        let wait = Err(Duration::from_millis(5500));
        assert_eq!(throttle.take(ONE, 1, now), wait, "there is an end to debts");
    }

    #[test]
    fn neighbours_share_and_the_exempt_do_not() {
        let (throttle, free, now) = (of_clients(1, 1), of_clients(0, 1), Instant::now());
        let takes = |text: &str| throttle.take(text.parse().unwrap(), 1, now).is_ok();
        assert!(takes("2001:db8::1") && !takes("2001:db8::2") && takes("2001:db8:0:1::1"));
        assert!((0..99).all(|_| takes("127.0.0.1") && takes("::1")));
        assert!((0..99).all(|_| free.take(ONE, 1, now).is_ok()));
    }

    #[test]
    fn the_table_is_bounded_and_debts_stay() {
        let (throttle, now) = (of_clients(1, 600), Instant::now());
        throttle.charge(ONE, FurtherCost(1000), now);
        for n in 0..3 * NETWORKS_MAX as u32 {
            let _ = throttle.take(std::net::Ipv4Addr::from_bits(0x0A00_0000 + n).into(), 1, now);
        }
        assert!(throttle.buckets.lock().unwrap().len() <= NETWORKS_MAX);
        assert!(throttle.take(ONE, 1, now).is_err());
    }
}
