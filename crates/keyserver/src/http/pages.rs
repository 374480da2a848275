//! Pages for people.
use crate::ingest::Report;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
pub(crate) fn submitted(status: StatusCode, _: &Report) -> Response { status.into_response() }
pub(crate) fn failure(status: StatusCode, message: &str) -> Response { (status, message.to_owned()).into_response() }
