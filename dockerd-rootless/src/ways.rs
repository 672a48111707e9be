//! What the host's routes say about the network of the namespace.
//!
//! A host with a way out over IPv6 only needs `--ipv6`: without it the namespace has IPv4 addresses, and everything that it
//! sends ends with "network is unreachable". A host that has both gets what Docker's own launcher gives it, IPv4: the
//! addresses of libslirp's name server over IPv6 answer only where the host's own name server has one.
//!
//! A network of the host that shares addresses with ours is told and nothing else. Another `--cidr` would change 10.0.2.2,
//! the address of the host, which documentation, containers and firewalls rely on, while most such hosts are virtual machines of
//! VirtualBox or QEMU, which have nothing of interest in that network.

use std::ffi::OsString;

use drivers::{Cidr, NetworkDriver};
use hostenv::routes::Routes;
use hostenv::vars;

use crate::report::Note;
use crate::{extra, removal};

/// The least MTU of a link with IPv6 in bytes (RFC 8200).
const IPV6_MTU: u32 = 1280;

/// Whether to add `--ipv6`; `flags` are the user's, which win. `named` says that the user named `net` in a variable. `mtu`
/// is in bytes, 0 is the default of rootlesskit.
pub(crate) fn wants_ipv6(
    routes: &Routes,
    net: NetworkDriver,
    named: bool,
    mtu: u32,
    flags: &[OsString],
    notes: &mut Vec<Note>,
) -> bool {
    if !routes.only_v6() || extra::last_bool(flags, "ipv6").is_some() {
        return false;
    }
    let in_flags = extra::last(flags, "net");
    let able = match &in_flags {
        Some(name) => NetworkDriver::from_name(name).is_some_and(NetworkDriver::has_ipv6),
        None => net.has_ipv6(),
    };
    if !able {
        let hint = if in_flags.is_some() {
            removal::flag("net")
        } else if named {
            removal::variable(vars::DOCKERD_ROOTLESS_NET)
        } else {
            "install slirp4netns (0.4.0 or later) or pasta (2023_06_25 or later), which support it"
                .to_owned()
        };
        let shown = in_flags.unwrap_or_else(|| net.to_string());
        notes.push(Note::warn(format!(
            "this host has only IPv6 outbound connectivity, which the network driver {shown} does not support. hint: {hint}"
        )));
        return false;
    }
    let mtu_in_force = extra::last(flags, "mtu").and_then(|text| text.parse().ok()).unwrap_or(mtu);
    if (1..IPV6_MTU).contains(&mtu_in_force) {
        notes.push(Note::warn(format!(
            "this host has only IPv6 outbound connectivity, which needs an MTU of at least {IPV6_MTU}, but the MTU is {mtu_in_force}"
        )));
        return false;
    }
    notes.push(Note::info("adding --ipv6, because this host has only IPv6 outbound connectivity"));
    true
}

/// Tells of a network of the host that the namespace cannot reach because it has the same addresses.
pub(crate) fn note_overlap(
    routes: &Routes,
    net: NetworkDriver,
    flags: &[OsString],
    notes: &mut Vec<Note>,
) {
    if !net.has_cidr() {
        return;
    }
    let chosen = extra::last(flags, "cidr").and_then(|text| text.parse::<Cidr>().ok());
    let ours = chosen.unwrap_or(Cidr::DEFAULT);
    let shortest = Cidr::SHORTEST_WARNED;
    let Some(theirs) =
        ours.overlapping(&routes.v4).filter(|theirs| theirs.prefix_len() >= shortest)
    else {
        return;
    };
    let hint = Cidr::beside(&routes.v4).map(|free| {
        format!(
            ". hint: add --cidr={free} to {}; containers then reach the host at {}",
            vars::DOCKERD_ROOTLESS_FLAGS,
            free.gateway(net)
        )
    });
    notes.push(Note::warn(format!(
        "containers cannot reach this host's network {theirs}, because it overlaps their network {ours}{}",
        hint.unwrap_or_default()
    )));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(v4_default: bool, v6_default: bool, v4: &[&str]) -> Routes {
        let v4 = v4.iter().map(|text| text.parse().unwrap()).collect();
        Routes { v4_default, v6_default, v4 }
    }

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn wants(routes: &Routes, net: NetworkDriver, mtu: u32, flags: &str) -> (bool, Vec<Note>) {
        let mut notes = Vec::new();
        (wants_ipv6(routes, net, true, mtu, &words(flags), &mut notes), notes)
    }

    #[test]
    fn a_host_with_ipv6_only_gets_the_flag_once() {
        let only = routes(false, true, &[]);
        for net in [NetworkDriver::Gateway, NetworkDriver::Slirp4netns, NetworkDriver::Pasta] {
            let (wanted, notes) = wants(&only, net, net.default_mtu(), "");
            assert!(wanted && notes.len() == 1, "{net} {notes:?}");
        }
        for flags in ["--ipv6", "--ipv6=false", "--debug -ipv6=true"] {
            assert_eq!(
                wants(&only, NetworkDriver::Gateway, 1500, flags),
                (false, Vec::new()),
                "{flags}"
            );
        }
        for other in [routes(true, true, &[]), routes(true, false, &[]), routes(false, false, &[])]
        {
            assert_eq!(
                wants(&other, NetworkDriver::Gateway, 1500, ""),
                (false, Vec::new()),
                "{other:?}"
            );
        }
    }

    #[test]
    fn what_stands_against_it_is_said() {
        let only = routes(false, true, &[]);
        for (net, mtu, flags, part) in [
            (NetworkDriver::Vpnkit, 1500, "", "network driver vpnkit does not support"),
            (NetworkDriver::LxcUserNic, 1500, "", "lxc-user-nic"),
            (NetworkDriver::Vpnkit, 1500, "", "hint: remove DOCKERD_ROOTLESS_ROOTLESSKIT_NET"),
            (
                NetworkDriver::Gateway,
                1500,
                "--net=none",
                "driver none does not support. hint: remove --net from DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS",
            ),
            (NetworkDriver::Gateway, 1200, "", "MTU of at least 1280, but the MTU is 1200"),
            (NetworkDriver::Gateway, 1500, "--mtu=576", "the MTU is 576"),
        ] {
            let (wanted, notes) = wants(&only, net, mtu, flags);
            assert!(!wanted && notes.len() == 1 && notes[0].text.contains(part), "{notes:?}");
        }
        assert!(wants(&only, NetworkDriver::Slirp4netns, 0, "").0, "0 is the default");
        assert!(wants(&only, NetworkDriver::Vpnkit, 1500, "--net=pasta").0, "flags win");
        let mut notes = Vec::new();
        assert!(!wants_ipv6(&only, NetworkDriver::Vpnkit, false, 1500, &[], &mut notes));
        assert!(notes[0].text.contains("hint: install slirp4netns"), "nothing is set: {notes:?}");
    }

    #[test]
    fn a_network_with_the_same_addresses_is_told() {
        let told = |net: NetworkDriver, networks: &[&str], flags: &str| {
            let mut notes = Vec::new();
            note_overlap(&routes(true, false, networks), net, &words(flags), &mut notes);
            notes.into_iter().map(|note| note.text).collect::<String>()
        };
        let text = told(NetworkDriver::Gateway, &["10.0.2.0/24"], "");
        assert!(
            text.contains(
                "this host's network 10.0.2.0/24, because it overlaps their network 10.0.2.0/24"
            ),
            "{text}"
        );
        assert!(text.contains("--cidr=10.41.0.0/24") && text.contains("10.41.0.2"), "{text}");
        let text = told(NetworkDriver::GvisorTapVsock, &["10.0.2.0/24"], "");
        assert!(text.ends_with("reach the host at 10.41.0.1"), "{text}");
        assert_eq!(told(NetworkDriver::Gateway, &["10.0.2.0/24"], "--cidr=10.41.0.0/24"), "");
        assert!(
            told(NetworkDriver::Pasta, &["10.41.0.0/16"], "--cidr=10.41.0.0/24")
                .contains("10.42.0.0/24")
        );
        assert_eq!(told(NetworkDriver::Gateway, &["10.0.0.0/8", "10.0.3.0/24"], ""), "");
        assert_eq!(told(NetworkDriver::LxcUserNic, &["10.0.2.0/24"], ""), "");
        assert_eq!(told(NetworkDriver::Gateway, &["10.0.0.0/15"], ""), "", "left to `check`");
        assert_ne!(told(NetworkDriver::Gateway, &["10.0.0.0/16"], ""), "");
    }
}
