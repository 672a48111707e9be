//! The forms of an answer.

use std::fmt::Display;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::BackendError;
use crate::types::{ErrorMessage, to_json};

pub(super) type Answer = Response<Full<Bytes>>;

pub(super) fn with_type(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    with_type(status, "application/json", to_json(value))
}

pub(super) fn failure(status: StatusCode, message: impl Display) -> Answer {
    let body = to_json(&ErrorMessage { message: message.to_string() }) + "\n";
    with_type(status, "application/json", body)
}

/// The answer to a question that the backend could not answer.
pub(super) fn refused(error: &BackendError) -> Answer {
    let status = match error {
        BackendError::NoPortDriver => StatusCode::BAD_REQUEST,
        BackendError::NoStatistics(_) => StatusCode::NOT_FOUND,
        BackendError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    failure(status, error)
}

pub(super) fn not_found() -> Answer {
    let body = "404 page not found\n".to_owned();
    with_type(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", body)
}

pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}
