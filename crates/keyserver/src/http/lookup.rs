//! `GET /pks/lookup`: certificates, indexes and statistics of HKP version 1.
//!
//! Certificates of version 6 are given out with `options=bin` only. Answers that do not hold everything found have a `Link` to the next page.

use super::answer::Client;
use super::certificate::Certificate;
use super::handoff::{blocking, short};
use super::hits::{Begun, Bounds, Hits};
use super::index::{self, Extent};
use super::pages::certificates::{self as pages, Frame};
use super::query::Query;
use super::reply::{EntityTag, Form, Problem, answer, media_type};
use super::search::{Reading, Search};
use super::stats;
use super::web::Web;
use crate::formats::hexadecimal;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response as Answer, StatusCode, Uri};
use axum::response::Response;
use keyrink_openpgp::armor;
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::stored::{Damaged, write_projection};
use keyrink_openpgp::terms::Term;
use keyrink_store::{RecordId, Stored};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use std::net::IpAddr;
use std::sync::Arc;

/// `GET /pks/lookup`
pub async fn lookup(State(web): State<Arc<Web>>, request: axum::extract::Request) -> Response {
    let (
        Parts {
            uri,
            headers,
            extensions,
            ..
        },
        _,
    ) = request.into_parts();
    let query = Query::new(uri.query().unwrap_or_default().as_bytes());
    if query.octets("op").is_some_and(|op| op.eq_ignore_ascii_case(b"stats")) {
        let form = stats::form(query, &headers);
        return blocking(move || stats::of(&web, form)).await;
    }
    let form = form(query, &headers);
    let typed = String::from_utf8_lossy(&query.octets("search").unwrap_or_default()).into_owned();
    match Request::read(query, web.words) {
        Err(problem) => problem.answer(form, &typed),
        Ok(request) => {
            let context = Arc::new(Context {
                uri,
                headers,
                form,
                typed,
            });
            let client = Client::of(&extensions);
            let answered = answer_in_room(&web, client, request, Arc::clone(&context)).await;
            answered.unwrap_or_else(|problem| problem.answer(form, &context.typed))
        }
    }
}

/// What is small is answered at once; for the rest there has to be room before it is read.
async fn answer_in_room(
    web: &Arc<Web>,
    client: IpAddr,
    request: Request,
    context: Arc<Context>,
) -> Result<Response, Problem> {
    let begun = {
        let (web, context) = (Arc::clone(web), Arc::clone(&context));
        let is_short = !matches!(request.source, Source::Search(Search::Words(_)));
        let begin = move || {
            let begun = request.begin(&web)?;
            Ok::<_, Problem>(match begun.octets() {
                None => Ok(request.answer(&web, &context, begun)?.map(Body::from)),
                Some(octets) => Err((request, begun, octets)),
            })
        };
        if is_short {
            short(begin).await?
        } else {
            blocking(begin).await?
        }
    };
    let (request, begun, octets) = match begun {
        Ok(answer) => return Ok(answer),
        Err(large) => large,
    };
    let mut room = web.answers.open(client);
    room.grow(octets.saturating_mul(ANSWER_PER_RECORD)).await?;
    let web = Arc::clone(web);
    blocking(move || {
        let answer = request.answer(&web, &context, begun)?;
        Ok(answer.map(|body| Body::from(room.keep(body))))
    })
    .await
}

/// Who reads the answer: what the options say, else people if it is made for them, else what the client accepts.
fn form(query: Query<'_>, headers: &HeaderMap) -> Form {
    let is_page = matches!(query.octets("op").as_deref(), Some(b"index" | b"vindex"));
    Form::asked(query, headers, is_page.then_some(Form::Html))
}

/// What of the request matters to the form of the answer only.
struct Context {
    uri: Uri,
    headers: HeaderMap,
    form: Form,
    /// What was searched for, as it was typed.
    typed: String,
}

/// A lookup, understood.
struct Request {
    operation: Operation,
    source: Source,
    /// Where the page begins.
    after: Option<RecordId>,
    binary: bool,
    /// With the digest that SKS has of each certificate.
    digests: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Get,
    Index,
    /// With signatures.
    VerboseIndex,
}

enum Source {
    Search(Search),
    /// By the digest that SKS has of it.
    Digest(Vec<u8>),
}

impl Request {
    fn read(query: Query<'_>, words: bool) -> Result<Self, Problem> {
        let search = query.octets("search").unwrap_or_default();
        let exact = query.switch("exact");
        let searched = || Search::parse(&search, Reading { exact, words }).map(Source::Search);
        let (operation, source) = match &query.octets("op").unwrap_or_default().to_ascii_lowercase()[..] {
            b"get" => (Operation::Get, searched()?),
            b"hget" => (Operation::Get, Source::Digest(digest(&search)?)),
            b"index" => (Operation::Index, searched()?),
            b"vindex" => (Operation::VerboseIndex, searched()?),
            b"" => {
                return Err(Problem::bad_request(format!(
                    "The parameter `op` is missing: {OPERATIONS}."
                )));
            }
            _ => {
                return Err(Problem::bad_request(format!(
                    "This `op` is not known here: {OPERATIONS}."
                )));
            }
        };
        Ok(Self {
            operation,
            source,
            after: query.octets("after").map(|id| page_start(&id)).transpose()?,
            binary: operation == Operation::Get && query.lists("options", "bin"),
            digests: query.switch("hash"),
        })
    }

    /// Looks for what is asked for. Blocks.
    fn begin(&self, web: &Web) -> Result<Begun, Problem> {
        let bounds = Bounds {
            records: web.results_max,
            octets: web.results_octets_max,
            version_max: if self.binary { u8::MAX } else { LEGACY_VERSION_MAX },
        };
        match &self.source {
            Source::Search(search) => Begun::by_search(&*web.store, search, self.after.as_ref(), bounds),
            Source::Digest(digest) => Begun::by_digest(&*web.store, digest, bounds),
        }
    }

    /// The answer. Blocks.
    fn answer(&self, web: &Web, context: &Context, begun: Begun) -> Result<Answer<Vec<u8>>, Problem> {
        let hits = begun.finish(&*web.store)?;
        if hits.records.is_empty() {
            return Err(self.nothing(web, &hits));
        }
        let count = hits.records.len();
        let next = hits.next.as_ref().map(|after| next_page(&context.uri, after));
        let mut answer = match self.operation {
            Operation::Get => self.certificates(web, context, hits.records)?,
            Operation::Index | Operation::VerboseIndex => {
                let newer = hits.newer.then(|| download(&context.typed));
                self.index(web, context, &hits.records, next.as_deref(), newer.as_deref())?
            }
        };
        let headers = answer.headers_mut();
        headers.insert(RESULTS_COUNT, HeaderValue::from(count));
        if let Some(link) = next.and_then(|next| HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).ok()) {
            headers.insert(header::LINK, link);
        }
        Ok(answer)
    }

    /// The certificates, or that the client has them already.
    fn certificates(&self, web: &Web, context: &Context, records: Vec<Stored>) -> Result<Answer<Vec<u8>>, Problem> {
        let states = records
            .iter()
            .map(|record| (&record.id, record.modified, record.data.len()));
        let tag = EntityTag::of(states, self.binary, (web.now)());
        let mut answer = if tag.is_some_and(|tag| tag.is_known(&context.headers)) {
            let mut unchanged = Answer::new(Vec::new());
            *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
            let headers = unchanged.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            unchanged
        } else {
            self.block(records)?
        };
        answer.headers_mut().extend(tag.map(EntityTag::header));
        Ok(answer)
    }

    /// Certificates one after another. Each record is gone before the next is written, and the packets before the armor
    /// is sent.
    fn block(&self, records: Vec<Stored>) -> Result<Answer<Vec<u8>>, Damaged> {
        let mut packets = Vec::new();
        for record in records {
            write_projection(&record.data, Projection::Served, &mut packets)?;
        }
        let (media_type, disposition, body) = if self.binary {
            ("application/pgp", "attachment; filename=certificate.pgp", packets)
        } else {
            let mut armored = Vec::new();
            armor::encode(armor::PUBLIC_KEY_BLOCK, &packets, &mut armored);
            ("application/pgp-keys", "attachment; filename=certificate.asc", armored)
        };
        let mut answer = answer(media_type, body);
        answer
            .headers_mut()
            .insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
        Ok(answer)
    }

    fn index(
        &self,
        web: &Web,
        context: &Context,
        records: &[Stored],
        next: Option<&str>,
        newer: Option<&str>,
    ) -> Result<Answer<Vec<u8>>, Problem> {
        let verbose = self.operation == Operation::VerboseIndex;
        let certificates = records
            .iter()
            .filter_map(|record| Certificate::read(&record.data, verbose).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        let digests = match self.digests && context.form != Form::Text {
            true => Some(records.iter().map(sks_digest).collect::<Result<Vec<_>, _>>()?),
            false => None,
        };
        let (now, digests) = ((web.now)(), digests.as_deref());
        let frame = Frame {
            search: &context.typed,
            now,
            next,
            newer,
            digests,
        };
        let body = match context.form {
            Form::Text => index::lines(&certificates, now).into_bytes(),
            Form::Json => index::json(
                &certificates,
                now,
                Extent {
                    signatures: verbose,
                    digests,
                    next,
                },
            ),
            Form::Html if verbose => pages::detailed(&certificates, frame).into_bytes(),
            Form::Html => pages::list(&certificates, frame).into_bytes(),
        };
        Ok(answer(media_type(context.form), body))
    }

    /// Why there is nothing to show.
    fn nothing(&self, web: &Web, hits: &Hits) -> Problem {
        if hits.newer {
            return Problem::not_found(
                "What was found is of OpenPGP version 6, which older programs cannot read: \
                 get it with op=get and options=bin.",
            );
        }
        if hits.next.is_some() {
            let sentence = "These words are too common: add a rarer one.".into();
            return Problem {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                sentence,
            };
        }
        Problem::not_found(match &self.source {
            Source::Digest(_) => "There is no certificate with this digest.",
            Source::Search(Search::Words(_)) => "There is no certificate with all these words in its user ids.",
            Source::Search(Search::Term(term)) => match term {
                Term::Fingerprint(_) => "There is no certificate with this fingerprint.",
                Term::KeyId(_) => "There is no certificate with this key id.",
                Term::Email(_) => "There is no certificate with this e-mail address.",
                Term::UserId(_) if !web.words => {
                    "There is no certificate with exactly this user id, and this server does not search for single words."
                }
                Term::UserId(_) | Term::Word(_) => "There is no certificate with exactly this user id.",
            },
        })
    }
}

fn digest(search: &[u8]) -> Result<Vec<u8>, Problem> {
    if search.trim_ascii().is_empty() {
        return Err(super::search::SearchError::Empty.into());
    }
    let digest = octets(search.trim_ascii()).filter(|digest| digest.len() == 16);
    digest.ok_or_else(|| Problem::bad_request("With op=hget the search is an MD5 digest: 32 hexadecimal digits."))
}

fn page_start(id: &[u8]) -> Result<RecordId, Problem> {
    let id = octets(id).and_then(|id| RecordId::new(&id));
    id.ok_or_else(|| Problem::bad_request("The parameter `after` is not from a link of this server."))
}

fn octets(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

fn sks_digest(record: &Stored) -> Result<String, Damaged> {
    let digest = Cert::decode(&record.data)?.digest(Projection::Sks).unwrap_or_default();
    Ok(hexadecimal(&digest))
}

/// The address of the page behind the one that ends with `after`.
fn next_page(uri: &Uri, after: &RecordId) -> String {
    let mut address = format!("{}?", uri.path());
    for pair in uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.starts_with("after="))
    {
        address.extend([pair, "&"]);
    }
    address + "after=" + &hexadecimal(after.as_bytes())
}

/// The address of everything found, in a form that may hold every version.
fn download(typed: &str) -> String {
    format!(
        "/pks/lookup?op=get&options=bin&search={}",
        percent_encode(typed.as_bytes(), NON_ALPHANUMERIC)
    )
}

/// Octets needed at most for each octet of a record while an answer is made of it: armor and the packets it is made of,
/// or a page and what it shows.
const ANSWER_PER_RECORD: usize = 3;

/// Programs that know this protocol and nothing newer fail on what is newer.
const LEGACY_VERSION_MAX: u8 = 5;

const OPERATIONS: &str = "it is one of get, hget, index, vindex and stats";

/// As SKS has it.
const RESULTS_COUNT: HeaderName = HeaderName::from_static("x-hkp-results-count");
