//! `POST /pks/hashquery`: peers fetch the certificates that reconciliation found, by their digests.
//!
//! Both directions are counted lists of counted strings, four octets big-endian each. SKS reads the answer straight
//! from the connection: no chunks, no compression, and CR LF behind the list as it sends it itself. A certificate
//! goes out as the dataset of the digest shows it, and none that a family of peers would choke on is part of its
//! dataset. A digest that two datasets have stands for the same packets in both. A client of the second generation says so
//! in a header and learns behind the list what became of each digest.

use super::answer::Client;
use super::body::{self, BodyLimits};
use super::handoff::blocking;
use super::room::{Held, NoRoom, Room};
use super::routes::Routes;
use super::throttle::{FurtherCost, Throttle};
use crate::client::hashquery::{DigestState, GENERATION_HEADER};
use crate::formats::{FAMILIES, Family, OPENPGP, Policy};
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::stored;
use keyrink_store::{Listed, Store, StoreError};
use std::sync::Arc;
use std::time::Instant;

/// What answering peers needs.
pub struct HashQueries {
    /// Where certificates are.
    pub store: Arc<dyn Store>,
    /// Which datasets are kept.
    pub policy: Policy,
    /// How much a peer may ask and how long it may take.
    pub limits: BodyLimits,
    /// How often one address may ask.
    pub throttle: Throttle,
    /// Room for questions and answers.
    pub room: Arc<Room>,
    /// Octets of one answer; certificates that do not fit are left out, and peers ask for them again.
    pub answer_octets: usize,
}

/// Digests in one question. Peers ask for 100.
const DIGESTS_MAX: usize = 1000;
const DIGESTS_A_TOKEN: usize = 100;
const OCTETS_A_TOKEN: usize = 1 << 20;
/// Octets of the shortest digest there is.
const DIGEST_OCTETS: usize = 16;
/// The most certificates and octets of an answer to somebody who learns what was left out.
const CERTIFICATES_MAX: usize = 100;
const ANSWER_OCTETS_MAX: usize = 8 << 20;
/// The longest question that is read: length fields and digests, and what peers may leave behind them.
pub const QUESTION_OCTETS_MAX: u64 = 64 << 10;

/// The route for peers.
pub fn routes(queries: Arc<HashQueries>) -> Routes {
    Routes::new().route("/pks/hashquery", post(answer)).with_state(queries)
}

/// Why a question can't be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuestionError {
    #[error("the question is cut off: a count of 4 octets, then for each digest a length and its octets")]
    CutOff,
    #[error("a question holds at most {DIGESTS_MAX} digests")]
    TooMany,
}

async fn answer(State(queries): State<Arc<HashQueries>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let client = Client::of(&parts.extensions);
    match queries.throttle.wait(client, Instant::now()) {
        Some(wait) => tokio::time::sleep(wait).await,
        None => return later("too many requests are waiting"),
    }
    let mut room = queries.room.open(client);
    let body = match body::read(&parts.headers, body, queries.limits, &mut room).await {
        Ok(body) => body,
        Err(error) => return (error.status(), format!("{error}\n")).into_response(),
    };
    let digests = match read_question(&body) {
        Ok(digests) => digests,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    let tells = parts.headers.get(GENERATION_HEADER).is_some_and(|value| value == "2");
    let asked = digests.len();
    let answer = collect(Arc::clone(&queries), &mut room, digests, tells).await;
    let octets = answer.as_ref().map_or(0, Vec::len);
    queries
        .throttle
        .charge(client, further_cost(asked, octets), Instant::now());
    match answer {
        Ok(octets) => ([(header::CONTENT_TYPE, "pgp/keys")], room.keep(octets)).into_response(),
        Err(CollectError::NoRoom(error)) => later(&error.to_string()),
        Err(CollectError::Store(error)) => {
            tracing::error!(%error, "hashquery");
            let sentence = "the store is not available, try again later\n";
            (StatusCode::SERVICE_UNAVAILABLE, sentence).into_response()
        }
    }
}

/// What a question counts for beyond one. Who asks for as many as peers do, and gets what is usual, pays no more.
fn further_cost(digests: usize, octets: usize) -> FurtherCost {
    let cost = digests.saturating_sub(1) / DIGESTS_A_TOKEN + octets / OCTETS_A_TOKEN;
    FurtherCost(u32::try_from(cost).unwrap_or(u32::MAX))
}

/// The answer to somebody who should ask again in a minute.
fn later(why: &str) -> Response {
    let retry = [(header::RETRY_AFTER, "60")];
    (StatusCode::TOO_MANY_REQUESTS, retry, format!("{why}\n")).into_response()
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum CollectError {
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The answer, in room that is had before anything long is read.
async fn collect(
    queries: Arc<HashQueries>,
    room: &mut Held,
    digests: Vec<Vec<u8>>,
    tells: bool,
) -> Result<Vec<u8>, CollectError> {
    let (store, policy) = (Arc::clone(&queries.store), queries.policy);
    let digests = Arc::new(digests);
    let asked = Arc::clone(&digests);
    let bounds = match tells {
        true => (CERTIFICATES_MAX, ANSWER_OCTETS_MAX.min(queries.answer_octets)),
        false => (usize::MAX, queries.answer_octets),
    };
    let (found, all, unknown) = blocking(move || {
        let (known, unknown) = find(&*store, policy, known_lengths(&asked))?;
        let all = known.len();
        Ok::<_, StoreError>((fitting(known, bounds), all, unknown))
    })
    .await?;
    let octets: usize = found.iter().map(|(listed, _)| listed.octets).sum();
    let longest = found.iter().map(|(listed, _)| listed.octets).max().unwrap_or_default();
    room.grow(octets + longest).await?;
    let answer = blocking(move || {
        let (store, mut found) = (&*queries.store, found);
        let mut answer = write_answer(store, &mut found, octets + longest)?;
        if tells {
            let is_full = found.len() < all;
            write_number(&mut answer, digests.len());
            for digest in digests.iter() {
                let state = match () {
                    () if !is_digest(digest) || unknown.contains(digest) => DigestState::Unknown,
                    () if is_full && !is_in(store, policy, digest, &found)? => DigestState::LeftOut,
                    () => DigestState::Included,
                };
                answer.push(state as u8);
            }
        }
        Ok::<_, StoreError>(answer)
    })
    .await?;
    // One whose packets stand there many times may be longer than its record.
    room.grow(answer.len()).await?;
    Ok(answer)
}

/// Strings that are no digests match nothing and are left out, as SKS does; and each digest is looked for once.
fn known_lengths(digests: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut known: Vec<Vec<u8>> = Vec::with_capacity(digests.len());
    for digest in digests {
        if is_digest(digest) && !known.contains(digest) {
            known.push(digest.clone());
        }
    }
    known
}

fn is_digest(octets: &[u8]) -> bool {
    FAMILIES.iter().any(|family| family.element_octets() == octets.len())
}

/// Those that fit into an answer of so many certificates and octets. One that is longer than any answer goes alone.
fn fitting(mut found: Vec<Known>, (certificates, most): (usize, usize)) -> Vec<Known> {
    let mut octets = 0;
    let fitting = found.iter().take(certificates).take_while(|(listed, _)| {
        octets += listed.octets;
        octets <= most
    });
    let fitting = fitting.count().max(1);
    found.truncate(fitting);
    found
}

/// Does an answer hold a certificate with this digest?
fn is_in(store: &dyn Store, policy: Policy, digest: &[u8], found: &[Known]) -> Result<bool, StoreError> {
    let (known, _) = find(store, policy, vec![digest.to_vec()])?;
    let is_included = |(listed, _): &Known| found.iter().any(|(included, _)| included.id == listed.id);
    Ok(known.iter().any(is_included))
}

/// A certificate that was found, and in which family's dataset.
type Known = (Listed, &'static Family);

/// The certificates with these digests, each as the first family sees it that knows the digest, and the digests that none
/// knows.
fn find(
    store: &dyn Store,
    policy: Policy,
    mut digests: Vec<Vec<u8>>,
) -> Result<(Vec<Known>, Vec<Vec<u8>>), StoreError> {
    let mut found: Vec<Known> = Vec::new();
    for family in policy.families() {
        let is_of = |digest: &Vec<u8>| digest.len() == family.element_octets();
        let (of, others): (Vec<_>, Vec<_>) = digests.into_iter().partition(is_of);
        let listed = store.by_element(OPENPGP, family.dataset, &of)?;
        if family.projection == Projection::All {
            // Who asks for all there is of a certificate needs no part of it besides.
            found.retain(|(known, _)| listed.iter().all(|listed| listed.id != known.id));
        }
        found.extend(listed.into_iter().map(|listed| (listed, family)));
        digests = others;
        digests.extend(store.lacking(family.dataset, &of)?);
        if digests.is_empty() {
            break;
        }
    }
    Ok((found, digests))
}

/// The strings asked for.
pub(crate) fn read_question(mut input: &[u8]) -> Result<Vec<Vec<u8>>, QuestionError> {
    let count = read_number(&mut input)?;
    if count > DIGESTS_MAX {
        return Err(QuestionError::TooMany);
    }
    let mut digests = Vec::with_capacity(count.min(input.len() / (4 + DIGEST_OCTETS)));
    for _ in 0..count {
        let length = read_number(&mut input)?;
        let (digest, rest) = input.split_at_checked(length).ok_or(QuestionError::CutOff)?;
        input = rest;
        digests.push(digest.to_vec());
    }
    Ok(digests)
}

fn read_number(input: &mut &[u8]) -> Result<usize, QuestionError> {
    let (number, rest) = input.split_first_chunk::<4>().ok_or(QuestionError::CutOff)?;
    *input = rest;
    Ok(u32::from_be_bytes(*number) as usize)
}

/// Writes each certificate right where it stands in the answer, until that has so many octets; `found` becomes those that were
/// written. What is stored does not tell how long that is: a packet is stored once however often it is sent. A certificate
/// that is longer goes alone.
fn write_answer(store: &dyn Store, found: &mut Vec<Known>, octets: usize) -> Result<Vec<u8>, StoreError> {
    let mut out = Vec::with_capacity(octets + 4 * found.len() + 6);
    let (mut count, mut written) = (0, 0);
    write_number(&mut out, 0);
    for (Listed { id, .. }, family) in found.iter() {
        let Some(record) = store
            .get(OPENPGP, std::slice::from_ref(id))?
            .into_iter()
            .flatten()
            .next()
        else {
            written += 1;
            continue;
        };
        let start = out.len();
        write_number(&mut out, 0);
        let is_read = stored::write_projection(&record.data, family.projection, &mut out).is_ok();
        if count > 0 && out.len() > octets.saturating_add(4 * found.len()) {
            out.truncate(start);
            break;
        }
        written += 1;
        if is_read {
            count += 1;
            let length = out.len() - start - 4;
            out[start..start + 4].copy_from_slice(&number(length));
        } else {
            out.truncate(start);
            let id = crate::formats::hexadecimal(id.as_bytes());
            tracing::error!(id, "the record cannot be read");
        }
    }
    found.truncate(written);
    out[..4].copy_from_slice(&number(count));
    out.extend_from_slice(b"\r\n");
    Ok(out)
}

fn write_number(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&number(length));
}

fn number(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use keyrink_openpgp::armor;
    use keyrink_openpgp::cert::{Attached, Cert};
    use keyrink_openpgp::crypto::digest::sha256;
    use keyrink_openpgp::digest::sks_digest;
    use keyrink_openpgp::packet::Frames;
    use keyrink_openpgp::policy::Limits;
    use keyrink_openpgp::read::Keyring;
    use keyrink_openpgp::verify::verify;
    use keyrink_openpgp::veto::Veto;
    use keyrink_store::memory::MemoryStore;
    use keyrink_store::{Batch, Decision, RecordId};

    /// Certificates on which one signature of somebody else, of a kibibyte, stands a thousand times.
    fn long_when_written(count: u64) -> (MemoryStore, Vec<Vec<u8>>) {
        let policy = Policy::new(&Config::default());
        let record = |nth| {
            let octets = keyrink_testkit::Certificate::v4(nth, "a").user_id("A").to_bytes();
            let mut components = Keyring::read(&octets, &Limits::default())
                .certs
                .remove(0)
                .cert
                .components()
                .to_vec();
            let head = [4, 0x10, 22, 14, 0, 0, 0, 0, 0, 0];
            components[1].signatures.push(Attached {
                copies: 1000,
                ..Attached::new(&[&head[..], &1006_u16.to_be_bytes(), &[7; 1006]].concat())
            });
            let mut cert = Cert::new(components).unwrap();
            verify(&mut cert, None);
            (RecordId::new(&cert.id()).unwrap(), policy.record(&cert, &Veto::Nothing))
        };
        let (ids, records): (Vec<_>, Vec<_>) = (1..=count).map(record).unzip();
        let sks = crate::formats::SKS.dataset;
        let elements = records.iter().flat_map(|record| &record.elements);
        let digests = elements
            .filter(|element| element.dataset == sks)
            .map(|element| element.bytes.clone())
            .collect();
        let store = MemoryStore::new();
        let batch = Batch {
            realm: OPENPGP,
            ids,
            decide: Box::new(move |at, _| Decision::Put(records[at].clone())),
            notes: Vec::new(),
            premise: None,
        };
        store.update(batch).unwrap();
        (store, digests)
    }

    #[test]
    fn an_answer_is_bounded_by_what_is_written() {
        let (store, digests) = long_when_written(3);
        let (mut found, unknown) = find(&store, Policy::new(&Config::default()), digests).unwrap();
        assert_eq!((found.len(), unknown.len()), (3, 0));
        let octets = found.iter().map(|(listed, _)| listed.octets).sum();
        assert!(octets < 10_000, "{octets}");
        let answer = write_answer(&store, &mut found, octets).unwrap();
        assert_eq!((found.len(), &answer[..4]), (1, &[0, 0, 0, 1][..]));
        assert!((1_000_000..1_500_000).contains(&answer.len()), "{}", answer.len());
    }

    /// Together shorter than the lengths of all that was asked for.
    #[test]
    fn many_short_certificates_go_together() {
        let certificates = (0..100).map(|nth| keyrink_testkit::Certificate::v4(nth, "bare").to_bytes());
        let store = Arc::new(MemoryStore::new());
        let ingest = crate::ingest::Ingest::new(&Config::default(), Arc::clone(&store) as Arc<dyn Store>);
        // Nobody signed anything: kept for peers only.
        let asked: Vec<_> = certificates.collect();
        ingest.receive(crate::formats::SKS.dataset, &asked).unwrap();
        let digests = asked.iter().map(|octets| {
            let frames: Vec<_> = Frames::new(octets).map(Result::unwrap).collect();
            sks_digest(frames.iter().map(|frame| (frame.tag, &*frame.body))).to_vec()
        });
        let (mut found, unknown) = find(&*store, Policy::new(&Config::default()), digests.collect()).unwrap();
        assert_eq!((found.len(), unknown.len()), (100, 0));
        let octets = found.iter().map(|(listed, _)| listed.octets).sum();
        let answer = write_answer(&*store, &mut found, octets).unwrap();
        assert_eq!((found.len(), &answer[..4]), (100, &[0, 0, 0, 100][..]));
    }

    /// The vector of fetching, the certificate that it is about, and all certificates of the vectors in a store.
    fn recovery() -> (serde_json::Value, Vec<u8>, Arc<MemoryStore>) {
        let vectors = std::fs::read("../../testdata/recon-v2/vectors.json").unwrap();
        let mut vectors: serde_json::Value = serde_json::from_slice(&vectors).unwrap();
        let store = Arc::new(MemoryStore::new());
        let ingest = crate::ingest::Ingest::new(&Config::default(), Arc::clone(&store) as Arc<dyn Store>);
        let certificates = vectors["certificates"].as_array().unwrap().iter().map(|vector| {
            let base64 = vector["certificate_base64"].as_str().unwrap();
            let [head, end] = ["BEGIN", "END"].map(|word| format!("-----{word} PGP PUBLIC KEY BLOCK-----\n"));
            armor::decode(format!("{head}\n{base64}\n{end}").as_bytes()).unwrap()
        });
        let certificates: Vec<_> = certificates.collect();
        for certificate in &certificates {
            ingest.submit(certificate).unwrap();
        }
        (vectors["recovery"].take(), certificates[0].clone(), store)
    }

    #[tokio::test]
    async fn the_vector_of_a_question_is_answered() {
        let (vector, whole, store) = recovery();
        let octets = |key: &str| -> Vec<u8> {
            let digits = vector[key].as_str().unwrap().as_bytes().chunks(2);
            let octet = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            digits.map(octet).collect()
        };
        let room = Arc::new(Room::new(1 << 20, 1 << 20));
        let mut held = room.open(std::net::Ipv4Addr::LOCALHOST.into());
        let queries = HashQueries {
            store,
            policy: Policy::new(&Config::default()),
            limits: BodyLimits {
                octets: QUESTION_OCTETS_MAX,
                time: std::time::Duration::from_secs(1),
            },
            throttle: Throttle::new(1),
            room,
            answer_octets: 1 << 20,
        };
        let digests = read_question(&octets("request")).unwrap();
        let answer = collect(Arc::new(queries), &mut held, digests, true).await.unwrap();
        let (certificates, states) = answer.split_at(answer.len() - octets("status_block").len());
        assert_eq!(states, octets("status_block"));
        assert!(certificates.starts_with(&octets("response_head")));
        assert_eq!(certificates.len() as u64, vector["response_length"].as_u64().unwrap());
        // In which order the packets of a certificate are stored is everybody's own affair.
        let digest = |octets: &[u8]| {
            let frames: Vec<_> = Frames::new(octets).map(Result::unwrap).collect();
            sks_digest(frames.iter().map(|frame| (frame.tag, &*frame.body)))
        };
        let (given, end) = certificates[8..].split_at(certificates.len() - 10);
        assert_eq!(digest(given), digest(&whole));
        let as_in_vector = [&certificates[..8], &whole, end].concat();
        let sum = crate::formats::hexadecimal(&sha256(&[&as_in_vector]));
        assert_eq!(sum.to_lowercase(), vector["response_sha256"]);
    }

    #[test]
    fn what_asks_for_much_counts_for_several() {
        let cost = |digests, octets| further_cost(digests, octets).0;
        assert_eq!([cost(0, 0), cost(1, 0), cost(100, 1_000_000)], [0; 3]);
        assert_eq!((cost(DIGESTS_MAX, 0), cost(100, 64 << 20)), (9, 64));
    }

    #[test]
    fn questions_are_read_and_bounded() {
        let mut question = vec![0, 0, 0, 3, 0, 0, 0, 16];
        question.extend_from_slice(&[7; 16]);
        question.extend_from_slice(&[0, 0, 0, 1, 9, 0, 0, 0, 16]);
        question.extend_from_slice(&[7; 16]);
        let asked = read_question(&question).unwrap();
        assert_eq!(asked, [vec![7; 16], vec![9], vec![7; 16]]);
        assert_eq!(known_lengths(&asked), [vec![7; 16]]);
        assert_eq!(read_question(&question[..30]), Err(QuestionError::CutOff));
        assert_eq!(read_question(&[0xFF; 8]), Err(QuestionError::TooMany));
        assert_eq!(
            read_question(&[0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF]),
            Err(QuestionError::CutOff)
        );
        assert_eq!(read_question(&[]), Err(QuestionError::CutOff));
    }
}
