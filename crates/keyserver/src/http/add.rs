//! `POST /pks/add`: submissions, in every form clients send them.
//!
//! Whoever makes a certificate decides how long it takes to verify. So of those that are not small only as many are verified
//! at the same time as there are cores, one of each client, and the others wait for a while; what it took is taken from
//! the client's tokens.

use super::answer::Client;
use super::body::{self, BodyError, BodyLimits};
use super::handoff::{blocking, brief};
use super::pages;
use super::query::Query;
use super::reply::{Form, Problem, transient};
use super::room::{Held, Room};
use super::routes::Routes;
use super::throttle::FurtherCost;
use crate::config;
use crate::ingest::{CertReport, Dropped, FORBIDDEN, Ingest, IngestError, Outcome, Report, TOO_LARGE};
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use futures_util::stream;
use keyrink_openpgp::armor;
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
    /// Places for those that take long to verify, as many as there are cores.
    verifying: Room,
}

impl Submissions {
    /// Submissions whose bodies together take at most `octets_max` octets; later ones wait.
    pub fn new(ingest: Ingest, limits: BodyLimits, octets_max: u64) -> Self {
        Self {
            ingest,
            limits,
            room: Room::new(octets_max, limits.octets),
            verifying: Room::of_places(config::threads(0)),
        }
    }
}

impl Submissions {
    /// Room for what a client sends.
    pub(super) fn open(&self, client: std::net::IpAddr) -> Held {
        self.room.open(client)
    }
}

/// What verifying may cost for one token: some ten milliseconds.
const WORK_PER_TOKEN: u64 = 1 << 23;
/// A submission as small as this is usually verified in less than a millisecond; where it would not be, it waits for a place.
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
    let query = Query::new(parts.uri.query().unwrap_or_default().as_bytes());
    let mut form = Form::asked(query, &parts.headers, None);
    match take(&submissions, &parts, body, &mut form).await {
        Ok(report) => answer(&report, form),
        Err(error) => Problem::from(error).answer(form, ""),
    }
}

fn answer(report: &Report, form: Form) -> Response {
    let sound = report
        .certs
        .iter()
        .any(|cert| !matches!(cert.outcome, Outcome::Invalid | Outcome::TooLarge | Outcome::Forbidden));
    let forbidden = report.certs.iter().any(|cert| cert.outcome == Outcome::Forbidden);
    let status = if sound {
        StatusCode::OK
    } else if forbidden {
        StatusCode::FORBIDDEN
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    let body = match form {
        Form::Json => {
            serde_json::to_string(&Answer::of(report)).expect("text and numbers can always be written as JSON")
        }
        Form::Html => pages::submitted(report),
        Form::Text => text(report),
    };
    let mut answer = transient(status, form, body);
    let tokens = u32::try_from(report.work / WORK_PER_TOKEN).unwrap_or(u32::MAX);
    answer.extensions_mut().insert(FurtherCost(tokens));
    answer
}

async fn take(submissions: &Arc<Submissions>, parts: &Parts, body: Body, form: &mut Form) -> Result<Report, AddError> {
    let client = Client::of(&parts.extensions);
    let mut room = submissions.open(client);
    let body = body::read(&parts.headers, body, submissions.limits, &mut room).await?;
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.map_or("", |value| value.to_str().unwrap_or("?"));
    let keytext = keytext(content_type, body, form).await?;
    let ingest = submissions.ingest.clone();
    let octets = keytext.len();
    // A client that no longer waits, or whose time is up, ends neither the work nor what it holds.
    let room = Arc::new(room);
    if octets <= BRIEF_OCTETS_MAX {
        let (ingest, keytext, held) = (ingest.clone(), keytext.clone(), Arc::clone(&room));
        let submit = move || {
            let _held = held;
            ingest.submit_if_brief(&keytext)
        };
        if let Some(report) = brief(submit).await? {
            return Ok(report);
        }
    }
    let mut place = submissions.verifying.open(client);
    place.grow(1).await.map_err(BodyError::from)?;
    let submit = move || {
        let _held = (room, place);
        ingest.submit(&keytext)
    };
    Ok(blocking(submit).await?)
}

/// The key in a body of a content type, for whoever has no request around it.
pub(crate) async fn keytext_of(content_type: &str, body: Bytes) -> Option<Bytes> {
    keytext(content_type, body, &mut Form::Text).await.ok()
}

/// The key in a body of any accepted content type.
async fn keytext(content_type: &str, body: Bytes, form: &mut Form) -> Result<Bytes, AddError> {
    let media_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match media_type.as_str() {
        "application/x-www-form-urlencoded" => {
            let fields = Query::new(&body);
            *form = Form::named(&fields.octets("options").unwrap_or_default()).unwrap_or(*form);
            match fields.octets("keytext") {
                Some(Cow::Owned(keytext)) => Ok(keytext.into()),
                Some(Cow::Borrowed(keytext)) => Ok(body.slice_ref(keytext)),
                // curl --data-binary calls a raw body a form.
                None if body.starts_with(b"-----BEGIN PGP") => Ok(body),
                None => Err(AddError::NoKeytext),
            }
        }
        "multipart/form-data" => multipart(content_type, body, form).await,
        "" | "application/pgp" | "application/pgp-keys" | "application/octet-stream" | "text/plain" => Ok(body),
        other => Err(AddError::ContentType(other.to_owned())),
    }
}

async fn multipart(content_type: &str, body: Bytes, form: &mut Form) -> Result<Bytes, AddError> {
    let failed = |error: multer::Error| AddError::Form(error.to_string());
    let boundary = multer::parse_boundary(content_type).map_err(failed)?;
    let mut fields = multer::Multipart::new(stream::iter([Ok::<_, Infallible>(body)]), boundary);
    let mut keys = Vec::new();
    while let Some(field) = fields.next_field().await.map_err(failed)? {
        match field.name() {
            Some("options") => {
                let options = field.bytes().await.map_err(failed)?;
                *form = Form::named(&options).unwrap_or(*form);
            }
            // A browser sends the text area and the file of a form; many leave one of them empty.
            Some("keytext" | "keyfile") => keys.push(field.bytes().await.map_err(failed)?),
            _ => {}
        }
    }
    keys.retain(|octets| !octets.trim_ascii().is_empty());
    match keys.len() {
        0 => Err(AddError::NoKeytext),
        1 => Ok(keys.remove(0)),
        _ => joined(&keys),
    }
}

/// Several submissions as one, armored or not, so that they are taken together or, for a secret key, not at all.
fn joined(keys: &[Bytes]) -> Result<Bytes, AddError> {
    let mut packets = Vec::new();
    for octets in keys {
        let octets = octets.trim_ascii_start();
        if armor::is_armored(octets) {
            if armor::announces_secret(octets) {
                return Err(IngestError::SecretKey.into());
            }
            packets.extend(armor::decode(octets).map_err(IngestError::from)?);
        } else {
            packets.extend_from_slice(octets);
        }
    }
    Ok(packets.into())
}

impl From<AddError> for Problem {
    fn from(error: AddError) -> Self {
        let sentence = match &error {
            AddError::Ingest(IngestError::Store(reason)) => {
                tracing::error!(error = %reason, "a submission cannot be stored");
                "The certificates cannot be stored at the moment, and nothing was changed: try again later.".into()
            }
            others => others.to_string(),
        };
        Self {
            status: error.status(),
            sentence,
        }
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
        invalid.extend(list(Outcome::TooLarge, Some(TOO_LARGE)));
        invalid.extend(list(Outcome::Forbidden, Some(FORBIDDEN)));
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

fn text(report: &Report) -> String {
    let mut text = String::new();
    for cert in &report.certs {
        let outcome = match cert.outcome {
            Outcome::Inserted => "inserted",
            Outcome::Updated => "updated",
            Outcome::Unchanged => "unchanged",
            Outcome::Invalid => "invalid: no valid self-signature shows that anybody holds this key:",
            Outcome::TooLarge => "too large, nothing of it was stored:",
            Outcome::Forbidden => "refused, the operator of this server has blocked or erased it:",
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
