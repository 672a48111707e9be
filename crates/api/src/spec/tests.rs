use proptest::prelude::*;

use super::*;

fn spec(proto: &str, parent: (&str, i64), child: (&str, i64)) -> PortSpec {
    PortSpec {
        proto: proto.into(),
        parent_ip: parent.0.into(),
        parent_port: parent.1,
        child_port: child.1,
        allow_from: Vec::new(),
        child_ip: child.0.into(),
    }
}

#[test]
fn parses_every_form() {
    for (text, expected) in [
        ("127.0.0.1:8080:80/tcp", spec("tcp", ("127.0.0.1", 8080), ("", 80))),
        ("127.0.0.1:8080:10.0.2.100:80/tcp", spec("tcp", ("127.0.0.1", 8080), ("10.0.2.100", 80))),
        (":8080:80/tcp4", spec("tcp4", ("", 8080), ("", 80))),
        ("[::1]:8080:80/tcp6", spec("tcp6", ("::1", 8080), ("", 80))),
        ("[::1]:8080:[::2]:80/udp", spec("udp", ("::1", 8080), ("::2", 80))),
        ("0.0.0.0:53:[10.0.2.100]:53/udp4", spec("udp4", ("0.0.0.0", 53), ("10.0.2.100", 53))),
        ("[::]:1:1/sctp6", spec("sctp6", ("::", 1), ("", 1))),
    ] {
        assert_eq!(text.parse::<PortSpec>().as_ref(), Ok(&expected), "{text}");
    }
}

#[test]
fn bad_text_is_one_line_that_names_value_reason_and_form() {
    for (text, reason) in [
        ("", "/PROTO is missing at the end"),
        ("bad", "/PROTO is missing at the end"),
        ("8080", "/PROTO is missing at the end"),
        ("8080/tcp", "the child port is missing"),
        ("8080:80/tcp", "too few fields"),
        ("127.0.0.1:8080:80/tcp,127.0.0.1:4040:40/tcp", "too many fields"),
        ("::1:8080:80/tcp", "is not a number"),
        ("127.0.0.1:http:80/tcp", "parent port \"http\" is not a number"),
        ("127.0.0.1:80:http/tcp", "child port \"http\" is not a number"),
        ("127.0.0.1::80/tcp", "parent port \"\" is not a number"),
        ("127.0.0.1:80:/tcp", "child port \"\" is not a number"),
        ("[::1:80:80/tcp", "a bracket is not closed"),
        ("[::1]80:80/tcp", "a bracket is not followed by a colon"),
        ("[]:80:80/tcp", "the address between the brackets is missing"),
        ("1.2.3.4:80:::1:80/tcp", "too many fields"),
        ("1.2.3.4:99999999999999999999:1/tcp", "is not a number"),
    ] {
        let error = text.parse::<PortSpec>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
        assert!(error.contains(&format!("{text:?}")), "{text}: {error}");
        assert!(error.contains(FORM) && !error.contains('\n'), "{text}: {error}");
    }
    let error = "1.2.3.4:1:1/TCP".parse::<PortSpec>().unwrap_err().to_string();
    assert!(error.starts_with("unknown proto: \"TCP\""), "{error}");
}

#[test]
fn validates_in_order_and_prints_numbers_as_numbers() {
    let good = spec("tcp", ("127.0.0.1", 1001), ("", 1001));
    let checked = good.validate().unwrap();
    assert_eq!(checked.proto, Proto::Tcp);
    assert_eq!(checked.parent_ip, Some("127.0.0.1".parse().unwrap()));
    assert_eq!((checked.parent_port, checked.child_port, checked.child_ip), (1001, 1001, None));
    for (bad, token) in [
        (spec("", ("x", 0), ("x", 0)), "unknown proto: \"\""),
        (spec("NaN", ("x", 0), ("x", 0)), "unknown proto: \"NaN\""),
        (spec("tcp", ("x", 0), ("x", 0)), "invalid ParentIP: \"x\""),
        (spec("tcp", ("::1%lo", 1), ("", 1)), "invalid ParentIP: \"::1%lo\""),
        (spec("tcp", ("", 0), ("x", 0)), "invalid ChildIP: \"x\""),
        (spec("tcp", ("", 0), ("", 0)), "invalid ParentPort: 0 "),
        (spec("tcp", ("", -200), ("", 0)), "invalid ParentPort: -200 "),
        (spec("tcp", ("", 65536), ("", 0)), "invalid ParentPort: 65536 "),
        (spec("tcp", ("", 65535), ("", 1_000_000)), "invalid ChildPort: 1000000 "),
        (spec("tcp", ("", 1), ("", i64::MIN)), "invalid ChildPort: -9223372036854775808 "),
    ] {
        let error = bad.validate().unwrap_err().to_string();
        assert!(error.starts_with(token), "{error}");
    }
}

#[test]
fn conflicts_are_textual() {
    let published = [
        PortStatus { id: 1, spec: spec("tcp", ("", 80), ("", 80)) },
        PortStatus { id: 2, spec: spec("tcp", ("10.10.10.10", 8080), ("", 8080)) },
    ];
    let outcome = |s: PortSpec| s.validate_among(&published).map(drop).map_err(|e| e.to_string());
    assert_eq!(outcome(spec("tcp", ("", 80), ("", 90))), Err("conflict with ID 1".into()));
    assert_eq!(
        outcome(spec("tcp", ("10.10.10.10", 8080), ("10.0.2.100", 1))),
        Err("conflict with ID 2".into())
    );
    for fine in [
        spec("udp", ("", 80), ("", 80)),
        spec("tcp4", ("", 80), ("", 80)),
        spec("tcp", ("0.0.0.0", 80), ("", 80)),
        spec("tcp", ("10.10.10.11", 8080), ("", 8080)),
        spec("tcp", ("10.10.10.10", 8081), ("", 8080)),
    ] {
        assert_eq!(outcome(fine), Ok(()));
    }
    assert!(outcome(spec("tcp", ("", 80), ("", 0))).unwrap_err().starts_with("invalid ChildPort"));
}

#[test]
fn protocols_take_a_family_once() {
    for proto in Proto::ALL {
        assert_eq!(proto.as_str().parse(), Ok(proto));
        for family in [Family::V4, Family::V6] {
            let restricted = proto.or_family(family);
            assert_eq!(restricted.transport(), proto.transport());
            assert_eq!(restricted.family(), proto.family().or(Some(family)));
        }
    }
}

fn any_ip() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|ip| ip.to_string()),
    ]
}

fn any_network() -> impl Strategy<Value = String> {
    let v4 = (any::<std::net::Ipv4Addr>(), 0..=32u8).prop_map(|(ip, bits)| format!("{ip}/{bits}"));
    let v6 = (any::<std::net::Ipv6Addr>(), 0..=128u8).prop_map(|(ip, bits)| format!("{ip}/{bits}"));
    prop_oneof![v4, v6, any::<std::net::IpAddr>().prop_map(|ip| ip.to_string())]
}

#[test]
fn clients_are_addresses_and_networks() {
    let clients = |text: &str| -> Result<Vec<String>, SpecError> {
        let valid = format!(":80:80/tcp{text}").parse::<PortSpec>()?.validate()?;
        Ok(valid.allow_from.iter().map(ToString::to_string).collect())
    };
    assert_eq!(clients(""), Ok(vec![]));
    assert_eq!(
        clients("@10.9.0.0/24+192.0.2.7+::ffff:192.0.2.8+::ffff:10.0.0.0/104+fd00::/8+::1"),
        Ok(["10.9.0.0/24", "192.0.2.7/32", "192.0.2.8/32", "10.0.0.0/8", "fd00::/8", "::1/128"]
            .map(str::to_owned)
            .to_vec())
    );
    for (text, bad) in [
        ("@", ""),
        ("@10.9.0.0/33", "10.9.0.0/33"),
        ("@10.9.0.1+", ""),
        ("@10.9.0.1,10.9.0.2", "10.9.0.1,10.9.0.2"),
        ("@example.org", "example.org"),
        ("@a@b", "a@b"),
    ] {
        assert_eq!(clients(text), Err(SpecError::AllowFrom(bad.to_owned())), "{text}");
    }
    let many = |count| format!("@{}", vec!["192.0.2.7"; count].join("+"));
    assert_eq!(clients(&many(256)).unwrap().len(), 256);
    let error = clients(&many(257)).unwrap_err();
    assert_eq!(error.to_string(), "invalid allowFrom: 257 entries (at most 256)");
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC{0,60}", close in "[\\[\\]:/0-9a-f.tcp@+]{0,40}") {
        for text in [text, close] {
            if let Ok(spec) = text.parse::<PortSpec>() {
                let _ = spec.validate();
            }
        }
    }

    #[test]
    fn text_round_trips(
        proto in prop::sample::select(Proto::ALL.to_vec()),
        parent_ip in any_ip(), child_ip in any_ip(),
        parent_port in 1..=65535i64, child_port in 1..=65535i64,
        allow_from in proptest::collection::vec(any_network(), 0..3),
    ) {
        let proto = proto.to_string();
        let spec = PortSpec { proto, parent_ip, parent_port, child_port, child_ip, allow_from };
        prop_assert!(spec.validate().is_ok());
        prop_assert_eq!(spec.to_string().parse::<PortSpec>(), Ok(spec));
    }
}
