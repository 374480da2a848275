//! What every answer gets, whatever made it: CORS and security headers, OPTIONS, time limit, metrics, log line.
//!
//! Handlers need not think of any of this. A handler that panics, or takes longer than a request may, becomes a 500:
//! GnuPG puts a server aside after a 502, 503 or 504, so clients never see those.

use super::body;
use super::proxies::Proxies;
use super::reply::{Form, Problem};
use super::routes::{Figures, Routes};
use super::throttle::{FurtherCost, Throttle};
use crate::config::Config;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Extensions, HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};
use tower::Service;

/// Routes with everything around them.
pub struct Answers {
    router: Router,
    figures: Figures,
    proxies: Proxies,
    throttle: Throttle,
    request_time: Duration,
    log_addresses: bool,
    log_searches: bool,
}

/// Who sent a request, as far as the connection tells, or a proxy that is believed.
#[derive(Clone, Copy, Debug)]
pub struct Client(pub IpAddr);

impl Client {
    /// The address that [`Answers::answer`] noted; requests that came another way share one.
    pub fn of(noted: &Extensions) -> IpAddr {
        noted
            .get::<Self>()
            .map_or(Ipv4Addr::UNSPECIFIED.into(), |client| client.0)
    }
}

impl Answers {
    /// Wraps `routes`; paths they do not know get a 404. Counting must have been started before, if it is wanted.
    pub fn new(routes: Routes, config: &Config) -> Self {
        let (router, figures) = routes.into_parts();
        Self {
            // Without a last state, axum would prepare each route again for each request.
            router: router.fallback(not_found).with_state(()),
            figures,
            proxies: Proxies::new(&config.http),
            throttle: Throttle::of_clients(&config.throttle),
            request_time: Duration::from_secs(config.http.request_seconds.get().into()),
            log_addresses: config.log.addresses,
            log_searches: config.log.searches,
        }
    }

    /// Answers one request that came from `caller`.
    pub async fn answer(&self, mut request: Request, caller: SocketAddr) -> Response {
        let start = Instant::now();
        let client = self.proxies.client(caller.ip(), request.headers());
        request.extensions_mut().insert(Client(client));
        let asks_options = *request.method() == Method::OPTIONS;
        let log = self.log_line(&request, client);
        let (figures, cost) = self.figures.of(request.uri().path());
        let mut response = match self.throttle.take(client, cost, start) {
            Ok(()) => self.handle(request).await,
            Err(wait) => refuse(request, wait).await,
        };
        if let Some(cost) = response.extensions().get::<FurtherCost>() {
            self.throttle.charge(client, *cost, Instant::now());
        }
        if asks_options && response.status() == StatusCode::METHOD_NOT_ALLOWED {
            response = options(response);
        }
        decorate(response.headers_mut());
        let time = start.elapsed();
        figures.count(response.status(), time);
        if let Some(log) = log {
            log.write(figures.route(), response.status(), time);
        }
        response
    }

    async fn handle(&self, request: Request) -> Response {
        let handling = AssertUnwindSafe(self.router.clone().call(request)).catch_unwind();
        match tokio::time::timeout(self.request_time, handling).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(never))) => match never {},
            Ok(Err(_panic)) => failure("Something went wrong in this server."),
            Err(_elapsed) => failure("This took too long; it may work later."),
        }
    }

    /// What the log may say about this request, if anybody reads it.
    fn log_line(&self, request: &Request, client: IpAddr) -> Option<LogLine> {
        tracing::enabled!(tracing::Level::DEBUG).then(|| LogLine {
            method: request.method().clone(),
            client: self.log_addresses.then_some(client),
            query: request.uri().query().filter(|_| self.log_searches).map(str::to_string),
        })
    }
}

struct LogLine {
    method: Method,
    client: Option<IpAddr>,
    query: Option<String>,
}

impl LogLine {
    fn write(self, route: &str, status: StatusCode, time: Duration) {
        let Self { method, client, query } = self;
        let client = client.map(tracing::field::display);
        let (status, micros) = (status.as_u16(), time.as_micros() as u64);
        tracing::debug!(%method, route, status, micros, client, query, "answered");
    }
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "There is nothing at this address.\n").into_response()
}

/// The answer to a client that asks for more than its share. What it sends is read for a moment and thrown away, since
/// it might else never see the answer.
async fn refuse(request: Request, wait: Duration) -> Response {
    let (parts, body) = request.into_parts();
    let _ = tokio::time::timeout(DISCARD_TIME, body::discard(body)).await;
    let sentence = "Too many requests came from your network; try again later.".to_owned();
    let problem = Problem {
        status: StatusCode::TOO_MANY_REQUESTS,
        sentence,
    };
    let mut answer = problem.answer(Form::accepted(&parts.headers), "");
    let seconds = HeaderValue::from(wait.as_secs() + 1);
    answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    answer
}

/// How long the body of a refused request is read.
const DISCARD_TIME: Duration = Duration::from_secs(2);

fn failure(sentence: &'static str) -> Response {
    tracing::error!("a request failed: {sentence}");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{sentence}\n")).into_response()
}

/// The answer to OPTIONS, from the router's refusal of that method, which names the methods it has.
fn options(refusal: Response) -> Response {
    let (mut parts, _) = refusal.into_parts();
    let methods = parts
        .headers
        .get(header::ALLOW)
        .and_then(|allow| allow.to_str().ok())
        .unwrap_or_default();
    let methods = HeaderValue::try_from(format!("{methods},OPTIONS"));
    parts.status = StatusCode::NO_CONTENT;
    parts.headers.clear();
    if let Ok(methods) = methods {
        parts.headers.insert(header::ALLOW, methods.clone());
        parts.headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    parts
        .headers
        .insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
    parts
        .headers
        .insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    Response::from_parts(parts, Body::empty())
}

/// Headers of every answer; pages get those that keep hostile content inert and searches out of `Referer`.
fn decorate(headers: &mut HeaderMap) {
    for (name, value) in ALWAYS {
        headers.insert(name, value);
    }
    let is_page = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_page {
        for (name, value) in PAGES {
            headers.insert(name, value);
        }
    }
}

/// Of every answer.
pub(super) const ALWAYS: [(HeaderName, HeaderValue); 2] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

const PAGES: [(HeaderName, HeaderValue); 2] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::Html;
    use axum::routing::{get, post};

    async fn answered(method: Method, path: &str) -> Response {
        let mut config = Config::default();
        config.http.request_seconds = std::num::NonZeroU32::MIN;
        let routes = Routes::new()
            .route("/text", get(async || "text"))
            .route("/page", get(async || Html("<p>page")))
            .route("/add", post(async || "added"))
            .route("/slow", get(async || std::future::pending::<&str>().await))
            .route("/panic", get(broken));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        Answers::new(routes, &config)
            .answer(request, ([127, 0, 0, 1], 1).into())
            .await
    }

    async fn broken() -> &'static str {
        panic!("a bug")
    }

    fn value<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    #[tokio::test]
    async fn every_answer_can_be_read_by_any_origin() {
        for (path, status) in [
            ("/text", 200),
            ("/page", 200),
            ("/add", 405),
            ("/nothing", 404),
            ("/panic", 500),
            ("/slow", 500),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let response = answered(method, path).await;
                assert_eq!(response.status(), status, "{path}");
                assert_eq!(value(&response, "access-control-allow-origin"), Some("*"), "{path}");
                assert_eq!(value(&response, "x-content-type-options"), Some("nosniff"), "{path}");
                assert_eq!(value(&response, "content-security-policy").is_some(), path == "/page");
            }
        }
    }

    #[tokio::test]
    async fn who_asks_too_much_is_told_when_to_come_again() {
        let mut config = Config::default();
        config.throttle.tokens = std::num::NonZeroU32::MIN;
        let routes = Routes::new().route("/text", get(async || "text"));
        let answers = Answers::new(routes, &config);
        let ask = async |octet| {
            let request = Request::builder().uri("/text").body(Body::empty()).unwrap();
            answers.answer(request, ([192, 0, 2, octet], 1).into()).await
        };
        assert_eq!(ask(1).await.status(), 200);
        let refused = ask(1).await;
        assert_eq!(refused.status(), 429);
        assert_eq!(value(&refused, "retry-after"), Some("1"));
        assert_eq!(value(&refused, "access-control-allow-origin"), Some("*"));
        assert_eq!(ask(2).await.status(), 200);
    }

    #[tokio::test]
    async fn options_names_the_methods_of_a_route() {
        for (path, methods) in [("/text", "GET,HEAD,OPTIONS"), ("/add", "POST,OPTIONS")] {
            let response = answered(Method::OPTIONS, path).await;
            assert_eq!(response.status(), 204);
            assert_eq!(value(&response, "allow"), Some(methods));
            assert_eq!(value(&response, "access-control-allow-methods"), Some(methods));
        }
        assert_eq!(answered(Method::OPTIONS, "/nothing").await.status(), 404);
    }
}
