//! Why the gateway namespace cannot be built, in words for who has to change it.

use std::fmt::Display;

use nix::errno::Errno;

const OTHERWISE: &str = "use --net=pasta or --net=slirp4netns";

/// The error that the gateway's namespace cannot be treated so (`configure`), why, and what helps; an empty `remedy`
/// stands for nothing that is known.
pub(super) fn cannot(doing: &str, error: &dyn Display, remedy: &str) -> anyhow::Error {
    failed(&format!("failed to {doing} the gateway's network namespace"), error, remedy)
}

/// The same in words of the caller.
pub(super) fn failed(what: &str, error: &dyn Display, remedy: &str) -> anyhow::Error {
    let separator = if remedy.is_empty() { "" } else { ", or " };
    anyhow::anyhow!("{what}: {error}\nhint: {remedy}{separator}{OTHERWISE}")
}

pub(super) fn no_namespace(error: Errno) -> anyhow::Error {
    let (why, remedy) = match error {
        // EUSERS came from the limit of nesting before Linux 4.9.
        Errno::ENOSPC | Errno::EUSERS => (
            "the maximum number of network namespaces is reached",
            "raise the limit: sudo sysctl -w user.max_net_namespaces=28633",
        ),
        Errno::EINVAL => ("the kernel was built without network namespaces (CONFIG_NET_NS)", ""),
        Errno::EPERM => (
            "CAP_SYS_ADMIN is missing in the user namespace",
            "check that no AppArmor profile or seccomp filter removes it",
        ),
        _ => ("unshare(CLONE_NEWNET) failed", ""),
    };
    cannot("create", &format!("{why}: {}", std::io::Error::from(error)), remedy)
}

pub(super) fn no_veth(error: &netlink::Error) -> anyhow::Error {
    let remedy = match errno(error) {
        Errno::EOPNOTSUPP => "load the kernel module veth: sudo modprobe veth",
        Errno::EEXIST => "remove the network interface of that name from the child",
        _ => "",
    };
    failed("failed to connect the gateway's network namespace to the child's", error, remedy)
}

pub(super) fn no_tun(device: &str, name: &str, error: &std::io::Error) -> anyhow::Error {
    let what = format!("failed to create the tun device {name} with {device}");
    let remedy = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
            "load the kernel module tun: sudo modprobe tun".to_owned()
        }
        Some(Errno::EACCES) => {
            format!("make the device writable for your user: sudo chmod 0666 {device}")
        }
        // The device cgroup of a container says this.
        Some(Errno::EPERM) => format!("start this container with access to {device}"),
        _ => return failed(&what, error, ""),
    };
    // The other drivers need the device as well.
    anyhow::anyhow!("{what}: {error}\nhint: {remedy}")
}

pub(super) fn no_routing(error: &netlink::Error) -> anyhow::Error {
    let remedy = match errno(error) {
        Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT => {
            "use a kernel with policy routing (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES)"
        }
        _ => "",
    };
    cannot("set up routing in", error, remedy)
}

pub(super) fn no_rules(error: &netlink::Error) -> anyhow::Error {
    let remedy = match errno(error) {
        // The kernel says ENOENT for an expression that is not there, and the others for all of nftables.
        Errno::ENOENT
        | Errno::EOPNOTSUPP
        | Errno::EPROTONOSUPPORT
        | Errno::EAFNOSUPPORT
        | Errno::EINVAL => {
            "load the kernel modules nf_tables and nft_tproxy: sudo modprobe -a nf_tables nft_tproxy"
        }
        _ => "",
    };
    cannot("set up packet rules in", error, remedy)
}

fn errno(error: &netlink::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_namespaces_is_told_with_its_remedy() {
        assert_eq!(
            no_namespace(Errno::ENOSPC).to_string(),
            "failed to create the gateway's network namespace: the maximum number of network namespaces is reached: \
             No space left on device (os error 28)\n\
             hint: raise the limit: sudo sysctl -w user.max_net_namespaces=28633, or use --net=pasta or --net=slirp4netns"
        );
    }

    #[test]
    fn a_reason_without_remedy_still_has_an_alternative() {
        let text = no_namespace(Errno::ENOMEM).to_string();
        assert!(text.ends_with("\nhint: use --net=pasta or --net=slirp4netns"), "{text}");
    }

    #[test]
    fn each_fault_of_the_tun_device_has_its_own_remedy() {
        let text = |errno: Errno| no_tun("/dev/net/tun", "dial", &errno.into()).to_string();
        assert!(
            text(Errno::ENOENT).ends_with("hint: load the kernel module tun: sudo modprobe tun")
        );
        assert!(text(Errno::EACCES).contains("sudo chmod 0666 /dev/net/tun"));
        assert!(text(Errno::EPERM).contains("start this container with access to /dev/net/tun"));
        assert!(text(Errno::EBUSY).contains("\nhint: use --net=pasta"));
    }
}
