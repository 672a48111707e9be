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
        assert!(text.ends_with("from the daemon's settings"), "{text}");
    }
}

#[test]
fn only_the_gateway_can_open_single_ports() {
    let refused = |host: &Fake, vars: &[(&str, &str)]| {
        let error = plan(host, &[&[ALLOW], vars].concat(), &[]).map(drop).unwrap_err().to_string();
        assert_eq!(error.matches("\nhint: ").count(), 1, "{error}");
        let name = format!("{PREFIX}{}", ALLOW.0);
        assert!(error.contains(&format!("{name} is \"tcp:5432,tcp:8080,udp:53\", but")), "{error}");
        assert!(error.contains(&format!("remove {name} from the daemon's settings")), "{error}");
        error
    };
    let host = with_gateway(NEW);
    let variable = |name| format!("remove {PREFIX}{name} from the daemon's settings");
    let flag = |name| format!("remove --{name} from {PREFIX}FLAGS");
    let selects = |removals: &[String]| {
        format!("{}, so that the launcher selects the gateway", removals.join(" and "))
    };
    let check = "run dockerd-rootless-setuptool.sh check to see why".to_owned();
    let both = [("FLAGS", "--net=pasta"), ("NET", "slirp4netns"), ("PORT_DRIVER", "builtin")];
    for (host, vars, net, hint) in [
        (&host, &[("NET", "slirp4netns")][..], "slirp4netns", selects(&[variable("NET")])),
        (&host, &[("FLAGS", "--net=pasta")], "pasta", selects(&[flag("net")])),
        (&host, &both, "pasta", selects(&[flag("net"), variable("NET")])),
        (&host, &[("FLAGS", "--net=none"), ("NET", "gateway")], "none", selects(&[flag("net")])),
        (
            &host,
            &[("PORT_DRIVER", "slirp4netns")],
            "slirp4netns",
            selects(&[variable("PORT_DRIVER")]),
        ),
        (
            &host,
            &[("FLAGS", "--port-driver slirp4netns")],
            "slirp4netns",
            selects(&[flag("port-driver")]),
        ),
        (&host, &[("NET", "gvisor-tap-vsock")], "gvisor-tap-vsock", selects(&[variable("NET")])),
        // Chosen by the launcher: one without the gateway, and one whose gateway does not work.
        (&machine(NEW), &[], "slirp4netns", check.clone()),
        (&with_gateway(NEW).refusing("no"), &[], "slirp4netns", check),
    ] {
        let text = refused(host, vars);
        let driver = format!("the network driver {net} cannot open single ports");
        assert!(text.contains(&driver) && text.contains(&format!("\nhint: {hint}")), "{text}");
    }
    let in_flags = ("FLAGS", "--disable-host-loopback=false");
    let (no_flag, no_variable) = (flag("disable-host-loopback"), variable("DISABLE_HOST_LOOPBACK"));
    for (vars, hint) in [
        (&[("DISABLE_HOST_LOOPBACK", "false")][..], no_variable.clone()),
        (&[in_flags], no_flag.clone()),
        (&[in_flags, ("DISABLE_HOST_LOOPBACK", "false")], format!("{no_flag} and {no_variable}")),
    ] {
        let text = refused(&host, vars);
        assert!(text.contains("can reach every port of the host's loopback"), "{text}");
        assert!(text.contains(&format!("to open only these ports, {hint}; to open all")), "{text}");
    }
    for vars in [
        &[("NET", "gateway")][..],
        &[("PORT_DRIVER", "builtin")],
        &[("PORT_DRIVER", "none")],
        &[("FLAGS", "--net=gateway"), ("NET", "slirp4netns")],
        &[("FLAGS", "--disable-host-loopback"), ("DISABLE_HOST_LOOPBACK", "false")],
    ] {
        assert!(plan(&host, &[&[ALLOW], vars].concat(), &[]).is_ok(), "{vars:?}");
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
fn the_journal_names_what_is_reachable_whoever_opens_it() {
    let host = with_gateway(NEW);
    for (vars, end) in [
        (&[ALLOW][..], " host-loopback=false host-loopback-allow=tcp:5432,tcp:8080,udp:53"),
        (
            &[("FLAGS", "--host-loopback-allow=tcp:22 -host-loopback-allow udp:53")],
            " host-loopback=false host-loopback-allow=tcp:22,udp:53",
        ),
        (
            &[ALLOW, ("FLAGS", "--host-loopback-allow=tcp:5433")],
            " host-loopback=false host-loopback-allow=tcp:5432-5433,tcp:8080,udp:53",
        ),
        // rootlesskit will say what is wrong with it.
        (&[("FLAGS", "--host-loopback-allow=22")], " host-loopback=false host-loopback-allow=22"),
        (&[("FLAGS", "--disable-host-loopback=false")], " host-loopback=true"),
        (
            &[("FLAGS", "--disable-host-loopback"), ("DISABLE_HOST_LOOPBACK", "false")],
            " host-loopback=false",
        ),
    ] {
        let shown = plan(&host, vars, &[]).unwrap().to_string();
        assert!(shown.ends_with(end), "{shown}");
    }
}

#[test]
fn a_list_that_restricts_nothing_is_warned_of() {
    let told = |vars: &[(&str, &str)]| {
        let notes = plan(&with_gateway(NEW), vars, &[]).unwrap().notes;
        let warnings = notes.into_iter().filter(|note| note.level == Level::Warn);
        warnings.map(|note| note.text).collect::<Vec<_>>()
    };
    for (vars, part) in [
        (&[(ALLOW.0, "tcp:1-65535,udp:1-65535")][..], "every TCP and UDP port"),
        (&[(ALLOW.0, "tcp:1-65535,udp:53")], "every TCP port"),
        (&[(ALLOW.0, "udp:1-60000,udp:60001-65535")], "every UDP port"),
        (
            &[(ALLOW.0, "tcp:1-1000"), ("FLAGS", "--host-loopback-allow=tcp:1001-65535")],
            "every TCP port",
        ),
    ] {
        let warnings = told(vars);
        assert!(warnings.len() == 1 && warnings[0].contains(part), "{vars:?}: {warnings:?}");
    }
    assert_eq!(told(&[(ALLOW.0, "tcp:1-65534,udp:2-65535")]), [""; 0]);
}

#[test]
fn the_warning_about_the_other_variable_is_true_with_a_list() {
    let notes =
        plan(&with_gateway(NEW), &[ALLOW, ("DISABLE_HOST_LOOPBACK", "0")], &[]).unwrap().notes;
    let text = &notes.iter().find(|note| note.level == Level::Warn).unwrap().text;
    assert!(text.contains("DISABLE_HOST_LOOPBACK is \"0\""), "{text}");
    assert!(!text.contains("cannot reach"), "{text}");
}
