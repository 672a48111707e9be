use http_body_util::BodyExt as _;
use hyper::header::{CONTENT_TYPE as TYPE, HeaderValue};

use super::super::BackendError;
use super::*;
use crate::stats::Stats;
use crate::types::{Info, NetworkDriverInfo, PortId, PortSpec, PortStatus};

/// A backend that leaves `stats` to the trait.
struct Silent;

impl Backend for Silent {
    fn info(&self) -> Result<Info, BackendError> {
        let driver = "slirp4netns".to_owned();
        let network_driver = Some(NetworkDriverInfo { driver, ..NetworkDriverInfo::default() });
        Ok(Info { network_driver, ..Info::default() })
    }

    fn ports(&self) -> Result<Vec<PortStatus>, BackendError> {
        Err(BackendError::NoPortDriver)
    }

    async fn add(&self, _: PortSpec) -> Result<PortStatus, BackendError> {
        Err(BackendError::NoPortDriver)
    }

    async fn remove(&self, _: PortId) -> Result<(), BackendError> {
        Err(BackendError::NoPortDriver)
    }
}

/// A backend that counts, or says why it cannot.
struct Counting(Result<Stats, BackendError>);

impl Backend for Counting {
    fn info(&self) -> Result<Info, BackendError> {
        Silent.info()
    }

    fn ports(&self) -> Result<Vec<PortStatus>, BackendError> {
        Silent.ports()
    }

    async fn add(&self, spec: PortSpec) -> Result<PortStatus, BackendError> {
        Silent.add(spec).await
    }

    async fn remove(&self, id: PortId) -> Result<(), BackendError> {
        Silent.remove(id).await
    }

    async fn stats(&self) -> Result<Stats, BackendError> {
        self.0.clone()
    }
}

fn counting() -> Counting {
    Counting(Ok(Stats { driver: "gateway".into(), ..Stats::default() }))
}

/// Status, content type and body.
fn ask(query: &str, accept: &[&str], backend: &impl Backend) -> (u16, String, String) {
    let uri = format!("/v1/stats{query}").parse().unwrap();
    let mut headers = HeaderMap::new();
    for value in accept {
        headers.append(ACCEPT, HeaderValue::from_str(value).unwrap());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (head, body) = runtime.block_on(answer(&uri, &headers, backend)).into_parts();
    let body = runtime.block_on(body.collect()).unwrap().to_bytes();
    let kind = head.headers[TYPE].to_str().unwrap().to_owned();
    (head.status.as_u16(), kind, String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn the_header_or_the_query_choose_the_form() {
    const OPEN: &str = "application/openmetrics-text";
    const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    for (query, accept, open) in [
        ("", &[][..], false),
        ("", &["*/*"], false),
        ("", &["application/json"], false),
        ("", &["text/html", "nonsense"], false),
        ("", &[""], false),
        ("", &[OPEN], true),
        ("", &["Application/OpenMetrics-Text; version=1.0.0; charset=utf-8"], true),
        ("", &[PROMETHEUS], true),
        ("", &["*/*", OPEN], true),
        ("", &["application/openmetrics-text;q=0.1, */*"], false),
        ("", &["application/openmetrics-text;q=0"], false),
        ("", &["application/openmetrics-text;q=0, */*;q=0"], false),
        ("", &["application/json, application/openmetrics-text"], false),
        ("", &["application/json;q=0.9, application/openmetrics-text"], true),
        ("", &["application/json;q=0.95, application/openmetrics-text;Q=0.949"], false),
        ("", &["application/openmetrics-text;q=0.5, application/*;q=0.6"], false),
        ("?format=openmetrics", &["application/json"], true),
        ("?a=b&format=openmetrics&c", &[], true),
        ("?format=json", &[OPEN], false),
        ("?formats=json", &[OPEN], true),
    ] {
        let (status, kind, body) = ask(query, accept, &counting());
        assert_eq!(status, 200, "{query} {accept:?}");
        if open {
            assert_eq!(kind, CONTENT_TYPE, "{query} {accept:?}");
            assert!(body.ends_with("\n# EOF\n"), "{body}");
        } else {
            assert_eq!(kind, "application/json", "{query} {accept:?}");
            assert!(body.starts_with("{\"driver\":\"gateway\","), "{body}");
        }
    }
}

#[test]
fn failures_are_json_whatever_was_asked_for() {
    let refused = r#"{"message":"network driver \"slirp4netns\" has no statistics\nhint: use --net=gateway, which counts connections and bytes"}"#;
    for query in ["", "?format=openmetrics"] {
        let expected = (404, "application/json".to_owned(), format!("{refused}\n"));
        assert_eq!(ask(query, &[], &Silent), expected);
    }
    let (status, kind, body) = ask("?format=xml", &[], &counting());
    assert_eq!((status, kind.as_str()), (400, "application/json"));
    assert!(body.contains(r#"unknown format: \"xml\" (must be json or openmetrics)"#), "{body}");
    let broken = Counting(Err(BackendError::Failed("the gateway is gone".into())));
    let expected = (500, "application/json".to_owned(), "{\"message\":\"the gateway is gone\"}\n");
    let (status, kind, body) = ask("?format=openmetrics", &[], &broken);
    assert_eq!((status, kind, body.as_str()), expected);
}

proptest::proptest! {
    #[test]
    fn no_header_is_too_strange(text in "\\PC{0,60}", accept in "[a-z/*;q=0-9., -]{0,60}") {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, HeaderValue::from_str(&accept).unwrap());
        let _ = (accepted(&headers), range(&text), thousandths(&text));
    }
}
