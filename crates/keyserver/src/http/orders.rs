//! `POST /pks/delete` and `/pks/replace`: signed orders of an administrator.

use super::add::Submissions;
use super::answer::Client;
use super::body;
use super::handoff::blocking;
use super::query::Query;
use super::reply::{Form, Problem, transient};
use super::routes::Routes;
use crate::lifecycle::{OrderError, Orders, Verb};
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::post;
use keyrink_openpgp::packet::key::Fingerprint;
use std::sync::Arc;

/// What orders need: those who may give them, and room for what they send.
type Shared = (Arc<Orders>, Arc<Submissions>);

/// The routes for orders.
pub fn routes(orders: Arc<Orders>, submissions: Arc<Submissions>) -> Routes {
    let deletes =
        async |State(shared): State<Shared>, request: Request<Body>| answer(shared, Verb::Delete, request).await;
    let replaces =
        async |State(shared): State<Shared>, request: Request<Body>| answer(shared, Verb::Replace, request).await;
    Routes::new()
        .route(Verb::Delete.path(), post(deletes))
        .route(Verb::Replace.path(), post(replaces))
        .with_state((orders, submissions))
}

async fn answer(shared: Shared, verb: Verb, request: Request<Body>) -> Response {
    let form = Form::accepted(request.headers());
    match take(shared, verb, request).await {
        Ok(fingerprints) => transient(StatusCode::OK, Form::Json, json(verb, &fingerprints)),
        Err(problem) => problem.answer(form, ""),
    }
}

async fn take((orders, submissions): Shared, verb: Verb, request: Request<Body>) -> Result<Vec<Fingerprint>, Problem> {
    let (parts, body) = request.into_parts();
    let mut room = submissions.open(Client::of(&parts.extensions));
    let read = body::read(&parts.headers, body, submissions.limits, &mut room).await;
    let body = read.map_err(|error| Problem {
        status: error.status(),
        sentence: error.to_string(),
    })?;
    blocking(move || {
        // What is held is given back when this is done, whoever still waits for it.
        let _room = room;
        let fields = Query::new(&body);
        let field = |name: &str| {
            let missing = || Problem::bad_request(format!("the form has no field `{name}`"));
            fields
                .octets(name)
                .filter(|value| !value.is_empty())
                .ok_or_else(missing)
        };
        let (text, signature) = (field("keytext")?, field("keysig")?);
        Ok(orders.obey(verb, &text, &signature)?)
    })
    .await
}

/// The answer that Hockeypuck gives.
fn json(verb: Verb, fingerprints: &[Fingerprint]) -> String {
    let list = match verb {
        Verb::Delete => "deleted",
        Verb::Replace => "updated",
    };
    let entries = fingerprints.iter().map(|fingerprint| {
        let digits = fingerprint.to_string().to_lowercase();
        serde_json::json!({ "version": fingerprint.version(), "fingerprint": digits })
    });
    format!("{}\n", serde_json::json!({ list: entries.collect::<Vec<_>>() }))
}

impl From<OrderError> for Problem {
    fn from(error: OrderError) -> Self {
        let status = match &error {
            OrderError::NoKeys | OrderError::Refused(..) => StatusCode::FORBIDDEN,
            OrderError::FirstLine(_) | OrderError::Line(_) => StatusCode::BAD_REQUEST,
            OrderError::Unknown(_) => StatusCode::NOT_FOUND,
            OrderError::Replayed => StatusCode::CONFLICT,
            OrderError::Store(reason) => {
                tracing::error!(error = %reason, "an order cannot be carried out");
                let sentence = "The order cannot be carried out at the moment: try again later.".into();
                return Self {
                    status: StatusCode::INTERNAL_SERVER_ERROR,
                    sentence,
                };
            }
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self {
            status,
            sentence: error.to_string(),
        }
    }
}
