//! Partners call: who is it, and may there be a session now?
//!
//! A caller is known by its address and nothing else. The side that accepts speaks first, so what is said depends on
//! the address too. Strangers get no answer at all.

use super::Node;
use super::gossip::conclude;
use super::partner::Partner;
use super::session::{self, Role};
use futures_util::future::join_all;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Accepts connections for ever.
pub(crate) async fn listen(node: Arc<Node>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, caller)) => {
                // Beyond that number, callers find the connection closed, as with a peer that is busy.
                if let Ok(place) = node.accepting.clone().try_acquire_owned() {
                    let node = Arc::clone(&node);
                    tokio::spawn(async move {
                        answer(&node, stream, caller).await;
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

async fn answer(node: &Node, stream: TcpStream, caller: SocketAddr) {
    let candidates = candidates(node, caller.ip().to_canonical()).await;
    // Who is called often may call often.
    let call_each = CALL_EACH.min(node.gossip / 2);
    let free = candidates.iter().find_map(|partner| {
        let one = Arc::clone(&partner.accepting).try_acquire_owned().ok()?;
        partner.may_call(call_each).then(|| (Arc::clone(partner), one))
    });
    let Some((mut partner, _one)) = free else {
        let known = !candidates.is_empty();
        tracing::debug!(known, "a caller was turned away");
        return;
    };
    partner.note(|report| report.state = "answering".to_owned());
    let settings = partner.settings(node.http_port);
    let mut learnt = false;
    let met = session::run(stream, Role::Accepting, settings, &node.sets, |peer| {
        // Partners behind one address tell themselves apart by the port that they announce.
        let port = peer.http_port.and_then(|port| u16::try_from(port).ok());
        if let Some(other) = candidates
            .iter()
            .find(|other| other.http_port().is_some_and(|own| Some(own) == port))
        {
            partner.note(|report| report.state = "waiting".to_owned());
            partner = Arc::clone(other);
        }
        learnt = partner.learn(peer);
    })
    .await;
    let came = conclude(&partner, Role::Accepting, met);
    if !came && learnt {
        // It wanted to hear something else, and now we know what.
        partner.wake.notify_one();
    }
}

/// The partners that have this address.
async fn candidates(node: &Node, caller: IpAddr) -> Vec<Arc<Partner>> {
    let partners = node.partners();
    // Together, or one name that does not resolve would make all callers wait.
    let here = join_all(partners.iter().map(|partner| partner.is_at(caller))).await;
    let found = partners.into_iter().zip(here).filter(|(_, here)| *here);
    found.map(|(partner, _)| partner).collect()
}

/// How often a partner may call in the long run.
const CALL_EACH: Duration = Duration::from_secs(6);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
