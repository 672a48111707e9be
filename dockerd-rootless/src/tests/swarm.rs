//! A node of a swarm: settings and plan together.

use std::fs;

use super::*;

const VALUE: &str = "192.0.2.10,peers=192.0.2.0/24";

/// The flags of a node on a host with this root directory, as one line.
fn node(
    dockerd: &'static str,
    value: &str,
    vars: &[(&str, &str)],
    root: &Path,
) -> Result<String, Failure> {
    let vars = [&[("SWARM", value)], vars].concat();
    let plan = plan(&with_gateway(dockerd), &vars, &[])?.on(&Routes::default());
    let plan = plan.with_directory(root, &env_of(&[("HOME", "/nonexistent")]), &[])?;
    let args = plan.arguments(Path::new("/T"), &[]);
    Ok(args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" "))
}

#[test]
fn a_node_publishes_its_ports_for_the_others_only() {
    let root = tempfile::tempdir().unwrap();
    let line = node(OLD, VALUE, &[], root.path()).unwrap();
    let publish = |port| format!("--publish=192.0.2.10:{port}@192.0.2.10/32+192.0.2.0/24");
    let mut all = ["2377:2377/tcp", "7946:7946/tcp", "7946:7946/udp", "4789:4789/udp"].map(publish);
    all[3] = "--publish=192.0.2.10:4789:4789/udp@192.0.2.0/24".to_owned();
    let end = format!("--propagation=rslave --copy-up=/var/lib {} /T", all.join(" "));
    assert!(line.ends_with(&end), "{line}");
    fs::create_dir_all(root.path().join("var/lib/docker")).unwrap();
    let line = node(OLD, VALUE, &[], root.path()).unwrap();
    assert!(!line.contains("/var/lib") && line.contains(&all[3]), "{line}");
    // dockerd itself listens on the host then.
    let line = node(NEW, VALUE, &[], root.path()).unwrap();
    assert!(line.ends_with(&format!("--detach-netns {} /T", all[3])), "{line}");
    // What the user adds comes last, and wins.
    let line = node(NEW, VALUE, &[("FLAGS", "--detach-netns=false --debug")], root.path()).unwrap();
    assert!(
        line.ends_with(&format!("{} --detach-netns=false --debug /T", all.join(" "))),
        "{line}"
    );
}

#[test]
fn an_address_of_ipv6_needs_a_namespace_with_ipv6() {
    let root = tempfile::tempdir().unwrap();
    let line = node(NEW, "fd00::1,peers=fd00::/64", &[], root.path()).unwrap();
    assert!(
        line.contains(" --ipv6 ") && line.contains("--publish=[fd00::1]:4789:4789/udp6@"),
        "{line}"
    );
    assert!(!node(NEW, VALUE, &[], root.path()).unwrap().contains("--ipv6"));
}

#[test]
fn a_node_needs_the_gateway_and_its_peers() {
    let root = tempfile::tempdir().unwrap();
    let remove =
        |name| format!("\nhint: remove {PREFIX}{name} from the daemon's settings, so that");
    let flag = |name| format!("\nhint: remove --{name} from {PREFIX}FLAGS, so that");
    for (vars, part, hint) in [
        (&[("PORT_DRIVER", "builtin")][..], "the port driver builtin", remove("PORT_DRIVER")),
        (&[("NET", "slirp4netns")], "the network driver slirp4netns", remove("NET")),
        (&[("FLAGS", "--port-driver=builtin")], "the port driver builtin", flag("port-driver")),
        (&[("FLAGS", "--net=pasta")], "the network driver pasta", flag("net")),
        // The variable is not in force.
        (
            &[("FLAGS", "--net=gateway"), ("NET", "pasta"), ("PORT_DRIVER", "builtin")],
            "the port driver builtin",
            remove("PORT_DRIVER"),
        ),
    ] {
        let error = node(NEW, VALUE, vars, root.path()).unwrap_err().to_string();
        let value = format!("DOCKERD_ROOTLESS_SWARM is \"{VALUE}\", but");
        assert!(error.contains(&value) && error.contains(part) && error.contains(&hint), "{error}");
    }
    let error = node(NEW, "192.0.2.10", &[], root.path()).unwrap_err().to_string();
    let part = "DOCKERD_ROOTLESS_SWARM is \"192.0.2.10\": it has no peers=";
    assert!(error.contains(part) && error.contains("\nhint: "), "{error}");
}

#[test]
fn the_journal_names_the_node() {
    let shown = plan(&with_gateway(NEW), &[("SWARM", VALUE)], &[]).unwrap().to_string();
    assert!(shown.ends_with(" swarm=192.0.2.10,peers=192.0.2.0/24"), "{shown}");
    assert!(!plan(&with_gateway(NEW), &[], &[]).unwrap().to_string().contains("swarm"));
}
