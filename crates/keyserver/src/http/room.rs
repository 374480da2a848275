//! Room in memory for what many requests hold at the same time, so that slow clients cannot add it up without bound.
//!
//! A request holds room for what it has in memory and gives it back when that is gone. Nobody gets more than a share:
//! who holds his share waits for himself, not in front of others. Waiting ends after `WAIT`.

use crate::network::Network;
use bytes::Bytes;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for all requests of one kind together.
pub struct Room {
    /// One permit for each kibibyte.
    all: Arc<Semaphore>,
    /// Kibibytes that one client may hold.
    share: u32,
    clients: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

/// What one request holds; dropping it gives everything back.
pub struct Held {
    client: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
    share: u32,
}

/// Others hold all there is, and did not give it back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much is in memory already: try again in a minute")]
pub struct NoRoom;

impl Room {
    /// Room for `octets` octets, of which each client may hold a quarter, but always `largest` octets.
    pub fn new(octets: u64, largest: u64) -> Self {
        let share = kibibytes(octets / SHARES).max(kibibytes(largest));
        Self {
            all: Arc::new(Semaphore::new(kibibytes(octets).max(share) as usize)),
            share,
            clients: Mutex::default(),
        }
    }

    /// Places for so many at the same time, of which each client may have one: what anything grows to takes it.
    pub fn of_places(places: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(places)),
            share: 1,
            clients: Mutex::default(),
        }
    }

    /// Nothing yet, for a request of `client`. A network of IPv6 that one household gets is one client.
    pub fn open(&self, client: IpAddr) -> Held {
        let none = |semaphore: Arc<Semaphore>| {
            let permit = semaphore.try_acquire_many_owned(0);
            permit.expect("nothing is always free, and nobody closes this")
        };
        Held {
            client: none(self.client(Network::of_client(client))),
            all: none(Arc::clone(&self.all)),
            share: self.share,
        }
    }

    fn client(&self, network: IpAddr) -> Arc<Semaphore> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&network).and_then(Weak::upgrade) {
            return client;
        }
        if clients.len() == clients.capacity() {
            clients.retain(|_, client| client.strong_count() > 0);
        }
        let client = Arc::new(Semaphore::new(self.share as usize));
        clients.insert(network, Arc::downgrade(&client));
        client
    }
}

impl Held {
    /// Waits until it holds room for `octets` octets; what no share can hold gets a whole share.
    pub async fn grow(&mut self, octets: usize) -> Result<(), NoRoom> {
        let wanted = kibibytes(octets as u64).min(self.share);
        let more = wanted.saturating_sub(self.kibibytes());
        if more == 0 {
            return Ok(());
        }
        let (client, all) = (self.client.semaphore().clone(), self.all.semaphore().clone());
        let both = async {
            let client = client.acquire_many_owned(more).await.ok()?;
            Some((client, all.acquire_many_owned(more).await.ok()?))
        };
        let both = tokio::time::timeout(WAIT, both).await.ok().flatten();
        let (client, all) = both.ok_or(NoRoom)?;
        self.client.merge(client);
        self.all.merge(all);
        Ok(())
    }

    /// Gives back what is more than `octets` octets.
    pub fn shrink(&mut self, octets: usize) {
        let spare = self.kibibytes().saturating_sub(kibibytes(octets as u64)) as usize;
        drop((self.client.split(spare), self.all.split(spare)));
    }

    /// Octets that keep their room until the last copy of them is dropped.
    pub fn keep(mut self, octets: Vec<u8>) -> Bytes {
        self.shrink(octets.len());
        Bytes::from_owner(Kept { octets, _held: self })
    }

    fn kibibytes(&self) -> u32 {
        u32::try_from(self.all.num_permits()).unwrap_or(u32::MAX)
    }
}

struct Kept {
    octets: Vec<u8>,
    _held: Held,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

fn kibibytes(octets: u64) -> u32 {
    u32::try_from(octets.div_ceil(1024))
        .unwrap_or(u32::MAX)
        .min(KIBIBYTES_MAX)
}

/// How long a request waits until those before it have gone.
const WAIT: Duration = Duration::from_secs(10);
/// Shares in all the room.
const SHARES: u64 = 4;
/// More than the memory of any machine; a semaphore of 32-bit systems holds no more.
const KIBIBYTES_MAX: u32 = u32::MAX >> 4;

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// Does it get so much, or would it wait?
    async fn gets(held: &mut Held, octets: usize) -> bool {
        let grown = tokio::time::timeout(Duration::from_millis(20), held.grow(octets)).await;
        grown == Ok(Ok(()))
    }

    #[tokio::test]
    async fn a_client_gets_a_share_and_gives_it_back() {
        let room = Room::new(4 << 20, 1);
        let (mut first, mut second) = (room.open(ONE), room.open(ONE));
        assert!(gets(&mut first, 600 << 10).await);
        assert!(!gets(&mut second, 600 << 10).await, "more than a share");
        let mut other = room.open(OTHER);
        assert!(gets(&mut other, 64 << 20).await);
        assert_eq!(other.kibibytes(), 1024, "a share is the most");
        let kept = first.keep(vec![1; 100 << 10]);
        assert!(gets(&mut second, 900 << 10).await);
        let copy = kept.clone();
        drop(kept);
        assert!(!gets(&mut second, 1 << 20).await, "a copy is left");
        drop(copy);
        assert!(gets(&mut second, 1 << 20).await);
    }

    #[tokio::test]
    async fn all_together_get_no_more_than_there_is() {
        let room = Room::new(4 << 20, 1);
        let mut all: Vec<Held> = (0..5).map(|number| room.open([192, 0, 2, number].into())).collect();
        for (number, held) in all.iter_mut().enumerate() {
            assert_eq!(gets(held, 1 << 20).await, number < 4);
        }
        all[0].shrink(1 << 19);
        assert!(gets(&mut all[4], 1 << 19).await);
    }
}
