//! The start page, statistics, and whether the server can work.

use super::handoff::blocking;
use super::pages;
use super::query::Query;
use super::reply::{Form, Problem, answer, media_type};
use super::web::Web;
use crate::formats::{self, OPENPGP};
use crate::lifecycle::Action;
use crate::peers::status::{self, Report};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use keyrink_store::{Store, StoreError};
use serde::Serialize;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Numbers about this server, as JSON has them.
#[derive(Clone, Debug, Serialize)]
pub struct Stats<'a> {
    /// Certificates stored.
    pub total: u64,
    /// Certificates that the operator blocked.
    pub blocked: u64,
    /// Rules by which certificates are erased, one for each fingerprint that is kept.
    pub erased: u64,
    /// Name of the program.
    pub software: &'a str,
    /// Version of the program.
    pub version: &'a str,
    /// Name under which clients reach this server.
    pub hostname: &'a str,
    /// How to reach the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<&'a str>,
    /// Servers this one reconciles with.
    pub peers: &'a [Peer],
}

/// How it stands with a server that this one reconciles with.
#[derive(Clone, Debug, Serialize)]
pub struct Peer {
    /// What the operator calls it.
    pub name: String,
    /// Its host and port for reconciliation.
    pub recon: String,
    /// What happens now, in a word.
    pub state: String,
    /// What is reconciled.
    pub dataset: Option<String>,
    /// When the last session ended, in Unix seconds.
    pub last_session: Option<u64>,
    /// Certificates it had in the last session that were missing here.
    pub differences: u64,
    /// Octets of all sessions that came from it.
    pub received: u64,
    /// Octets of all sessions that went to it.
    pub sent: u64,
    /// Certificates still to be fetched from it.
    pub queue: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl From<Report> for Peer {
    fn from(report: Report) -> Self {
        Self {
            name: report.name,
            recon: report.recon,
            state: report.state,
            dataset: report.dataset,
            last_session: report.last_session,
            differences: report.differences,
            received: report.received,
            sent: report.sent,
            queue: report.queue,
            last_error: report.last_error.map(|(_, error)| error),
        }
    }
}

/// `GET /`
pub async fn start(State(web): State<Arc<Web>>) -> Html<String> {
    Html(pages::start(web.words))
}

/// `GET /pks/stats`
pub async fn stats(State(web): State<Arc<Web>>, uri: Uri, headers: HeaderMap) -> Response {
    let query = Query::new(uri.query().unwrap_or_default().as_bytes());
    let form = form(query, &headers);
    blocking(move || of(&web, form)).await
}

/// In which form statistics are wanted: JSON for programs that say so, else a page.
pub fn form(query: Query<'_>, headers: &HeaderMap) -> Form {
    match Form::asked(query, headers, None) {
        Form::Json => Form::Json,
        Form::Text | Form::Html => Form::Html,
    }
}

/// The statistics. Blocks.
pub fn of(web: &Web, form: Form) -> Response {
    let total = match web.store.count(OPENPGP) {
        Ok(total) => total,
        Err(error) => return Problem::from(error).answer(form, ""),
    };
    let peers = match status::reports(&*web.store, &[]) {
        Ok(reports) => reports.into_iter().map(Peer::from).collect::<Vec<_>>(),
        Err(error) => return Problem::from(error).answer(form, ""),
    };
    let (blocked, erased) = match kept_back(web) {
        Ok(counts) => counts,
        Err(error) => return Problem::from(error).answer(form, ""),
    };
    let stats = Stats {
        total,
        blocked,
        erased,
        software: "Keyrink",
        version: env!("CARGO_PKG_VERSION"),
        hostname: &web.hostname,
        contact: web.contact.as_deref(),
        peers: &peers,
    };
    let body = match form {
        Form::Json => {
            serde_json::to_string_pretty(&stats).expect("text and numbers can always be written as JSON") + "\n"
        }
        Form::Html | Form::Text => pages::stats(&stats, (web.now)()),
    };
    answer(media_type(form), body)
}

/// How many certificates are blocked and how many rules erase. Counting takes the longer the more there are, so one who asks
/// does it for all who ask soon after.
fn kept_back(web: &Web) -> Result<(u64, u64), StoreError> {
    let mut known = web.kept_back.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, counts)) = *known
        && at.elapsed() < COUNTED_FOR
    {
        return Ok(counts);
    }
    let blocked = web.store.holders(OPENPGP, &formats::blocked(), BLOCKED_MAX)?;
    let counts = web.rules.newest(&*web.store)?.counts();
    let counts = (blocked as u64, counts[&Action::Erase]);
    *known = Some((Instant::now(), counts));
    Ok(counts)
}

/// More blocked certificates are not counted.
const BLOCKED_MAX: usize = 100_000;
/// How long a count holds.
const COUNTED_FOR: Duration = Duration::from_secs(10);

/// `GET /readyz`: 503 tells a proxy to ask another server.
///
/// A proof is a durable transaction. Whoever asks within `READY_FOR` after one gets its result, so that nobody
/// can make the store busy with questions. A store that takes longer than `PROVEN_WITHIN` is not ready, and is not asked again
/// before it has answered.
pub async fn ready(State(web): State<Arc<Web>>) -> Response {
    let is_ready = web.proof.lock().await.is_ready(&web.store).await;
    if is_ready {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the store is not available\n").into_response()
    }
}

/// What is known about whether the store works.
#[derive(Debug, Default)]
pub struct Proof {
    /// When that was found out last, and what.
    known: Option<(Instant, bool)>,
    /// A proof that is taking its time.
    under_way: Option<JoinHandle<bool>>,
}

impl Proof {
    /// Does the store work?
    async fn is_ready(&mut self, store: &Arc<dyn Store>) -> bool {
        if let Some((_, is_ready)) = self.known.filter(|(at, _)| at.elapsed() < READY_FOR) {
            return is_ready;
        }
        let mut proof = self.under_way.take().unwrap_or_else(|| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let proof = blocking(move || store.ready()).await;
                if let Err(error) = &proof {
                    tracing::warn!(%error, "not ready");
                }
                proof.is_ok()
            })
        });
        let is_ready = match timeout(PROVEN_WITHIN, &mut proof).await {
            Ok(proven) => proven.unwrap_or(false),
            Err(_) => {
                tracing::warn!("not ready: the store does not answer");
                self.under_way = Some(proof);
                false
            }
        };
        self.known = Some((Instant::now(), is_ready));
        is_ready
    }
}

/// How long a proof holds.
const READY_FOR: Duration = Duration::from_secs(1);
/// Proxies give up after some seconds.
const PROVEN_WITHIN: Duration = Duration::from_secs(2);
