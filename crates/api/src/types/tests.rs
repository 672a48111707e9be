mod openapi;

use proptest::prelude::*;

use super::*;

fn info() -> Info {
    Info {
        api_version: "1.1.2".into(),
        version: "3.2.0".into(),
        state_dir: "/run/user/1000/x".into(),
        child_pid: 42,
        network_driver: Some(NetworkDriverInfo {
            driver: "slirp4netns".into(),
            dns: vec!["10.0.2.3".parse().unwrap(), "fd00::3".parse().unwrap()],
            child_ip: Some("10.0.2.100".parse().unwrap()),
            dynamic_child_ip: true,
            ipv6: true,
        }),
        port_driver: Some(PortDriverInfo {
            driver: "builtin".into(),
            protos: vec!["tcp".into(), "udp".into()],
            disallow_loopback_child_ip: true,
            extra: [(EXTRA_SOURCE_IP_BACKEND.to_owned(), "nft".to_owned())].into(),
        }),
    }
}

fn status() -> PortStatus {
    PortStatus {
        id: 7,
        spec: PortSpec {
            proto: "tcp4".into(),
            parent_ip: "0.0.0.0".into(),
            parent_port: 8080,
            child_port: 80,
            child_ip: "127.0.0.1".into(),
            allow_from: vec!["10.9.0.0/24".into(), "fd00::1".into()],
        },
    }
}

#[test]
fn encodes_every_key_in_order() {
    let expected = concat!(
        r#"{"apiVersion":"1.1.2","version":"3.2.0","stateDir":"/run/user/1000/x","childPID":42,"#,
        r#""networkDriver":{"driver":"slirp4netns","dns":["10.0.2.3","fd00::3"],"childIP":"10.0.2.100","#,
        r#""dynamicChildIP":true,"ipv6":true},"#,
        r#""portDriver":{"driver":"builtin","protos":["tcp","udp"],"disallowLoopbackChildIP":true,"#,
        r#""extra":{"sourceIPTransparentBackend":"nft"}}}"#
    );
    assert_eq!(to_json(&info()), expected);
    assert_eq!(
        to_json(&status()),
        r#"{"id":7,"spec":{"proto":"tcp4","parentIP":"0.0.0.0","parentPort":8080,"childPort":80,"childIP":"127.0.0.1","allowFrom":["10.9.0.0/24","fd00::1"]}}"#
    );
}

#[test]
fn leaves_zero_values_out() {
    assert_eq!(
        to_json(&Info::default()),
        r#"{"apiVersion":"","version":"","stateDir":"","childPID":0}"#
    );
    assert_eq!(to_json(&NetworkDriverInfo::default()), r#"{"driver":""}"#);
    assert_eq!(to_json(&PortDriverInfo::default()), r#"{"driver":"","protos":[]}"#);
    assert_eq!(to_json(&PortStatus::default()), r#"{"id":0,"spec":{"proto":""}}"#);
}

#[test]
fn encodes_as_go_does() {
    let message = ErrorMessage { message: "<a> & \"b\"\u{2028}\n".into() };
    assert_eq!(to_json(&message), r#"{"message":"\u003ca\u003e \u0026 \"b\"\u2028\n"}"#);
    let mapped = NetworkDriverInfo {
        child_ip: Some("::ffff:10.0.2.100".parse().unwrap()),
        ..NetworkDriverInfo::default()
    };
    assert_eq!(to_json(&mapped), r#"{"driver":"","childIP":"10.0.2.100"}"#);
    assert_eq!(
        to_json_pretty(&ErrorMessage { message: "&".into() }),
        "{\n    \"message\": \"\\u0026\"\n}"
    );
}

#[test]
fn decodes_as_go_does() {
    let expected = status().spec;
    for body in [
        r#"{"proto":"tcp4","parentIP":"0.0.0.0","parentPort":8080,"childPort":80,"childIP":"127.0.0.1",
            "allowFrom":["10.9.0.0/24","fd00::1"]}"#,
        r#" {"PROTO":"tcp4","parentip":"0.0.0.0","ParentPort":8080,"CHILDPORT":80,"ChildIP":"127.0.0.1",
            "AllowFrom":["10.9.0.0/24","fd00::1"]} "#,
        r#"{"proto":"udp","Proto":"tcp4","proto":null,"parentIP":"0.0.0.0","parentPort":8080,"childPort":80,
            "childIP":"127.0.0.1","allowFrom":["10.9.0.0/24","fd00::1"],"unknown":{"deep":[1,{"a":null}]}} trailing"#,
    ] {
        assert_eq!(from_json::<PortSpec>(body.as_bytes()).unwrap(), expected, "{body}");
    }
    assert_eq!(from_json::<PortSpec>(b"null").unwrap(), PortSpec::default());
    assert_eq!(from_json::<PortSpec>(b"{}").unwrap(), PortSpec::default());
    assert_eq!(from_json::<Vec<PortStatus>>(b"null").unwrap(), []);
    assert_eq!(from_json::<ErrorMessage>(b"{\"message\":\"\xff\"}").unwrap().message, "\u{fffd}");
    let nulls = br#"{"networkDriver":null,"portDriver":{"protos":["tcp",null],"extra":{"a":null}},"childPID":null}"#;
    let decoded = from_json::<Info>(nulls).unwrap();
    assert_eq!(decoded.network_driver, None);
    let driver = decoded.port_driver.unwrap();
    assert_eq!(driver.protos, ["tcp", ""]);
    assert_eq!(driver.extra["a"], "");
    let empty_ip = br#"{"childIP":"","dns":["",null,"::ffff:1.2.3.4"]}"#;
    let decoded = from_json::<NetworkDriverInfo>(empty_ip).unwrap();
    assert_eq!(decoded.child_ip, None);
    assert_eq!(decoded.dns, ["1.2.3.4".parse::<IpAddr>().unwrap()]);
}

#[test]
fn refuses_what_go_refuses() {
    for (body, token) in [
        ("", "EOF"),
        (" \n", "EOF"),
        ("{", "EOF"),
        ("[]", "invalid type: sequence"),
        ("5", "invalid type: integer"),
        ("\"x\"", "invalid type: string"),
        (r#"{"proto":5}"#, "proto: invalid type: integer `5`"),
        (r#"{"parentPort":"80"}"#, "parentPort: invalid type: string"),
        (r#"{"parentPort":80.5}"#, "parentPort: invalid type: floating point"),
        (r#"{"childPort":1e3}"#, "childPort: invalid type: floating point"),
        (r#"{"childPort":18446744073709551615}"#, "childPort: invalid value"),
        (r#"{"childPort":99999999999999999999}"#, "childPort: "),
        (r#"{"proto":"tcp",}"#, "trailing comma"),
        (r#"{proto:"tcp"}"#, "key must be a string"),
    ] {
        let error = from_json::<PortSpec>(body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(token), "{body}: {error}");
    }
    assert_eq!(from_json::<PortSpec>(b"").unwrap_err().to_string(), "EOF");
    assert!(from_json::<Info>(br#"{"childPID":3000000000}"#).is_err());
    assert!(from_json::<NetworkDriverInfo>(br#"{"childIP":"nonsense"}"#).is_err());
    let deep = format!("{{\"x\":{}", "[".repeat(100_000));
    assert!(from_json::<PortSpec>(deep.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn decoding_never_panics(text in "\\PC{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = from_json::<PortSpec>(text.as_bytes());
        let _ = from_json::<Info>(&bytes);
        let _ = from_json::<Vec<PortStatus>>(format!("[{{\"id\":1,\"spec\":{text}").as_bytes());
    }

    #[test]
    fn a_spec_is_echoed_unchanged(
        proto in any::<String>(), parent_ip in any::<String>(), child_ip in any::<String>(),
        parent_port in any::<i64>(), child_port in any::<i64>(), allow_from in any::<Vec<String>>(),
    ) {
        let spec = PortSpec { proto, parent_ip, parent_port, child_port, child_ip, allow_from };
        let decoded = from_json::<PortSpec>(to_json(&spec).as_bytes());
        prop_assert_eq!(decoded.unwrap(), spec);
    }
}
