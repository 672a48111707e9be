//! The forms of an answer.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

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

pub(super) fn failure(status: StatusCode, message: &str) -> Answer {
    let body = to_json(&ErrorMessage { message: message.to_owned() }) + "\n";
    with_type(status, "application/json", body)
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
