//! From a request to an answer: seven routes, matched by hand.

use std::convert::Infallible;
use std::fmt::Display;
use std::rc::Rc;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderValue, LOCATION};
use hyper::{Method, Request, StatusCode, Uri};

use super::answer::{Answer, empty, failure, json, lines, not_found, refused};
use super::{Backend, BackendError, Limits};
use crate::types::{PortSpec, from_json};

/// Answers one request; whatever goes wrong becomes a status.
pub(super) async fn answer<B: Backend>(
    request: Request<Incoming>,
    backend: Rc<B>,
    limits: Rc<Limits>,
) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    tracing::trace!("API request: {} {}", head.method, head.uri);
    if let Some(location) = redirect(&head.uri) {
        let mut answer = empty(StatusCode::MOVED_PERMANENTLY);
        answer.headers_mut().insert(LOCATION, location);
        return Ok(answer);
    }
    let path = head.uri.path().strip_prefix("/v1/").unwrap_or_default();
    let id = path.strip_prefix("ports/").filter(|id| !id.is_empty() && !id.contains('/'));
    Ok(match (&head.method, path, id) {
        (&Method::GET, "info", _) => match backend.info() {
            Ok(info) => json(StatusCode::OK, &info),
            Err(error) => refused(&error),
        },
        (&Method::GET, "ports", _) => match backend.ports() {
            Ok(ports) if ports.is_empty() => json(StatusCode::OK, &()),
            Ok(ports) => json(StatusCode::OK, &ports),
            Err(error) => refused(&error),
        },
        (&Method::POST, "ports", _) => match read(body, &limits).await {
            Ok(body) => add(&body, backend).await,
            Err(answer) => answer,
        },
        (&Method::DELETE, _, Some(id)) => remove(id, backend).await,
        (&Method::GET, "stats", _) => {
            super::stats::answer(&head.uri, &head.headers, &*backend).await
        }
        (&Method::GET, "flows", _) => match backend.flows().await {
            Ok(flows) => lines(crate::flows::CONTENT_TYPE, flows),
            Err(error) => refused(&error),
        },
        (&Method::GET, "policy", _) => match backend.policy().await {
            Ok(policy) => json(StatusCode::OK, &policy),
            Err(error) => refused(&error),
        },
        (_, "info" | "ports" | "stats" | "flows" | "policy", _) | (_, _, Some(_)) => {
            empty(StatusCode::METHOD_NOT_ALLOWED)
        }
        _ => not_found(),
    })
}

async fn add<B: Backend>(body: &[u8], backend: Rc<B>) -> Answer {
    let spec = match from_json::<PortSpec>(body) {
        Ok(spec) => spec,
        Err(error) => return malformed(&*backend, error),
    };
    match detached(async move { backend.add(spec).await }).await {
        Ok(status) => json(StatusCode::CREATED, &status),
        Err(error) => failure(StatusCode::BAD_REQUEST, error),
    }
}

async fn remove<B: Backend>(id: &str, backend: Rc<B>) -> Answer {
    let Ok(id) = id.parse() else {
        let message = format_args!("invalid port ID: {id:?} (must be a number)");
        return malformed(&*backend, message);
    };
    match detached(async move { backend.remove(id).await }).await {
        Ok(()) => empty(StatusCode::OK),
        Err(error) => failure(StatusCode::BAD_REQUEST, error),
    }
}

/// A request about ports that makes no sense. Without a port driver that is said first, as upstream does.
fn malformed(backend: &impl Backend, message: impl Display) -> Answer {
    match backend.ports() {
        Err(error @ BackendError::NoPortDriver) => refused(&error),
        _ => failure(StatusCode::BAD_REQUEST, message),
    }
}

/// Runs a change to its end even if the peer hangs up meanwhile.
async fn detached<T: 'static>(
    change: impl Future<Output = Result<T, BackendError>> + 'static,
) -> Result<T, BackendError> {
    match tokio::task::spawn_local(change).await {
        Ok(outcome) => outcome,
        Err(error) => Err(BackendError::Failed(format!("the request was abandoned: {error}"))),
    }
}

async fn read(body: Incoming, limits: &Limits) -> Result<Bytes, Answer> {
    let body = Box::pin(Limited::new(body, limits.body_bytes).collect());
    match tokio::time::timeout(limits.body, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(failure(
            StatusCode::PAYLOAD_TOO_LARGE,
            format_args!("the request body is larger than {} bytes", limits.body_bytes),
        )),
        Ok(Err(error)) => {
            let message = format_args!("cannot read the request body: {error}");
            Err(failure(StatusCode::BAD_REQUEST, message))
        }
        Err(_) => Err(failure(
            StatusCode::REQUEST_TIMEOUT,
            format_args!("the request body did not arrive within {:?}", limits.body),
        )),
    }
}

/// Where a path with `//`, `.` or `..` is sent: the same path without them; a trailing slash stays.
fn redirect(uri: &Uri) -> Option<HeaderValue> {
    let path = uri.path();
    if !path.starts_with('/') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    if clean == path {
        return None;
    }
    if let Some(query) = uri.query() {
        clean.push('?');
        clean.push_str(query);
    }
    HeaderValue::from_str(&clean).ok()
}
