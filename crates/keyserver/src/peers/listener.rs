//! Partners call: who is it, and may there be a session now?
//!
//! A caller is known by its address and nothing else. The side that accepts speaks first, so what is said depends on
//! the address too. Strangers get no answer at all.

use super::Node;
use super::dataset;
use super::gossip::conclude;
use super::partner::Partner;
use super::session::{self, Role};
use super::status::Doing;
use keyrink_recon::session::PeerConfig;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Accepts connections for ever.
pub(crate) async fn listen(node: Arc<Node>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, caller)) => {
                // Strangers cost nothing more than this look.
                let candidates = candidates(&node, caller.ip().to_canonical());
                if candidates.is_empty() {
                    tracing::debug!("a stranger was turned away");
                    continue;
                }
                // Beyond that number, callers find the connection closed, as with a peer that is busy.
                if let Ok(place) = node.accepting.clone().try_acquire_owned() {
                    let node = Arc::clone(&node);
                    tokio::spawn(async move {
                        answer(&node, stream, &candidates).await;
                        drop(place);
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a partner's connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(node: &Node, stream: TcpStream, candidates: &[Arc<Partner>]) {
    // Who is called often may call often.
    let call_each = CALL_EACH.min(node.gossip / 2);
    let free = candidates.iter().find_map(|partner| {
        let one = Arc::clone(&partner.accepting).try_acquire_owned().ok()?;
        let each = if partner.is_second(&node.kinds()) {
            CALL_EACH_SECOND
        } else {
            call_each
        };
        partner.may_call(each).then(|| (Arc::clone(partner), one))
    });
    let Some((mut partner, mut one)) = free else {
        tracing::debug!("a partner was turned away: it has a session, or calls too often");
        return;
    };
    partner.enter(Doing::Answering);
    let (settings, manners) = (node.settings(&partner, dataset::REALM), node.manners(&partner));
    let mut learnt = false;
    let met = session::run(stream, Role::Accepting, settings, manners, &node.sets, |peer| {
        let Some(other) = announcing(candidates, peer).filter(|other| !Arc::ptr_eq(other, &partner)) else {
            learnt = partner.learn(peer, &node.kinds());
            return true;
        };
        partner.enter(Doing::Waiting);
        partner = Arc::clone(other);
        learnt = partner.learn(peer, &node.kinds());
        let Ok(its) = Arc::clone(&partner.accepting).try_acquire_owned() else {
            return false;
        };
        one = its;
        true
    })
    .await;
    let came = conclude(node, &partner, Role::Accepting, met);
    drop(one);
    if !came && learnt {
        // It wanted to hear something else, and now we know what.
        partner.wake.notify_one();
    }
}

/// The partners that have this address, first who has been heard longest ago: this side has to speak before it can
/// know which of them it is, and so each hears what is meant for it in its turn.
fn candidates(node: &Node, caller: IpAddr) -> Vec<Arc<Partner>> {
    let mut found = node.partners();
    found.retain(|partner| partner.is_at(caller));
    found.sort_by_cached_key(|partner| partner.report().last_session);
    found
}

/// Partners behind one address tell themselves apart by the port that they announce.
fn announcing<'a>(candidates: &'a [Arc<Partner>], peer: &PeerConfig) -> Option<&'a Arc<Partner>> {
    let port = u16::try_from(peer.http_port?).ok()?;
    candidates.iter().find(|partner| partner.http_port() == Some(port))
}

/// Keeps the addresses of a partner known, until it is none any more.
pub(crate) async fn keep_addresses(partner: Arc<Partner>) {
    let mut removed = partner.removed.subscribe();
    loop {
        let pause = match partner.look_up().await {
            true => LOOK_UP_EACH,
            false => LOOK_UP_AGAIN,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = removed.wait_for(|removed| *removed) => return,
        }
    }
}

/// How long the addresses of a name are believed.
const LOOK_UP_EACH: Duration = Duration::from_secs(60);
const LOOK_UP_AGAIN: Duration = Duration::from_secs(5);
/// How often a partner may call in the long run.
const CALL_EACH: Duration = Duration::from_secs(6);
/// The same of one that reconciles single signatures: every change is worth a call.
const CALL_EACH_SECOND: Duration = Duration::from_millis(250);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Config};
    use keyrink_recon::wire;
    use keyrink_store::memory::MemoryStore;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Calls, announces this port, and hears whether that comes to a session.
    async fn call(to: SocketAddr, port: u32) -> (TcpStream, bool) {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let mut config = wire::Config::default();
        config.put("version", "1.1.6");
        config.put_number("http port", port);
        config.put_number("bitquantum", 2);
        config.put_number("mbar", 5);
        config.put("filters", "yminsky.dedup,yminsky.merge");
        let mut out = Vec::new();
        config.encode(&mut out);
        wire::Verdict::Passed.encode(&mut out);
        stream.write_all(&out).await.unwrap();
        let heard = async {
            let mut buffer = [0; 4096];
            while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
        };
        let open = tokio::time::timeout(Duration::from_millis(700), heard).await.is_err();
        // The other side is done a moment after the connection is closed.
        tokio::time::sleep(Duration::from_millis(200)).await;
        (stream, open)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn partners_behind_one_address_have_a_session_each() {
        let store = Arc::new(MemoryStore::new());
        let partner = |port: u16| {
            let config = config::Partner {
                recon: format!("127.0.0.1:{port}"),
                http: Some(format!("http://127.0.0.1:{port}")),
                ..config::Partner::default()
            };
            Arc::new(Partner::new(&config, &*store).unwrap())
        };
        let (first, second) = (partner(1), partner(2));
        let node = Arc::new(Node::new(&Config::default(), store.clone()));
        *node.partners.write().unwrap() = vec![Arc::clone(&first), Arc::clone(&second)];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(listen(node, listener));
        let free = || {
            (
                first.accepting.available_permits(),
                second.accepting.available_permits(),
            )
        };
        let (_second, open) = call(address, 2).await;
        assert!(open && free() == (1, 0), "{:?}", free());
        let (_again, open) = call(address, 2).await;
        assert!(!open && free() == (1, 0), "{:?}", free());
        let (_first, open) = call(address, 1).await;
        assert!(open && free() == (0, 0), "{:?}", free());
    }
}
