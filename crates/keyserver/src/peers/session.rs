//! From a connected socket to what a session found.
//!
//! Handshake, walker and solver are state machines without input or output; [`drive`] is the one place that joins
//! them to a socket. It goes on reading while it writes, or two peers that only write would wait for each other.
//! The machines read the tree, so they run where blocking is allowed.

use super::dataset::{Found, Kind, Manners, Set, Start};
use keyrink_recon::session::{Action, Agreement, Budget, Failure, Handshake, PeerConfig, Session, Settings};
use keyrink_recon::tree::Unavailable;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::block_in_place;

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The partner called: this node walks.
    Accepting,
    /// This node called: it answers and solves.
    Calling,
}

/// A connection that came to a session.
pub(crate) struct Met {
    /// What was reconciled.
    pub(crate) kind: &'static Kind,
    /// What was left out of it, in bits.
    pub(crate) omitted: String,
    /// How many elements this node had.
    pub(crate) held: u64,
    /// What came out.
    pub(crate) found: Found,
    /// What went over the connection, configurations included.
    pub(crate) octets: Octets,
}

/// Octets of a connection in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Octets {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// Why a connection came to no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The exchange of configurations failed.
    #[error(transparent)]
    Handshake(#[from] Failure),
    /// The set can't be read.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// It turned out to be somebody who is being answered already.
    #[error("it has a session with this node already")]
    Twice,
    /// Both agreed on something that this node does not have.
    #[error("no such dataset here: {0}")]
    NoSuchSet(String),
}

/// Runs a whole session. `heard` learns what the peer said about itself and decides whether a session starts.
pub(crate) async fn run(
    mut stream: TcpStream,
    role: Role,
    settings: Settings,
    manners: Manners,
    sets: &[Arc<dyn Set>],
    mut heard: impl FnMut(&PeerConfig) -> bool,
) -> Result<Met, SessionError> {
    let start = Instant::now();
    let _ = stream.set_nodelay(true);
    let mut octets = Octets::default();
    let mut handshake = match role {
        Role::Accepting => Handshake::accept(settings, start.elapsed()),
        Role::Calling => Handshake::call(settings, start.elapsed()),
    };
    let bounds = Bounds::until(HANDSHAKE_WITHIN);
    let agreed = drive(&mut handshake, &mut stream, start, bounds, &mut octets).await;
    let peer = match &agreed {
        Ok(agreement) => Some(&agreement.peer),
        Err(failure) => failure.peer(),
    };
    let welcome = peer.is_none_or(&mut heard);
    let Agreement {
        dataset,
        omission,
        frames,
        ..
    } = agreed?;
    if !welcome {
        return Err(SessionError::Twice);
    }
    let set = sets
        .iter()
        .find(|set| set.kind().name == dataset)
        .ok_or(SessionError::NoSuchSet(dataset))?;
    let omitted = omission.to_string();
    let begin = Start {
        frames,
        omission,
        manners: if set.kind().is_first() {
            Manners::default()
        } else {
            manners
        },
        seed: random(),
        now: start.elapsed(),
    };
    let (machine, held) = block_in_place(|| {
        let machine = match role {
            Role::Accepting => set.walker(begin),
            Role::Calling => set.solver(begin),
        };
        (machine, set.count())
    });
    let mut machine = machine?;
    let bounds = Bounds::until(Budget::default().session);
    let found = drive(&mut *machine, &mut stream, start, bounds, &mut octets).await;
    // What was written last must arrive before the connection is gone.
    let _ = tokio::time::timeout(PARTING, stream.shutdown()).await;
    Ok(Met {
        kind: set.kind(),
        omitted,
        held,
        found,
        octets,
    })
}

/// How long writing may take. The machines, which watch over everything else, are not asked meanwhile.
struct Bounds {
    /// How long a peer may leave what is written to it unread.
    unread: Duration,
    /// When nothing is written any more.
    end: Instant,
}

impl Bounds {
    fn until(whole: Duration) -> Self {
        Self {
            unread: WRITE_WITHIN,
            end: Instant::now() + whole,
        }
    }

    /// Until when the next octets have to be taken.
    fn next(&self) -> tokio::time::Instant {
        (Instant::now() + self.unread).min(self.end).into()
    }
}

/// Runs a state machine over a socket to its end, and counts what goes over it.
async fn drive<S: Session + Send + ?Sized>(
    machine: &mut S,
    stream: &mut TcpStream,
    start: Instant,
    bounds: Bounds,
    octets: &mut Octets,
) -> S::Outcome {
    let (mut reader, mut writer) = stream.split();
    let mut buffer = vec![0; BUFFER];
    let mut open = true;
    loop {
        match block_in_place(|| machine.poll(start.elapsed())) {
            Action::Finish(outcome) => return outcome,
            Action::Wait(until) => {
                if !(open && machine.wants_input()) {
                    // It waits for nothing but the time, so an end of its own making is near.
                    tokio::time::sleep(until.saturating_sub(start.elapsed()).min(TICK)).await;
                    continue;
                }
                let read = reader.read(&mut buffer);
                match tokio::time::timeout(until.saturating_sub(start.elapsed()), read).await {
                    Ok(count) => open = take(machine, count, &buffer, start, octets),
                    Err(_elapsed) => {}
                }
            }
            Action::Send(bytes) => {
                let (mut rest, mut taken_by) = (&bytes[..], bounds.next());
                while !rest.is_empty() {
                    tokio::select! {
                        written = tokio::time::timeout_at(taken_by, writer.write(rest)) => match written {
                            Ok(Ok(count @ 1..)) => {
                                octets.sent += count as u64;
                                (rest, taken_by) = (&rest[count..], bounds.next());
                            }
                            _ => {
                                machine.closed(start.elapsed());
                                break;
                            }
                        },
                        count = reader.read(&mut buffer), if open && machine.wants_input() => {
                            open = take(machine, count, &buffer, start, octets);
                        }
                    }
                }
            }
        }
    }
}

/// Hands what was read to the machine; false if nothing more will come.
fn take<S: Session + ?Sized>(
    machine: &mut S,
    count: io::Result<usize>,
    buffer: &[u8],
    start: Instant,
    octets: &mut Octets,
) -> bool {
    match count {
        Ok(count @ 1..) => {
            octets.received += count as u64;
            block_in_place(|| machine.receive(start.elapsed(), &buffer[..count]));
            true
        }
        Ok(0) | Err(_) => {
            block_in_place(|| machine.closed(start.elapsed()));
            false
        }
    }
}

/// A number that nobody else knows.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(Instant::now())
}

const BUFFER: usize = 64 << 10;
/// How long a peer may leave what is written to it unread.
const WRITE_WITHIN: Duration = Duration::from_secs(60);
/// The longest exchange of configurations; both sides have to be patient for less.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(120);
const PARTING: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Writes more than a socket holds until it is told that the connection is closed.
    struct Writer {
        closed: bool,
    }

    impl Session for Writer {
        type Outcome = ();

        fn receive(&mut self, _now: Duration, _bytes: &[u8]) {}

        fn closed(&mut self, _now: Duration) {
            self.closed = true;
        }

        fn wants_input(&self) -> bool {
            true
        }

        fn poll(&mut self, _now: Duration) -> Action<()> {
            match self.closed {
                true => Action::Finish(()),
                false => Action::Send(vec![0; 64 << 20]),
            }
        }
    }

    /// How long a peer keeps a session that sends an octet now and then, and reads so much at a time.
    async fn held(unread: Duration, whole: Duration, reads: usize) -> Duration {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let start = Instant::now();
        let end = start + whole;
        let peer = tokio::spawn(async move {
            let mut buffer = vec![0; reads];
            while peer.write_all(&[1]).await.is_ok() {
                let _ = peer.try_read(&mut buffer);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let driven = tokio::spawn(async move {
            let mut machine = Writer { closed: false };
            let mut octets = Octets::default();
            drive(&mut machine, &mut stream, start, Bounds { unread, end }, &mut octets).await;
        });
        let ended = tokio::time::timeout(Duration::from_secs(10), driven).await;
        peer.abort();
        ended.expect("it ends").unwrap();
        start.elapsed()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_peer_that_sends_and_never_reads_is_left() {
        let (short, long) = (Duration::from_millis(500), Duration::from_secs(30));
        assert!(held(short, long, 0).await >= short);
        assert!(held(long, short, 0).await >= short);
        // Who reads slowly is waited for, but not beyond the end of the session.
        let whole = Duration::from_secs(2);
        assert!(held(short, whole, 1 << 20).await >= whole);
    }
}
