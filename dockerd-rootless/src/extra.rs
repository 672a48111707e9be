//! What the arguments of two other programs say about things that concern the launcher.
//!
//! `DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS` goes to rootlesskit after the launcher's own flags, and there the
//! last one wins; the launcher's arguments go to dockerd. Both are handed on untouched. They are read here
//! only to decide and to warn with the values that will be in force.

use std::ffi::OsString;
use std::net::IpAddr;

pub(crate) use hostenv::flags::{all, last, last_bool};

/// A TCP port that rootlesskit is told to publish and that dockerd is told to listen on. With a detached
/// network namespace dockerd listens on the host itself, so the second of the two fails to bind.
pub(crate) fn published_and_listened(flags: &[OsString], dockerd: &[OsString]) -> Option<u16> {
    let specs = [all(flags, "publish"), all(flags, "p")].concat();
    let published: Vec<u16> =
        specs.iter().flat_map(|s| s.split(',')).filter_map(parent_port).collect();
    listened(dockerd).into_iter().find(|port| published.contains(port))
}

/// The port on the host in `PARENTIP:PARENTPORT:[CHILDIP:]CHILDPORT/tcp`, with IPv6 in brackets.
fn parent_port(spec: &str) -> Option<u16> {
    let (addresses, proto) = spec.trim().rsplit_once('/')?;
    if !proto.starts_with("tcp") {
        return None;
    }
    let rest = match addresses.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once("]:")?.1,
        None => addresses.split_once(':')?.1,
    };
    rest.split(':').next()?.parse().ok()
}

/// The ports of dockerd's `-H tcp://…` options: `-H v`, `-Hv`, `-H=v`, `--host v`, `--host=v`.
fn listened(args: &[OsString]) -> Vec<u16> {
    let lossy: Vec<_> = args.iter().map(|a| a.to_string_lossy()).collect();
    // dockerd's default follows the use of TLS: https://docs.docker.com/reference/cli/dockerd/
    let default = if lossy.iter().any(|a| a.starts_with("--tls")) { 2376 } else { 2375 };
    let mut hosts = all(args, "host");
    hosts.extend(all(args, "H"));
    hosts.extend(lossy.iter().filter_map(|a| a.strip_prefix("-H").map(str::to_owned)));
    let addresses = hosts.iter().filter_map(|h| h.strip_prefix("tcp://"));
    addresses.map(|a| port_of(a.trim_end_matches('/')).unwrap_or(default)).collect()
}

fn port_of(address: &str) -> Option<u16> {
    if address.parse::<IpAddr>().is_ok() {
        return None;
    }
    address.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(s: &str) -> Vec<OsString> {
        s.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_port_on_the_host() {
        assert_eq!(parent_port("0.0.0.0:2376:2377/tcp"), Some(2376));
        assert_eq!(parent_port(":2376:2377/tcp4"), Some(2376));
        assert_eq!(parent_port("127.0.0.1:2376:10.0.2.100:80/tcp"), Some(2376));
        assert_eq!(parent_port("[::1]:2376:[::1]:80/tcp6"), Some(2376));
        for bad in
            ["0.0.0.0:2376:2376/udp", "8080", "8080:80/tcp/", "[::1]2376:80/tcp", ":99999:80/tcp"]
        {
            assert_eq!(parent_port(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_port_cannot_be_published_and_listened_on() {
        let flags = words("-p 127.0.0.1:80:80/tcp,0.0.0.0:2376:2376/tcp --debug");
        for host in [
            "-H tcp://0.0.0.0:2376",
            "-Htcp://[::]:2376",
            "-H=tcp://:2376",
            "--tlsverify --host=tcp://",
        ] {
            assert_eq!(published_and_listened(&flags, &words(host)), Some(2376), "{host}");
        }
        for host in [
            "",
            "-H unix:///x:2376",
            "-H tcp://0.0.0.0:2375",
            "--host tcp://0.0.0.0",
            "-H tcp://::1",
        ] {
            assert_eq!(published_and_listened(&flags, &words(host)), None, "{host}");
        }
        assert_eq!(
            published_and_listened(&words("--publish=:1:1/udp"), &words("-H tcp://:1")),
            None
        );
    }

    proptest! {
        #[test]
        fn no_argument_is_a_panic(flags in "[-p=:/,\\[\\] 0-9a-z.]{0,60}", args in "[-H=:/\\[\\] 0-9a-z.]{0,60}") {
            let _ = published_and_listened(&words(&flags), &words(&args));
        }
    }
}
