//! `GET /v1/stats`: JSON or OpenMetrics text.

use hyper::header::ACCEPT;
use hyper::{HeaderMap, StatusCode, Uri};

use super::Backend;
use super::answer::{Answer, failure, json, refused, with_type};
use crate::stats::{CONTENT_TYPE, openmetrics};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    OpenMetrics,
}

/// Answers the request. The query `format` goes before the header `Accept`.
pub(super) async fn answer(uri: &Uri, headers: &HeaderMap, backend: &impl Backend) -> Answer {
    let asked = uri
        .query()
        .and_then(|query| query.split('&').find_map(|parameter| parameter.strip_prefix("format=")));
    let format = match asked {
        Some("openmetrics") => Format::OpenMetrics,
        Some("json") => Format::Json,
        Some(other) => {
            let message = format_args!("unknown format: {other:?} (must be json or openmetrics)");
            return failure(StatusCode::BAD_REQUEST, message);
        }
        None => accepted(headers),
    };
    match (backend.stats().await, format) {
        (Ok(stats), Format::Json) => json(StatusCode::OK, &stats),
        (Ok(stats), Format::OpenMetrics) => {
            with_type(StatusCode::OK, CONTENT_TYPE, openmetrics(&stats))
        }
        (Err(error), _) => refused(&error),
    }
}

/// What the headers `Accept` ask for, by RFC 9110, 12.5.1: OpenMetrics if it is named, and JSON is neither rated higher nor
/// named with the same weight. Prometheus ends its list with a low-rated `*/*`, which stands for JSON here. Parameters
/// other than the weight are passed over: there is one version of each form.
fn accepted(headers: &HeaderMap) -> Format {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<_> = values.flat_map(|value| value.split(',')).map(range).collect();
    let weight = |kind: &str| {
        let weights = ranges.iter().filter(|(name, _)| name == kind).map(|(_, weight)| *weight);
        weights.max()
    };
    let openmetrics = weight("application/openmetrics-text").unwrap_or(0);
    let named = weight("application/json");
    let json = named.or_else(|| weight("application/*")).or_else(|| weight("*/*")).unwrap_or(0);
    if openmetrics > json || (openmetrics == json && openmetrics > 0 && named.is_none()) {
        Format::OpenMetrics
    } else {
        Format::Json
    }
}

/// A media range in lower case and its weight in thousandths; what is no weight counts as 1, as if it were not there.
fn range(text: &str) -> (String, u32) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|parameter| {
        parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")).and_then(thousandths)
    });
    (name, weight.unwrap_or(1000))
}

/// `0.25` is 250. At most three digits behind the point, and at most 1.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let value = format!("{whole}{fraction:0<3}").parse().ok()?;
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests;
