//! `POST /pks/add`: submissions, in every form clients send them.

use super::answer::Client;
use super::body::{self, BodyError, BodyLimits};
use super::handoff::{blocking, brief};
use super::query::Query;
use super::room::Room;
use super::routes::Routes;
use crate::ingest::{CertReport, Dropped, Ingest, IngestError, Outcome, Report};
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

/// What submissions need.
pub struct Submissions {
    /// The write path.
    pub ingest: Ingest,
    /// How much one may send.
    pub limits: BodyLimits,
    room: Room,
}

impl Submissions {
    /// Submissions whose bodies together take at most `octets_max` octets; later ones wait.
    pub fn new(ingest: Ingest, limits: BodyLimits, octets_max: u64) -> Self {
        Self {
            ingest,
            limits,
            room: Room::new(octets_max, limits.octets),
        }
    }
}

/// A submission as small as this is usually verified in less than a millisecond.
const BRIEF_OCTETS_MAX: usize = 16 << 10;

/// The route for submissions.
pub fn routes(submissions: Arc<Submissions>) -> Routes {
    Routes::new().route("/pks/add", post(add)).with_state(submissions)
}

/// Why a request holds no submission.
#[derive(Debug, thiserror::Error)]
enum AddError {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the form has no field `keytext`: put the key there")]
    NoKeytext,
    #[error("the form can't be read: {0}")]
    Form(String),
    #[error("content type {0} is not accepted: send a form with the field `keytext`, or the key itself")]
    ContentType(String),
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

async fn add(State(submissions): State<Arc<Submissions>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let mut style = Style::asked_for(&parts);
    match take(&submissions, &parts, body, &mut style).await {
        Ok(report) => style.report(&report),
        Err(error) => style.error(&error),
    }
}

async fn take(
    submissions: &Arc<Submissions>,
    parts: &Parts,
    body: Body,
    style: &mut Style,
) -> Result<Report, AddError> {
    let mut room = submissions.room.open(Client::of(&parts.extensions));
    let body = body::read(&parts.headers, body, submissions.limits, &mut room).await?;
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.map_or("", |value| value.to_str().unwrap_or("?"));
    let keytext = keytext(content_type, body, style).await?;
    let ingest = submissions.ingest.clone();
    let octets = keytext.len();
    let submit = move || {
        // A client that no longer waits, or whose time is up, ends neither this nor what it holds.
        let _room = room;
        ingest.submit(&keytext)
    };
    let report = if octets <= BRIEF_OCTETS_MAX {
        brief(submit).await
    } else {
        blocking(submit).await
    };
    Ok(report?)
}

/// The key in a body of a content type, for whoever has no request around it.
pub(crate) async fn keytext_of(content_type: &str, body: Bytes) -> Option<Bytes> {
    keytext(content_type, body, &mut Style::Text).await.ok()
}

/// The key in a body of any accepted content type.
async fn keytext(content_type: &str, body: Bytes, style: &mut Style) -> Result<Bytes, AddError> {
    let media_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match media_type.as_str() {
        "application/x-www-form-urlencoded" => {
            let form = Query::new(&body);
            style.add_options(form.text("options").unwrap_or_default().as_deref().unwrap_or_default());
            match form.octets("keytext") {
                Some(Cow::Owned(keytext)) => Ok(keytext.into()),
                Some(Cow::Borrowed(keytext)) => Ok(body.slice_ref(keytext)),
                // curl --data-binary calls a raw body a form.
                None if body.starts_with(b"-----BEGIN PGP") => Ok(body),
                None => Err(AddError::NoKeytext),
            }
        }
        "multipart/form-data" => multipart(content_type, body, style).await,
        "" | "application/pgp" | "application/pgp-keys" | "application/octet-stream" | "text/plain" => Ok(body),
        other => Err(AddError::ContentType(other.to_owned())),
    }
}

async fn multipart(content_type: &str, body: Bytes, style: &mut Style) -> Result<Bytes, AddError> {
    let failed = |error: multer::Error| AddError::Form(error.to_string());
    let boundary = multer::parse_boundary(content_type).map_err(failed)?;
    let mut form = multer::Multipart::new(stream::iter([Ok::<_, Infallible>(body)]), boundary);
    let mut found = Bytes::new();
    while let Some(field) = form.next_field().await.map_err(failed)? {
        match field.name() {
            Some("options") => style.add_options(&field.text().await.map_err(failed)?),
            // A browser sends the text area and the file of a form; people fill in one of them.
            Some("keytext" | "keyfile") => {
                let octets = field.bytes().await.map_err(failed)?;
                if found.trim_ascii().is_empty() {
                    found = octets;
                }
            }
            _ => {}
        }
    }
    if found.is_empty() {
        Err(AddError::NoKeytext)
    } else {
        Ok(found)
    }
}

/// In which form an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Json,
    Html,
    Text,
}

impl Style {
    fn asked_for(parts: &Parts) -> Self {
        let accept = parts
            .headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let mut style = if accept.contains("text/html") {
            Self::Html
        } else if accept.contains("application/json") {
            Self::Json
        } else {
            Self::Text
        };
        let query = Query::new(parts.uri.query().unwrap_or_default().as_bytes());
        style.add_options(query.text("options").unwrap_or_default().as_deref().unwrap_or_default());
        style
    }

    fn add_options(&mut self, options: &str) {
        if options.split(',').any(|option| option == "json") {
            *self = Self::Json;
        } else if options.split(',').any(|option| option == "mr") {
            *self = Self::Text;
        }
    }

    fn report(self, report: &Report) -> Response {
        let sound = report.certs.iter().any(|cert| cert.outcome != Outcome::Invalid);
        let status = if sound {
            StatusCode::OK
        } else {
            StatusCode::UNPROCESSABLE_ENTITY
        };
        match self {
            Self::Json => json(status, &Answer::of(report)),
            Self::Html => super::pages::submitted(status, report),
            Self::Text => (status, text(report)).into_response(),
        }
    }

    fn error(self, error: &AddError) -> Response {
        let (status, message) = (error.status(), error.to_string());
        let mut answer = match self {
            Self::Json => json(status, &serde_json::json!({ "error": message })),
            Self::Html => super::pages::failure(status, &message),
            Self::Text => (status, format!("{message}\n")).into_response(),
        };
        if matches!(error, AddError::Body(BodyError::NoRoom(_))) {
            answer
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        answer
    }
}

impl AddError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Body(error) => error.status(),
            Self::NoKeytext | Self::Form(_) => StatusCode::BAD_REQUEST,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Ingest(IngestError::Empty | IngestError::Armor(_)) => StatusCode::BAD_REQUEST,
            Self::Ingest(IngestError::SecretKey | IngestError::NoCertificate(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Ingest(IngestError::Store(_)) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The JSON answer: `inserted`, `updated`, `ignored` and `invalid` list certificates; what became no certificate is
/// in `invalid` without a fingerprint.
#[derive(Serialize)]
struct Answer<'a> {
    inserted: Vec<Entry<'a>>,
    updated: Vec<Entry<'a>>,
    ignored: Vec<Entry<'a>>,
    invalid: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<&'a str>,
    dropped: &'a [Dropped],
}

impl<'a> Answer<'a> {
    fn of(report: &'a Report) -> Self {
        let list = |outcome, comment| {
            let certs = report.certs.iter().filter(move |cert| cert.outcome == outcome);
            certs.map(move |cert| Entry::of(cert, comment)).collect::<Vec<_>>()
        };
        let refused = report.refused.iter();
        let refused = refused.map(|reason| Entry {
            version: None,
            fingerprint: None,
            comment: Some(reason),
            dropped: &[],
        });
        let mut invalid = list(Outcome::Invalid, Some(NO_SELF_SIGNATURE));
        invalid.extend(refused);
        Self {
            inserted: list(Outcome::Inserted, None),
            updated: list(Outcome::Updated, None),
            ignored: list(Outcome::Unchanged, None),
            invalid,
        }
    }
}

impl<'a> Entry<'a> {
    fn of(cert: &'a CertReport, comment: Option<&'a str>) -> Self {
        Self {
            version: Some(cert.fingerprint.version()),
            fingerprint: Some(cert.fingerprint.to_string().to_lowercase()),
            comment,
            dropped: &cert.dropped,
        }
    }
}

const NO_SELF_SIGNATURE: &str = "no valid self-signature shows that anybody holds this key";

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for cert in &report.certs {
        let outcome = match cert.outcome {
            Outcome::Inserted => "inserted",
            Outcome::Updated => "updated",
            Outcome::Unchanged => "unchanged",
            Outcome::Invalid => "invalid: no valid self-signature shows that anybody holds this key:",
            Outcome::TooLarge => "too large, nothing of it was stored:",
        };
        let _ = writeln!(text, "{outcome} {}", cert.fingerprint);
        for dropped in &cert.dropped {
            let part: String = dropped
                .part
                .chars()
                .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
                .collect();
            let _ = writeln!(text, "  not shown: {part}: {}", dropped.reason);
        }
    }
    for refused in &report.refused {
        let _ = writeln!(text, "refused {refused}");
    }
    text
}
