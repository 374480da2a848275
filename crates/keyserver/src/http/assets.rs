//! Files that pages refer to, built into the program.

use super::routes::Routes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// `/assets/…`. Pages add the program's version to these addresses, so that caches may keep the files for long.
pub(super) fn routes() -> Routes {
    Routes::new()
        .route(
            "/assets/style.css",
            get(async |headers: HeaderMap| file(&headers, "text/css; charset=utf-8", STYLE)),
        )
        .route(
            "/assets/icon.svg",
            get(async |headers: HeaderMap| file(&headers, "image/svg+xml", ICON)),
        )
}

fn file(request: &HeaderMap, media_type: &'static str, content: &'static str) -> Response {
    const TAG: &str = concat!("\"", env!("CARGO_PKG_VERSION"), "\"");
    let caching = [(header::CACHE_CONTROL, "public, max-age=86400"), (header::ETAG, TAG)];
    if request.get(header::IF_NONE_MATCH).is_some_and(|tags| tags == TAG) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, media_type)], content).into_response()
}

const STYLE: &str = include_str!("../../assets/style.css");
const ICON: &str = include_str!("../../assets/icon.svg");
