//! Answers in the form that the client can read, errors included.

use super::pages;
use super::query::{self, Query};
use super::room::NoRoom;
use super::search::SearchError;
use axum::body::Body;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use keyrink_openpgp::stored::Damaged;
use keyrink_store::{RecordId, StoreError};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Who reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A program that knows HKP, or somebody at a terminal.
    Text,
    /// A browser.
    Html,
    /// A program.
    Json,
}

impl Form {
    /// What a request asks for: what its `options` say, else what is `usual`, else what the client accepts.
    pub fn asked(query: Query<'_>, headers: &HeaderMap, usual: Option<Self>) -> Self {
        let options = query.octets("options").unwrap_or_default();
        Self::named(&options)
            .or(usual)
            .unwrap_or_else(|| Self::accepted(headers))
    }

    /// What a list of options names.
    pub fn named(options: &[u8]) -> Option<Self> {
        if query::lists(options, "json") {
            Some(Self::Json)
        } else {
            query::lists(options, "mr").then_some(Self::Text)
        }
    }

    /// What a request that does not say otherwise asks for: pages if it is a browser's.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let accept = headers
            .get(header::ACCEPT)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        let names = |media_type: &[u8]| accept.windows(media_type.len()).any(|part| part == media_type);
        if names(b"text/html") {
            Self::Html
        } else if names(b"application/json") {
            Self::Json
        } else {
            Self::Text
        }
    }
}

/// Why a request has no better answer: a status and one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// At least 400; with 429 the client is told when to come again.
    pub status: StatusCode,
    /// For people.
    pub sentence: String,
}

impl Problem {
    /// The request makes no sense.
    pub(super) fn bad_request(sentence: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            sentence: sentence.into(),
        }
    }

    /// There is nothing of the kind.
    pub(super) fn not_found(sentence: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            sentence: sentence.into(),
        }
    }

    /// The answer; `search` is what was searched for, as it was typed.
    pub(super) fn answer(&self, form: Form, search: &str) -> Response {
        let body = match form {
            Form::Text => format!("{}\n", self.sentence),
            Form::Html => pages::problem(self.status, &self.sentence, search),
            Form::Json => format!("{}\n", serde_json::json!({ "error": self.sentence })),
        };
        let mut answer = transient(self.status, form, body);
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            answer
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        answer
    }
}

impl From<SearchError> for Problem {
    fn from(error: SearchError) -> Self {
        let status = match error {
            SearchError::ShortKeyId => StatusCode::NOT_FOUND,
            SearchError::Empty | SearchError::TooLong | SearchError::Digits(_) | SearchError::NotDigits => {
                StatusCode::BAD_REQUEST
            }
        };
        Self {
            status,
            sentence: error.to_string(),
        }
    }
}

impl From<NoRoom> for Problem {
    fn from(error: NoRoom) -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            sentence: error.to_string(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store cannot be read");
        let sentence = "The certificates cannot be read at the moment; it may work later.".into();
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            sentence,
        }
    }
}

impl From<Damaged> for Problem {
    fn from(error: Damaged) -> Self {
        Self::from(StoreError::Damaged(error.to_string()))
    }
}

/// A good answer that caches must ask about each time.
pub(super) fn answer<B>(media_type: &'static str, body: impl Into<B>) -> Response<B> {
    let mut answer = Response::new(body.into());
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// An answer that nobody may keep.
pub(super) fn transient(status: StatusCode, form: Form, body: String) -> Response {
    let mut answer = answer::<Body>(media_type(form), body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The media type of pages, of text, or of JSON.
pub(super) fn media_type(form: Form) -> &'static str {
    match form {
        Form::Text => "text/plain; charset=utf-8",
        Form::Html => "text/html; charset=utf-8",
        Form::Json => "application/json",
    }
}

/// Names one state of some records in one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntityTag(u64);

impl EntityTag {
    /// `records` are ids, times of the last change and lengths, `form` is whatever else the answer depends on.
    ///
    /// `None` as long as a record could change within the very second of its last change, because then the tag
    /// would be that of two states.
    pub(super) fn of<'a>(
        records: impl Iterator<Item = (&'a RecordId, u64, usize)>,
        form: impl Hash,
        now: u64,
    ) -> Option<Self> {
        let mut hasher = DefaultHasher::new();
        (env!("CARGO_PKG_VERSION"), form).hash(&mut hasher);
        for (id, modified, length) in records {
            if now <= modified + 1 {
                return None;
            }
            (id, modified, length).hash(&mut hasher);
        }
        Some(Self(hasher.finish()))
    }

    /// Is it what the client has already?
    pub(super) fn is_known(self, request: &HeaderMap) -> bool {
        let Some(known) = request.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok()) else {
            return false;
        };
        let own = self.text();
        known
            .split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.trim_start_matches("W/") == own)
    }

    /// The header.
    pub(super) fn header(self) -> (HeaderName, HeaderValue) {
        let value = HeaderValue::try_from(self.text()).expect("quotes and hexadecimal digits fit a header");
        (header::ETAG, value)
    }

    fn text(self) -> String {
        format!("\"{:016x}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_pages() {
        let form = |accept: &'static str| {
            Form::accepted(&HeaderMap::from_iter([(
                header::ACCEPT,
                HeaderValue::from_static(accept),
            )]))
        };
        assert_eq!(form("text/html,application/xhtml+xml,*/*;q=0.8"), Form::Html);
        assert_eq!(form("application/json"), Form::Json);
        assert_eq!(form("*/*"), Form::Text);
        assert_eq!(Form::accepted(&HeaderMap::new()), Form::Text);
    }

    #[test]
    fn tags_follow_the_records() {
        let id = RecordId::new(&[1]).unwrap();
        let of = |modified, now| EntityTag::of([(&id, modified, 9)].into_iter(), "bin", now);
        assert_eq!(of(100, 101), None, "another change may still come in the same second");
        assert_eq!(of(100, 102), of(100, 200));
        assert_ne!(of(100, 200), of(101, 200));
        let tag = of(100, 200).unwrap();
        let known = |tags: String| {
            tag.is_known(&HeaderMap::from_iter([(
                header::IF_NONE_MATCH,
                HeaderValue::try_from(tags).unwrap(),
            )]))
        };
        assert!(known(tag.text()) && known(format!("\"x\", W/{}", tag.text())) && known("*".into()));
        assert!(!known("\"x\"".into()) && !tag.is_known(&HeaderMap::new()));
    }
}
