//! The forms of an answer.

use std::fmt::Display;

use http_body_util::{Either, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::{BackendError, Lines};
use crate::types::{ErrorMessage, to_json};

pub(super) type Answer = Response<Either<Full<Bytes>, Lines>>;

pub(super) fn with_type(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(Bytes::from(body))));
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
        BackendError::NoStatistics(_) | BackendError::NoFlowLog(_) | BackendError::NoPolicy => {
            StatusCode::NOT_FOUND
        }
        BackendError::ManyFollowers => StatusCode::SERVICE_UNAVAILABLE,
        BackendError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    failure(status, error)
}

/// An answer that goes on.
pub(super) fn lines(kind: &'static str, lines: Lines) -> Answer {
    let mut answer = Response::new(Either::Right(lines));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// Whether the answer goes on after its head.
pub(super) fn goes_on(answer: &Answer) -> bool {
    matches!(answer.body(), Either::Right(_))
}

pub(super) fn not_found() -> Answer {
    let body = "404 page not found\n".to_owned();
    with_type(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", body)
}

pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Left(Full::default()));
    *answer.status_mut() = status;
    answer
}
