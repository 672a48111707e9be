//! What `--help` prints in front of dockerd's help: the variables that the launcher reads.

use std::io::Write as _;

const TEXT: &str = "\
Usage: dockerd-rootless.sh [DOCKERD OPTIONS]

Starts dockerd as the current user, in namespaces that rootlesskit creates. This program has no options of its own:
it passes all options to dockerd, whose help follows below. These environment variables change how it starts dockerd.
In a systemd unit, set them with `systemctl --user edit docker.service`.

  DOCKERD_ROOTLESS_ROOTLESSKIT_NET
      Network driver: gateway, slirp4netns, pasta, vpnkit, lxc-user-nic, gvisor-tap-vsock or none.
      Default: gateway if it works on this host, otherwise the first of slirp4netns, pasta and vpnkit
      that is installed
  DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER
      Port driver: gateway, builtin, slirp4netns, implicit, pesto, gvisor-tap-vsock or none.
      Default: gateway for the network driver gateway, implicit for pasta, builtin for others
  DOCKERD_ROOTLESS_ROOTLESSKIT_MTU
      MTU in bytes. Default: depends on the network driver
  DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK
      If the value is false, containers can reach 127.0.0.1 on the host. Default: true
  DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW
      PROTOCOL:PORT[-PORT][,...]: ports of 127.0.0.1 on the host that containers can reach, such as
      tcp:5432,tcp:8000-8010,udp:53. This needs the network driver gateway. Default: unset
  DOCKERD_ROOTLESS_ROOTLESSKIT_EGRESS_POLICY
      File with rules that restrict which destinations containers can reach, in addition to
      /etc/docker-rootless/egress.toml. If the value is empty, no such file is used. This needs the network
      driver gateway or gvisor-tap-vsock. Default:
      $XDG_CONFIG_HOME/docker-rootless/egress.toml (~/.config/docker-rootless/egress.toml) if it exists
  DOCKERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS
      Detach the network namespace: auto, true or false. Default: auto, which means true for
      dockerd 29.5 and later
  DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX, DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SECCOMP
      Run slirp4netns in a sandbox, and with a seccomp filter: auto, true or false. Default: auto
  DOCKERD_ROOTLESS_ROOTLESSKIT_STATE_DIR
      State directory of rootlesskit. Default: $XDG_RUNTIME_DIR/dockerd-rootless
  DOCKERD_ROOTLESS_SWARM
      ADDRESS,peers=NETWORK[+NETWORK...][,data-path-port=PORT]: prepare the daemon to be a node of a
      Docker swarm. ADDRESS is the address at which the other nodes reach this host. Each NETWORK is an
      address or a network of other nodes. Default: unset
  DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS
      More options for rootlesskit, quoted as in a shell. See `rootlesskit --help`
  DOCKERD
      The daemon to start, with optional arguments. Default: dockerd
  XDG_RUNTIME_DIR, HOME, PATH
      Required

Documentation: man dockerd-rootless, /usr/share/doc/docker*-rootless-extras,
               https://docs.docker.com/go/rootless/

";

/// Prints it. dockerd's help follows, so a reader that has gone away is no error.
pub(crate) fn print() {
    let mut out = std::io::stdout();
    let _ = out.write_all(TEXT.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use drivers::{NetworkDriver, PortDriver};
    use hostenv::vars;

    use super::TEXT;

    #[test]
    fn every_variable_and_every_driver_is_in_the_text() {
        for name in [
            vars::DOCKERD_ROOTLESS_STATE_DIR,
            vars::DOCKERD_ROOTLESS_NET,
            vars::DOCKERD_ROOTLESS_MTU,
            vars::DOCKERD_ROOTLESS_PORT_DRIVER,
            vars::DOCKERD_ROOTLESS_SLIRP4NETNS_SANDBOX,
            vars::DOCKERD_ROOTLESS_SLIRP4NETNS_SECCOMP,
            vars::DOCKERD_ROOTLESS_DISABLE_HOST_LOOPBACK,
            vars::DOCKERD_ROOTLESS_HOST_LOOPBACK_ALLOW,
            vars::DOCKERD_ROOTLESS_EGRESS_POLICY,
            vars::DOCKERD_ROOTLESS_DETACH_NETNS,
            vars::DOCKERD_ROOTLESS_SWARM,
            vars::DOCKERD_ROOTLESS_FLAGS,
        ] {
            assert!(TEXT.contains(name), "{name}");
        }
        let networks = NetworkDriver::ALL.into_iter().filter(|driver| driver.isolates());
        let ports = PortDriver::ALL.into_iter().map(|driver| driver.name());
        for name in networks.map(|driver| driver.name()).chain(ports) {
            assert!(TEXT.contains(name), "{name}");
        }
    }
}
