//! What RootlessKit 3.1 and 3.2 added for clients to ask for and to read: the backend that keeps source addresses,
//! `portDriver.extra` and `networkDriver.ipv6`.

use serde_json::Value;
use tests::{As, Result, Suite, TestBox, ensure};

use crate::kit::{Api, ready, stop};

const STATE: &str = "/run/user/1001/s";

/// With each word for `--source-ip-transparent-backend`: what the API says, and whose address a server sees.
#[test]
fn the_backend_of_source_addresses_is_chosen_and_told() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let api = Api { b: &b, dir: STATE };
    for (flags, backend) in [
        ("", "nft"),
        ("--source-ip-transparent-backend=auto", "nft"),
        ("--source-ip-transparent-backend=nft", "nft"),
        ("--source-ip-transparent-backend=iptables", "iptables"),
        ("--source-ip-transparent-backend=iptables --detach-netns", "iptables"),
        ("--source-ip-transparent=false", "none"),
        ("--source-ip-transparent=false --source-ip-transparent-backend=nft", "none"),
    ] {
        let enter =
            if flags.contains("detach") { "nsenter -n$ROOTLESSKIT_STATE_DIR/netns" } else { "" };
        let kit = ready(b.user(&format!(
            "exec rootlesskit --state-dir={STATE} --net=slirp4netns --port-driver=builtin {flags} -p 0.0.0.0:8080:80/tcp \
             sh -c 'exec {enter} fixture http [::]:80 page'"
        )))?;
        let info = api.info()?;
        assert_eq!(info["portDriver"]["extra"]["sourceIPTransparentBackend"], backend, "{flags}");
        let client = if backend == "none" { "127.0.0.1" } else { "10.77.0.2" };
        let page = b.argv(As::Peer, &["fixture", "get", "10.77.0.1:8080"]).ok()?;
        assert_eq!(page, format!("page from {client}\n"), "{flags}");
        stop(kit)?;
    }
    // A program that is not there is named, and clients are still served.
    b.root("for p in iptables ip6tables; do mv /usr/sbin/$p /usr/sbin/$p.away; done").ok()?;
    let kit = ready(b.user(&format!(
        "exec rootlesskit --state-dir={STATE} --net=slirp4netns --port-driver=builtin --source-ip-transparent-backend=iptables \
         -p 0.0.0.0:8080:80/tcp fixture http [::]:80 page"
    )))?;
    assert_eq!(api.info()?["portDriver"]["extra"]["sourceIPTransparentBackend"], "none");
    ensure!(kit.printed()?.contains("iptables"), "no warning: {}", kit.printed()?);
    ensure!(
        b.argv(As::Peer, &["fixture", "get", "10.77.0.1:8080"]).ok()?.starts_with("page from ")
    );
    stop(kit)?;
    let text = b.user("rootlesskit --net=none --port-driver=builtin --source-ip-transparent-backend=ebtables true").fails_with(1)?;
    ensure!(text.contains("ebtables") && text.contains("auto, nft or iptables"), "{text}");
    b.assert_clean(&[])
}

/// A client that gives its containers addresses of both families asks for `networkDriver.ipv6`, which is there only if
/// true, as it was before. Other port drivers have nothing to add.
#[test]
fn networks_say_whether_they_carry_ipv6() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let api = Api { b: &b, dir: STATE };
    for (flags, ipv6) in [
        ("--net=slirp4netns --port-driver=slirp4netns", false),
        ("--net=slirp4netns --port-driver=slirp4netns --ipv6", true),
        ("--net=pasta --port-driver=implicit", false),
        ("--net=pasta --port-driver=pesto --ipv6", true),
        ("--net=gateway --port-driver=gateway", false),
        ("--net=gateway --port-driver=gateway --ipv6", true),
        ("--net=gvisor-tap-vsock --port-driver=gvisor-tap-vsock", false),
        ("--net=none", false),
        ("--net=host", false),
    ] {
        let kit = ready(b.user(&format!(
            "exec rootlesskit --state-dir={STATE} {flags} sh -c 'echo ready; exec sleep infinity'"
        )))?;
        let info = api.info()?;
        let six = if ipv6 { Value::Bool(true) } else { Value::Null };
        assert_eq!(info["networkDriver"]["ipv6"], six, "{flags}");
        assert_eq!(info["portDriver"]["extra"], Value::Null, "{flags}");
        stop(kit)?;
    }
    b.assert_clean(&[])
}
