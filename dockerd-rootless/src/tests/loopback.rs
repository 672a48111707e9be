//! Ports of the host's loopback: settings and plan together.

use super::*;

const ALLOW: (&str, &str) = ("HOST_LOOPBACK_ALLOW", "tcp:8080,tcp:5432, udp:53");

#[test]
fn the_rest_of_the_loopback_stays_closed() {
    let line = flags(&with_gateway(NEW), &[ALLOW]);
    let given =
        " --disable-host-loopback --host-loopback-allow=tcp:5432,tcp:8080,udp:53 --port-driver=";
    assert!(line.contains(given), "{line}");
    assert!(!flags(&with_gateway(NEW), &[]).contains("--host-loopback-allow"));
    assert!(!flags(&with_gateway(NEW), &[(ALLOW.0, "")]).contains("--host-loopback-allow"));
}

#[test]
fn a_value_that_is_not_understood_is_named() {
    for (value, part) in [
        ("5432", "is \"5432\": the entry \"5432\" has no protocol"),
        ("tcp:80-70", "the range \"80-70\""),
        ("tcp:80 udp:53", "the port \"80 udp:53\""),
    ] {
        let text = refusal(&[(ALLOW.0, value)]);
        assert!(
            text.contains(part) && text.contains(&format!("hint: set {PREFIX}{}", ALLOW.0)),
            "{text}"
        );
    }
}

#[test]
fn only_the_gateway_can_open_single_ports() {
    let refused = |host: &Fake, vars: &[(&str, &str)]| {
        let error = plan(host, &[&[ALLOW], vars].concat(), &[]).map(drop).unwrap_err().to_string();
        assert_eq!(error.matches("\nhint: ").count(), 1, "{error}");
        error
    };
    let host = with_gateway(NEW);
    for (host, vars, net) in [
        (&host, &[("NET", "slirp4netns")][..], "slirp4netns"),
        (&host, &[("FLAGS", "--net=pasta")], "pasta"),
        (&host, &[("PORT_DRIVER", "slirp4netns")], "slirp4netns"),
        (&host, &[("NET", "gvisor-tap-vsock")], "gvisor-tap-vsock"),
        // Chosen by the launcher: one without the gateway, and one whose gateway does not work.
        (&machine(NEW), &[], "slirp4netns"),
        (&with_gateway(NEW).refusing("no"), &[], "slirp4netns"),
    ] {
        let text = refused(host, vars);
        assert!(
            text.contains(&format!("the network driver {net} cannot open single ports")),
            "{text}"
        );
    }
    for vars in [("DISABLE_HOST_LOOPBACK", "false"), ("FLAGS", "--disable-host-loopback=false")] {
        let text = refused(&host, &[vars]);
        assert!(text.contains("can reach every port of the host's loopback"), "{text}");
    }
    for vars in [("NET", "gateway"), ("PORT_DRIVER", "builtin"), ("PORT_DRIVER", "none")] {
        assert!(plan(&host, &[ALLOW, vars], &[]).is_ok(), "{vars:?}");
    }
}

#[test]
fn host_gateway_leads_to_the_allowed_ports() {
    let in_flags = ("FLAGS", "--host-loopback-allow=tcp:80");
    for (host, vars, expected) in [
        (with_gateway(NEW), &[ALLOW][..], Some(2)),
        (with_gateway(OLD20), &[ALLOW], Some(1)),
        (with_gateway(NEW), &[in_flags], Some(2)),
        (with_gateway(NEW), &[(ALLOW.0, "")], None),
    ] {
        assert_eq!(plan(&host, vars, &[]).unwrap().host_gateway(), expected, "{vars:?}");
    }
}

#[test]
fn the_journal_names_the_ports() {
    let shown = plan(&with_gateway(NEW), &[ALLOW], &[]).unwrap().to_string();
    let end = " host-loopback=false host-loopback-allow=tcp:5432,tcp:8080,udp:53";
    assert!(shown.ends_with(end), "{shown}");
}
