//! Calling partners: soon after a change here, and now and then without one.
//!
//! Each partner has a task that waits for its timer or for a change. Changes that follow one another are put
//! together, and calls for their sake keep a distance that grows while they go on, so that a long load does not turn
//! into a flood. A partner that can't be reached is called less and less often.

use super::Node;
use super::dataset::{FIRST_TREE, Kind, REALM};
use super::figures;
use super::partner::{Partner, now};
use super::session::{self, Met, Role, SessionError, random};
use super::status::{Doing, Trouble};
use keyrink_recon::session::{End, Failure, Fault};
use keyrink_recon::wire::WireError;
use keyrink_store::Vector;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

/// Calls a partner again and again until it is none any more.
pub(crate) async fn call_again(node: Arc<Node>, partner: Arc<Partner>) {
    let mut removed = partner.removed.subscribe();
    let mut schedule = Schedule::new(node.gossip);
    // The token of the last call; zero where no lease is needed.
    let mut used = 0;
    loop {
        schedule.pace = if partner.is_second(&node.kinds()) {
            &QUICK
        } else {
            &STEADY
        };
        let next = tokio::select! {
            () = tokio::time::sleep_until(schedule.due) => Next::Call,
            () = partner.wake.notified() => Next::Hurry,
            _ = removed.wait_for(|removed| *removed) => Next::End,
        };
        // Whoever takes a lease goes on at once where another server has stopped.
        let taken = partner.lease.token().is_some_and(|token| token != used);
        match next {
            Next::Call => {}
            Next::Hurry if taken => {}
            Next::Hurry => {
                schedule.hurry(partner.report().failures > 0);
                continue;
            }
            Next::End => return,
        }
        let called = partner.accepting.available_permits() == 0;
        if called || partner.queue.len() > 0 || partner.barred().is_some() {
            // Two sessions at once would find the same, and so would one before what is missing has come.
            schedule.due = Instant::now() + if taken { AGAIN } else { schedule.pace.spacing_min };
            continue;
        }
        let Some(token) = partner.lease.token() else {
            // Another server calls it. Whoever takes the lease is woken.
            schedule.due = Instant::now() + STEADY.spacing_min;
            continue;
        };
        tracing::debug!(partner = partner.name(), token, "calling");
        used = token;
        tokio::select! {
            _ = call(&node, &partner) => {}
            () = lost(&partner, token) => {
                tracing::info!(partner = partner.name(), token, "the lease is lost in the midst of a call: another server may call it");
                partner.enter(Doing::Waiting);
            }
        }
        schedule.called(partner.report().setbacks());
    }
}

/// Comes when the lease is not this one any more: whoever has it next must not meet a session of this server.
async fn lost(partner: &Partner, token: u64) {
    while partner.lease.token() == Some(token) {
        tokio::time::sleep(LOST_WITHIN).await;
    }
}

/// How soon it is seen that a lease is lost.
const LOST_WITHIN: Duration = Duration::from_millis(100);

enum Next {
    Call,
    Hurry,
    End,
}

/// How soon a change is worth a call.
#[derive(Debug)]
struct Pace {
    /// Changes seldom come alone: so long they are waited for.
    together: Duration,
    /// The least time between two calls because of changes.
    spacing_min: Duration,
    /// The most that grows to while changes go on; none for the usual interval.
    spacing_max: Option<Duration>,
}

/// With peers that compare whole certificates: each call costs them a fetch of all that changed.
static STEADY: Pace = Pace {
    together: Duration::from_secs(1),
    spacing_min: Duration::from_secs(5),
    spacing_max: None,
};

/// With peers that compare single signatures: a call without a difference costs some hundred octets.
static QUICK: Pace = Pace {
    together: Duration::ZERO,
    spacing_min: Duration::from_millis(400),
    spacing_max: Some(Duration::from_millis(800)),
};

/// When a partner is called next.
struct Schedule {
    pace: &'static Pace,
    interval: Duration,
    due: Instant,
    last: Option<Instant>,
    /// The distance that the next call after a change keeps from the last one.
    spacing: Duration,
    hurried: bool,
}

impl Schedule {
    fn new(interval: Duration) -> Self {
        Self {
            pace: &STEADY,
            interval,
            due: Instant::now() + vary(FIRST_CALL),
            last: None,
            spacing: STEADY.spacing_min,
            hurried: false,
        }
    }

    /// Something changed here. A partner that does not answer is not called for that.
    fn hurry(&mut self, failing: bool) {
        if failing {
            return;
        }
        let soon = Instant::now() + self.pace.together;
        let spacing = self.spacing.min(self.pace.spacing_max.unwrap_or(self.spacing));
        let earliest = self.last.map_or(soon, |last| soon.max(last + spacing));
        if earliest < self.due {
            self.due = earliest;
            self.hurried = true;
        }
    }

    /// A call was made; so many have failed in a row.
    fn called(&mut self, failures: u32) {
        self.spacing = match self.hurried {
            true => {
                let most = self.interval.max(self.pace.spacing_min);
                (self.spacing * 2).min(self.pace.spacing_max.unwrap_or(most))
            }
            false => self.pace.spacing_min,
        };
        self.hurried = false;
        let pause = self
            .interval
            .saturating_mul(1 << failures.saturating_sub(FAILURES_FREE).min(16))
            .min(PAUSE_MAX.max(self.interval));
        let now = Instant::now();
        self.last = Some(now);
        self.due = now + vary(pause);
    }
}

/// A duration, longer or shorter by up to a tenth.
fn vary(duration: Duration) -> Duration {
    let tenths = (random() % 2001) as f64 / 10_000.0 - 0.1;
    duration.mul_f64(1.0 + tenths)
}

/// Wakes all partners' tasks after the set changed, whoever changed it.
pub(crate) async fn watch(node: Arc<Node>) {
    let mut seen: Option<Vector> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if node.partners().is_empty() {
            seen = None;
            continue;
        }
        let Some(vector) = node.vector().await else {
            continue;
        };
        let known = seen.replace(vector.clone());
        if known.is_none_or(|known| known == vector) {
            continue;
        }
        node.partners().iter().for_each(|partner| partner.wake.notify_one());
    }
}

/// Calls a partner once, and once more for each further realm that both have; false if that came to no session.
pub(crate) async fn call(node: &Node, partner: &Arc<Partner>) -> bool {
    let mut came = call_about(node, partner, REALM).await;
    for realm in node.kinds().realms().into_iter().skip(1) {
        let trees = partner.report().trees;
        if came && trees.iter().any(|tree| tree.split('/').next() == Some(realm)) {
            // Whoever was called needs a moment to be done with the session before.
            tokio::time::sleep(BETWEEN_REALMS).await;
            came = call_about(node, partner, realm).await;
        }
    }
    came
}

async fn call_about(node: &Node, partner: &Arc<Partner>, realm: &str) -> bool {
    let Ok(_one) = partner.calling.try_acquire() else {
        return false;
    };
    partner.enter(Doing::Calling);
    figures::count_call(partner.name());
    let stream = match connect(&node.addresses, partner).await {
        Ok(stream) => stream,
        Err(error) => {
            let error = format!("{} cannot be reached: {error}", partner.config.recon);
            partner.complain(Trouble::Unreachable, &error);
            partner.note(|report| report.failures = report.failures.saturating_add(1));
            partner.enter(Doing::Failing);
            return false;
        }
    };
    // Only now, so that partners that cannot be reached hold no place.
    let Ok(_place) = node.calling.acquire().await else {
        return false;
    };
    let mut settings = node.settings(partner, realm);
    if realm == REALM && partner.is_first_due(&node.kinds(), node.first_every) {
        settings.wanted = Some(FIRST_TREE.to_owned());
    }
    let manners = node.manners(partner);
    let met = session::run(stream, Role::Calling, settings, manners, &node.sets, |peer| {
        partner.learn(peer, &node.kinds());
        true
    })
    .await;
    conclude(node, partner, Role::Calling, met)
}

/// Between two sessions with a partner about different realms.
const BETWEEN_REALMS: Duration = Duration::from_millis(300);

/// Connects to the first of its addresses that answers.
pub(crate) async fn connect(own: &[IpAddr], partner: &Partner) -> io::Result<TcpStream> {
    let mut last = io::Error::other("its name does not resolve");
    for address in partner.resolve().await {
        let attempt = reach(own, SocketAddr::new(address, partner.recon().port));
        match tokio::time::timeout(CONNECT_WITHIN, attempt).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Connects from the address at which partners know this node.
async fn reach(own: &[IpAddr], address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    let same = own
        .iter()
        .find(|own| own.is_ipv4() == address.is_ipv4() && own.is_loopback() == address.ip().is_loopback());
    if let Some(own) = same {
        socket.bind(SocketAddr::new(*own, 0))?;
    }
    socket.connect(address).await
}

/// Works in what a connection came to; false if there was no session.
pub(crate) fn conclude(node: &Node, partner: &Partner, role: Role, met: Result<Met, SessionError>) -> bool {
    match met {
        Ok(met) => {
            session_ended(node, partner, role, met);
            true
        }
        Err(error) => {
            // The way in which SKS says that it is busy: no reason to call less often.
            let busy = matches!(error, SessionError::Handshake(Failure::Disconnected));
            match busy {
                true => partner.complain(Trouble::Busy, BUSY),
                false => partner.complain(Trouble::Handshake, &format!("no session: {error}")),
            }
            let failed = role == Role::Calling && !busy;
            partner.note(|report| report.failures = report.failures.saturating_add(u32::from(failed)));
            partner.enter(if busy { Doing::Waiting } else { Doing::Failing });
            false
        }
    }
}

fn session_ended(node: &Node, partner: &Partner, role: Role, met: Met) {
    let Met {
        kind,
        omitted,
        held,
        found,
        octets,
    } = met;
    let (name, differences) = (partner.name(), found.missing.len());
    let is_whole = found.end == End::Complete;
    let error = match &found.end {
        End::Complete | End::Limit(_) => None,
        End::Fault(Fault::Wire(WireError::FrameTooLong { .. })) => {
            partner.bar(super::TOO_FAR, held);
            Some(super::TOO_FAR.to_owned())
        }
        end => Some(end.to_string()),
    };
    match &error {
        Some(error) => partner.complain(Trouble::Session, &format!("the session ended early: {error}")),
        None if differences > 0 => {
            let requests = found.tally.requests;
            tracing::info!(partner = name, differences, requests, "session: {}", found.end);
        }
        None => tracing::debug!(partner = name, "session: no difference"),
    }
    let back = role == Role::Accepting && error.is_none() && partner.report().failures > 0;
    figures::count_session(name, octets);
    note_parts(partner, kind, &omitted, found.refused);
    partner.note(|report| {
        report.dataset = Some(kind.name.to_owned());
        report.sessions += 1;
        report.last_session = Some(now());
        report.called = role == Role::Calling;
        report.differences = differences as u64;
        report.received += octets.received;
        report.sent += octets.sent;
        report.failures = match (error, role) {
            (None, _) => 0,
            (Some(_), Role::Calling) => report.failures.saturating_add(1),
            (Some(_), Role::Accepting) => report.failures,
        };
    });
    partner.enter(Doing::Waiting);
    if back {
        // It can be called again; whoever wakes must see that it does not fail any more.
        partner.wake.notify_one();
    }
    partner.queue.add(kind, found.missing, is_whole);
    partner.settle_first(node.first_every);
}

/// Remembers what a session left out or did not get.
fn note_parts(partner: &Partner, kind: &Kind, omitted: &str, refused: Vec<(String, u8, String)>) {
    if kind.is_first() {
        return;
    }
    if partner.report().omitted != omitted {
        // It may say something else each time; `keyrink peers` shows what it said last.
        tracing::debug!(partner = partner.name(), "left out of sessions with it: {omitted:?}");
        partner.note(|report| report.omitted = omitted.to_owned());
    }
    partner.note_refused(refused);
}

/// What it means when a connection is closed before anything was said.
pub(crate) const BUSY: &str = "it closed the connection at once: it is busy, or does not know this node's address";
/// The first call after a start.
const FIRST_CALL: Duration = Duration::from_millis(300);
/// How soon another attempt is made to call on a lease that was just taken.
const AGAIN: Duration = Duration::from_millis(500);
/// Failures in a row that change nothing: a restart, a moment without network.
const FAILURES_FREE: u32 = 2;
/// The longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How often the version of the store is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_keep_their_distance() {
        let mut schedule = Schedule::new(Duration::from_secs(60));
        let wait = |schedule: &Schedule| schedule.due.duration_since(Instant::now()).as_secs_f64();
        schedule.called(0);
        assert!((53.0..67.0).contains(&wait(&schedule)));
        schedule.hurry(false);
        assert!((4.0..5.1).contains(&wait(&schedule)));
        schedule.called(0);
        schedule.hurry(false);
        assert!((9.0..10.1).contains(&wait(&schedule)), "changes go on");
        schedule.called(5);
        schedule.hurry(true);
        let eightfold = 430.0..530.0;
        assert!(
            eightfold.contains(&wait(&schedule)),
            "a partner that fails is not called for every change"
        );
    }
}
