//! What the unit tests share, and the tests of settings and plan together: an environment goes in, the
//! arguments of rootlesskit or one clear error come out.
//!
//! The file is long because it covers every variable and the pairs of them.

mod egress;
pub(crate) mod fake_host;
mod loopback;
mod swarm;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use hostenv::Env;
use hostenv::routes::Routes;
use proptest::prelude::*;

use crate::plan::{Plan, find_rootlesskit};
use crate::report::{Failure, Level};
use crate::settings::Settings;
use crate::tests::fake_host::Fake;

const PREFIX: &str = "DOCKERD_ROOTLESS_ROOTLESSKIT_";
const NEW: &str = "Docker version 29.5.0, build x";
const OLD: &str = "Docker version 28.5.2+dfsg4, build x";
const OLD20: &str = "Docker version 20.10.24+dfsg1, build x";

pub(crate) fn env_of(vars: &[(&str, &str)]) -> Env {
    vars.iter().copied().collect()
}

fn machine(dockerd: &'static str) -> Fake {
    Fake::default()
        .with("dockerd", dockerd)
        .with("rootlesskit", "")
        .with("slirp4netns", "--netns-type")
        .with("pasta", "pasta 2025_01_21.4f2c8e7")
}

/// The same with a rootlesskit that has the gateway network, which works.
fn with_gateway(dockerd: &'static str) -> Fake {
    Fake::default()
        .with("dockerd", dockerd)
        .with("rootlesskit", "--net value  [host, none, gateway, pasta, slirp4netns]")
        .with("slirp4netns", "--netns-type")
}

/// A plan from variables without their prefix.
fn plan(host: &Fake, vars: &[(&str, &str)], args: &[&str]) -> Result<Plan, Failure> {
    let mut env = env_of(&[("XDG_RUNTIME_DIR", "/run/user/1000")]);
    for (name, value) in vars {
        match *name {
            "DOCKERD" => env.set("DOCKERD", *value),
            "SWARM" => env.set("DOCKERD_ROOTLESS_SWARM", *value),
            name => env.set(&format!("{PREFIX}{name}"), *value),
        }
    }
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    Plan::new(Settings::read(&env)?, host, Path::new("/bin/rootlesskit"), &args)
}

/// The arguments up to the target, as one line.
fn flags(host: &Fake, vars: &[(&str, &str)]) -> String {
    let args = plan(host, vars, &[]).unwrap().arguments(Path::new("/T"), &[]);
    let args: Vec<_> = args.iter().map(|a| a.to_str().unwrap()).collect();
    args.join(" ").strip_suffix(" /T").unwrap().to_owned()
}

fn refusal(vars: &[(&str, &str)]) -> String {
    let text = plan(&machine(NEW), vars, &[]).map(|p| p.to_string()).unwrap_err().to_string();
    assert_eq!(text.matches("\nhint: ").count(), 1, "{text}");
    text
}

fn warnings(vars: &[(&str, &str)], dockerd: &'static str, args: &[&str]) -> Vec<String> {
    let notes = plan(&machine(dockerd), vars, args).unwrap().notes;
    notes.into_iter().filter(|n| n.level == Level::Warn).map(|n| n.text).collect()
}

#[test]
fn the_whole_vector_in_its_order() {
    let args: Vec<OsString> = ["--debug", "", "a b"].map(OsString::from).into();
    let plan = plan(&machine(OLD), &[], &[]).unwrap();
    assert_eq!(
        plan.arguments(Path::new("/usr/bin/dockerd-rootless"), &args),
        [
            "--state-dir=/run/user/1000/dockerd-rootless",
            "--net=slirp4netns",
            "--mtu=65520",
            "--slirp4netns-sandbox=auto",
            "--slirp4netns-seccomp=auto",
            "--disable-host-loopback",
            "--port-driver=builtin",
            "--copy-up=/etc",
            "--copy-up=/run",
            "--propagation=rslave",
            "/usr/bin/dockerd-rootless",
            "--debug",
            "",
            "a b",
        ]
    );
}

#[test]
fn a_host_with_ipv6_only_gets_ipv6_once() {
    let routes = Routes { v6_default: true, ..Routes::default() };
    for (vars, given) in [
        (&[][..], "--disable-host-loopback --ipv6 --port-driver=gateway"),
        (&[("NET", "slirp4netns")][..], "--disable-host-loopback --ipv6 --port-driver=builtin"),
        (&[("FLAGS", "--ipv6")][..], " --detach-netns --ipv6 /T"),
        (&[("FLAGS", "--ipv6=false")][..], " --detach-netns --ipv6=false /T"),
    ] {
        let plan = plan(&with_gateway(NEW), vars, &[]).unwrap().on(&routes);
        let args = plan.arguments(Path::new("/T"), &[]);
        let line = args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        assert!(line.contains(given) && line.matches("--ipv6").count() == 1, "{line}");
    }
    let both = Routes { v4_default: true, ..routes };
    let plan = plan(&with_gateway(NEW), &[], &[]).unwrap().on(&both);
    assert!(!plan.arguments(Path::new("/T"), &[]).contains(&"--ipv6".into()));
}

#[test]
fn the_gateway_has_flags_of_its_own() {
    let args = plan(&with_gateway(NEW), &[], &[]).unwrap().arguments(Path::new("/T"), &[]);
    assert_eq!(
        args,
        [
            "--state-dir=/run/user/1000/dockerd-rootless",
            "--net=gateway",
            "--mtu=1500",
            "--disable-host-loopback",
            "--port-driver=gateway",
            "--gateway-dual-stack",
            "--copy-up=/etc",
            "--copy-up=/run",
            "--propagation=rslave",
            "--detach-netns",
            "/T",
        ]
    );
    let line = flags(&with_gateway(OLD), &[("DISABLE_HOST_LOOPBACK", "false"), ("MTU", "9000")]);
    assert!(line.contains("--net=gateway --mtu=9000 --port-driver=gateway "), "{line}");
    let shown = plan(&with_gateway(NEW), &[], &[]).unwrap().to_string();
    assert!(
        shown.contains("net=gateway mtu=1500 port-driver=gateway detach-netns=true host-"),
        "{shown}"
    );
}

#[test]
fn dual_stack_is_for_the_gateways_own_ports_and_the_user_may_say_no() {
    let dual = |vars: &[(&str, &str)]| {
        flags(&with_gateway(NEW), vars).matches(" --gateway-dual-stack ").count()
    };
    assert_eq!(dual(&[]), 1);
    assert_eq!(dual(&[("NET", "gateway")]), 1);
    assert_eq!(dual(&[("FLAGS", "--port-driver=gateway --net=gateway")]), 1);
    for vars in [
        &[("FLAGS", "--gateway-dual-stack=false")][..],
        &[("FLAGS", "-gateway-dual-stack=true --debug")],
        &[("PORT_DRIVER", "builtin")],
        &[("FLAGS", "--port-driver builtin")],
        &[("NET", "slirp4netns")],
        &[("NET", "gateway"), ("PORT_DRIVER", "none")],
        &[("FLAGS", "--net=gvisor-tap-vsock")],
    ] {
        assert_eq!(dual(vars), 0, "{vars:?}");
    }
}

#[test]
fn what_the_user_chose_is_never_replaced() {
    let host = with_gateway(NEW);
    for (vars, tokens) in [
        (&[("NET", "slirp4netns")][..], "--net=slirp4netns --mtu=65520 --slirp4netns-sandbox=auto"),
        (&[("PORT_DRIVER", "slirp4netns")], "--net=slirp4netns "),
        (&[("FLAGS", "--port-driver=slirp4netns")], "--net=slirp4netns "),
        (
            &[("PORT_DRIVER", "builtin")],
            "--net=gateway --mtu=1500 --disable-host-loopback --port-driver=builtin ",
        ),
        (&[("FLAGS", "--net=pasta")], "--net=pasta --mtu=65520 "),
        (&[("NET", "gvisor-tap-vsock")], "--net=gvisor-tap-vsock --mtu=65520 "),
        (
            &[("NET", "gvisor-tap-vsock"), ("PORT_DRIVER", "gvisor-tap-vsock")],
            "--port-driver=gvisor-tap-vsock ",
        ),
    ] {
        let line = flags(&host, vars);
        assert!(line.contains(tokens), "{vars:?}: {line}");
    }
    // Named, it is not tried first: rootlesskit itself says what is wrong.
    let broken = with_gateway(NEW).refusing("no");
    for vars in [("NET", "gateway"), ("PORT_DRIVER", "gateway"), ("FLAGS", "--net=gateway")] {
        assert!(flags(&broken, &[vars]).contains("--net=gateway --mtu=1500 "), "{vars:?}");
    }
    assert!(!broken.asked.borrow().iter().any(|asked| asked.contains("rootlesskit")));
    assert!(flags(&broken, &[]).contains("--net=slirp4netns "));
    for (net, port_driver, allowed) in [
        ("gateway", "slirp4netns", "gateway works only with gateway, builtin, none"),
        ("slirp4netns", "gateway", "slirp4netns works only with builtin, slirp4netns, none"),
        ("gvisor-tap-vsock", "gateway", "works only with builtin, gvisor-tap-vsock, none"),
        ("gateway", "gvisor-tap-vsock", "gateway works only with gateway, builtin, none"),
    ] {
        let text = refusal(&[("NET", net), ("PORT_DRIVER", port_driver)]);
        assert!(text.contains(allowed), "{text}");
    }
}

#[test]
fn the_network_in_force_is_told_to_the_second_pass() {
    let net = |vars: &[(&str, &str)]| plan(&with_gateway(NEW), vars, &[]).unwrap().net_in_force();
    assert_eq!(net(&[]), "gateway");
    assert_eq!(net(&[("FLAGS", "--net=pasta")]), "pasta");
    assert_eq!(net(&[("NET", "gateway"), ("FLAGS", "--net=slirp4netns")]), "slirp4netns");
}

#[test]
fn detaching_follows_the_daemon() {
    let detached =
        |host: &Fake, vars: &[(&str, &str)]| flags(host, vars).ends_with(" --detach-netns");
    let (old, new, dev) = (machine(OLD), machine(NEW), machine("Docker version dev, build x"));
    for value in ["", "auto"] {
        let vars = [("DETACH_NETNS", value)];
        assert_eq!(
            [&old, &new, &dev].map(|h| detached(h, &vars)),
            [false, true, false],
            "{value:?}"
        );
    }
    for host in [&old, &new, &dev] {
        for (value, expected) in [("1", true), ("true", true), ("0", false), ("false", false)] {
            assert_eq!(detached(host, &[("DETACH_NETNS", value)]), expected, "{value:?}");
        }
    }
    // Built from source: it is what is in it that counts.
    let dev = machine("Docker version dev, build x").detaching("dockerd");
    assert!(detached(&dev, &[]) && !detached(&dev, &[("DETACH_NETNS", "false")]));
    let w = warnings(&[("DETACH_NETNS", "true")], OLD, &[]);
    assert!(w.len() == 1 && w[0].contains("28.5.2+dfsg4"), "{w:?}");
    assert!(warnings(&[("DETACH_NETNS", "true")], NEW, &[]).is_empty());
}

/// The plan with a configuration file.
fn configured(
    host: &Fake,
    vars: &[(&str, &str)],
    args: &[&str],
    json: &str,
) -> Result<Plan, Failure> {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("daemon.json"), json).unwrap();
    let file = home.path().join("daemon.json").to_str().unwrap().to_owned();
    let args = [args, &["--config-file", &file]].concat();
    let words: Vec<OsString> = args.iter().map(OsString::from).collect();
    let mut plan = plan(host, vars, &args)?;
    plan.check_config(&env_of(&[]), &words)?;
    Ok(plan)
}

#[test]
fn live_restore_is_warned_of_in_one_line() {
    for (args, json, expected) in [
        (&[][..], "{\"live-restore\": true}", 1),
        (&["--live-restore"], "{}", 1),
        (&["--live-restore=false"], "{\"live-restore\": true}", 0),
        (&[], "", 0),
    ] {
        let notes = configured(&machine(NEW), &[], args, json).unwrap().notes;
        let found: Vec<_> = notes.iter().filter(|n| n.text.contains("live-restore")).collect();
        assert_eq!(found.len(), expected, "{args:?} {json}");
        assert!(found.iter().all(|n| n.level == Level::Warn && !n.text.contains('\n')));
    }
}

#[test]
fn ports_that_an_old_daemon_would_not_publish_are_refused_with_the_reason() {
    let json = "{\"userland-proxy\": false}";
    for host in [machine(OLD20), with_gateway(OLD20)] {
        let text = configured(&host, &[], &[], json).map(drop).unwrap_err().to_string();
        assert!(text.contains("dockerd 20.10.24") && text.contains("\nhint: remove"), "{text}");
        assert!(configured(&host, &[], &["--userland-proxy"], json).is_ok());
        assert!(configured(&host, &[("PORT_DRIVER", "none")], &[], json).is_ok());
        assert!(configured(&host, &[("NET", "pasta")], &[], json).is_ok(), "implicit");
        assert!(configured(&host, &[], &["--userland-proxy=false"], "{}").is_err());
    }
    assert!(configured(&machine(OLD), &[], &[], json).is_ok(), "28 asks by itself");
}

#[test]
fn host_gateway_leads_to_the_host_where_that_is_allowed() {
    let allowed = ("DISABLE_HOST_LOOPBACK", "false");
    for (host, vars, expected) in [
        (with_gateway(NEW), &[allowed][..], Some(2)),
        (with_gateway(OLD20), &[allowed], Some(1)),
        (machine(NEW), &[allowed], Some(2)),
        (with_gateway(NEW), &[], None),
        (with_gateway(NEW), &[allowed, ("FLAGS", "--disable-host-loopback")], None),
        (with_gateway(NEW), &[("FLAGS", "--disable-host-loopback=false")], Some(2)),
        (machine(NEW), &[allowed, ("NET", "vpnkit")], None),
    ] {
        assert_eq!(plan(&host, vars, &[]).unwrap().host_gateway(), expected, "{vars:?}");
    }
}

#[test]
fn values_that_cannot_work_are_named_with_what_can() {
    for (name, value, token) in [
        ("NET", "host", "NET is \"host\""),
        (
            "NET",
            "wlan0",
            "not one of none, gateway, pasta, slirp4netns, vpnkit, lxc-user-nic, gvisor-tap-vsock",
        ),
        ("MTU", "65522", "from 0 (the driver's default) to 65521"),
        ("MTU", "-1", "MTU is \"-1\""),
        ("MTU", "9999999999999999999999", "MTU is"),
        ("MTU", "1500 ", "MTU is \"1500 \""),
        (
            "PORT_DRIVER",
            "bultin",
            "not one of none, implicit, builtin, gateway, slirp4netns, pesto, gvisor-tap-vsock",
        ),
        (
            "SLIRP4NETNS_SANDBOX",
            "1",
            "SLIRP4NETNS_SANDBOX is \"1\", which is not one of auto, true, false",
        ),
        ("SLIRP4NETNS_SECCOMP", "yes", "SLIRP4NETNS_SECCOMP is \"yes\""),
        (
            "DETACH_NETNS",
            "yes",
            "DETACH_NETNS is \"yes\", which is not one of auto, true, 1, false, 0",
        ),
        ("FLAGS", "-p 'x", "FLAGS is `-p 'x`: the ' quote is never closed"),
        ("STATE_DIR", &"/x".repeat(60), "but at most 107"),
    ] {
        let text = refusal(&[(name, value)]);
        assert!(text.contains(token) && text.contains(PREFIX), "{text}");
    }
}

#[test]
fn overrides() {
    let host = machine(OLD);
    for (vars, tokens) in [
        (
            &[("NET", "lxc-user-nic")][..],
            &["--net=lxc-user-nic", "--mtu=1500", "--port-driver=builtin"][..],
        ),
        (&[("NET", "vpnkit")], &["--net=vpnkit", "--mtu=1500"]),
        (&[("NET", "gvisor-tap-vsock")], &["--mtu=65520", "--port-driver=builtin"]),
        (&[("NET", "pasta")], &["--net=pasta", "--mtu=65520", "--port-driver=implicit"]),
        (&[("MTU", "1400")], &["--net=slirp4netns", "--mtu=1400"]),
        (&[("PORT_DRIVER", "slirp4netns")], &["--port-driver=slirp4netns"]),
        (&[("SLIRP4NETNS_SANDBOX", "true")], &["--slirp4netns-sandbox=true"]),
        (&[("SLIRP4NETNS_SECCOMP", "false")], &["--slirp4netns-seccomp=false"]),
        (&[("STATE_DIR", "/s dir")], &["--state-dir=/s dir"]),
        (
            &[("FLAGS", "--net=vpnkit --vpnkit-binary=/opt/vpnkit")],
            &[
                "--net=vpnkit --mtu=1500 ",
                "--propagation=rslave --net=vpnkit --vpnkit-binary=/opt/vpnkit",
            ],
        ),
    ] {
        let line = flags(&host, vars);
        assert!(tokens.iter().all(|t| line.contains(t)), "{vars:?}: {line}");
    }
}

#[test]
fn drivers_that_do_not_go_together_are_refused_early() {
    let e = refusal(&[("NET", "pasta"), ("PORT_DRIVER", "builtin")]);
    assert!(e.contains("pasta works only with implicit, pesto, none"), "{e}");
    let e = refusal(&[("PORT_DRIVER", "implicit")]);
    assert!(e.contains("slirp4netns works only with builtin, slirp4netns, none"), "{e}");
    // rootlesskit judges what FLAGS says
    flags(
        &machine(NEW),
        &[("NET", "pasta"), ("PORT_DRIVER", "builtin"), ("FLAGS", "--port-driver=implicit")],
    );
}

#[test]
fn flags_follow_ours_and_may_be_quoted() {
    let host = machine(NEW);
    let args = plan(&host, &[("FLAGS", "-p  0.0.0.0:2376:2376/tcp\t--debug 'a b'")], &[]).unwrap();
    let args = args.arguments(Path::new("/T"), &[]);
    assert_eq!(
        args[10..],
        ["--detach-netns", "-p", "0.0.0.0:2376:2376/tcp", "--debug", "a b", "/T"]
    );
}

#[test]
fn a_port_bound_twice_is_warned_about_when_detached() {
    let vars = [("FLAGS", "-p 0.0.0.0:2376:2376/tcp")];
    let args = ["-H", "tcp://0.0.0.0:2376"];
    let w = warnings(&vars, NEW, &args);
    assert!(w.len() == 1 && w[0].contains("TCP port 2376"), "{w:?}");
    assert!(warnings(&vars, OLD, &args).is_empty());
    assert!(
        warnings(&[("FLAGS", "-p 0.0.0.0:2376:2376/tcp --detach-netns=false")], NEW, &args)
            .is_empty()
    );
}

#[test]
fn only_false_enables_the_loopback() {
    for value in ["", "true", "0", "no", "FALSE", "false "] {
        let line = flags(&machine(NEW), &[("DISABLE_HOST_LOOPBACK", value)]);
        assert!(line.contains(" --disable-host-loopback "), "{value:?}");
    }
    assert!(!flags(&machine(NEW), &[("DISABLE_HOST_LOOPBACK", "false")]).contains("loopback"));
    for (value, count) in [("0", 1), ("No", 1), ("FALSE", 1), ("false", 0), ("true", 0), ("1", 0)] {
        assert_eq!(
            warnings(&[("DISABLE_HOST_LOOPBACK", value)], NEW, &[]).len(),
            count,
            "{value:?}"
        );
    }
}

#[test]
fn a_sandbox_needs_an_attached_namespace() {
    let text = refusal(&[("SLIRP4NETNS_SANDBOX", "true")]);
    assert!(text.contains("cannot be sandboxed") && text.contains("DETACH_NETNS=false"), "{text}");
    let flags_win = [("SLIRP4NETNS_SANDBOX", "true"), ("FLAGS", "--slirp4netns-sandbox=false")];
    flags(&machine(NEW), &flags_win);
    let shown = plan(&machine(NEW), &[], &[]).unwrap().to_string();
    assert!(shown.contains("detach-netns=true slirp4netns-sandbox=false"), "{shown}");
}

#[test]
fn the_journal_gets_what_is_in_force() {
    let vars = [("FLAGS", "--mtu=1400 --detach-netns=false"), ("DISABLE_HOST_LOOPBACK", "false")];
    assert_eq!(
        plan(&machine(NEW), &vars, &[]).unwrap().to_string(),
        "starting dockerd 29.5.0 (/bin/dockerd): net=slirp4netns mtu=1400 port-driver=builtin \
         detach-netns=false slirp4netns-sandbox=auto host-loopback=true"
    );
}

#[test]
fn both_names_of_rootlesskit() {
    let none = Fake::default();
    let found = |host: &Fake| find_rootlesskit(host, None).unwrap();
    let both = Fake::default().with("rootlesskit", "").with("docker-rootlesskit", "");
    assert_eq!(found(&both), Path::new("/bin/docker-rootlesskit"));
    assert_eq!(found(&Fake::default().with("rootlesskit", "")), Path::new("/bin/rootlesskit"));
    let e = find_rootlesskit(&none, Some(Path::new("/opt"))).unwrap_err().to_string();
    assert!(e.contains("rootlesskit needs to be installed"), "{e}");
}

#[test]
fn dockerd_is_looked_for_before_anything_is_started() {
    let e = plan(&machine(NEW), &[("DOCKERD", "/nowhere/moby-engine --debug")], &[]).unwrap_err();
    assert!(e.to_string().contains("\"/nowhere/moby-engine\" not found"), "{e}");
    assert_eq!(e.report(), 127);
}

proptest! {
    #[test]
    fn no_environment_is_a_panic(
        name in prop::sample::select(vec!["NET", "MTU", "PORT_DRIVER", "SLIRP4NETNS_SANDBOX", "DETACH_NETNS", "HOST_LOOPBACK_ALLOW", "EGRESS_POLICY", "FLAGS", "STATE_DIR", "DOCKERD"]),
        value in any::<Vec<u8>>(),
    ) {
        use std::os::unix::ffi::OsStrExt;
        let mut env = env_of(&[("XDG_RUNTIME_DIR", "/run/user/1000")]);
        env.set(&format!("{PREFIX}{name}"), OsStr::from_bytes(&value));
        if let Ok(settings) = Settings::read(&env) {
            let _ = Plan::new(settings, &machine(NEW), Path::new("/bin/rootlesskit"), &[]);
        }
    }
}
