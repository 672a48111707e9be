//! What `--add-host=host.docker.internal:host-gateway` means to containers.
//!
//! dockerd takes the address of its default bridge, which in rootless mode is in the network namespace and not on the host:
//! nothing that the user runs on the host listens there. Where the namespace may reach the host's loopback, or some ports of
//! it, the address of its default gateway leads there, so dockerd is told that one, unless the user has chosen.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::config::Config;
use crate::report::Note;

/// The option of dockerd (20.10 and later; several times since 28.0), and its names in the configuration file.
const FLAG: &str = "host-gateway-ip";
const KEYS: [&str; 2] = ["host-gateway-ip", "host-gateway-ips"];

/// Options for dockerd: `families` is what it may be told, 1 for IPv4 only, 2 for IPv6 as well. `netns` is the file of a
/// detached namespace.
///
/// # Errors
/// A warning if the routes of the namespace cannot be read.
pub(crate) fn options(
    families: Option<u8>,
    netns: Option<&Path>,
    config: &Config<'_>,
) -> Result<Vec<OsString>, Note> {
    let Some(families) = families.filter(|_| !config.sets(FLAG, &KEYS)) else {
        return Ok(Vec::new());
    };
    let routes = std::thread::scope(|scope| {
        // Into another namespace and not back: see [`crate::forwarding`].
        let read = || -> std::io::Result<[String; 2]> {
            if let Some(netns) = netns {
                setns(File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
            }
            let v6 = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
            Ok([fs::read_to_string("/proc/thread-self/net/route")?, v6])
        };
        scope.spawn(read).join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")))
    });
    let [v4, v6] = routes.map_err(|e| {
        Note::warn(format!(
            "host-gateway will be the address of Docker's bridge, because the network namespace's routes cannot be read: \
             {e}. hint: set --{FLAG}"
        ))
    })?;
    let v6 = gateway_v6(&v6).filter(|_| families > 1).map(IpAddr::from);
    let all = gateway_v4(&v4).map(IpAddr::from).into_iter().chain(v6);
    Ok(all.map(|ip| format!("--{FLAG}={ip}").into()).collect())
}

/// The default gateway in `/proc/net/route`: destination, gateway and mask are numbers in the byte order of the machine.
fn gateway_v4(text: &str) -> Option<Ipv4Addr> {
    text.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(words.get(at)?, 16).ok();
        let default = number(1)? == 0 && number(7)? == 0;
        let gateway = Ipv4Addr::from(number(2)?.to_ne_bytes());
        (default && !gateway.is_unspecified()).then_some(gateway)
    })
}

/// The default gateway in `/proc/net/ipv6_route`: destination, its prefix length, source, its length, next hop.
fn gateway_v6(text: &str) -> Option<Ipv6Addr> {
    text.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let default = words.get(1) == Some(&"00");
        let gateway = Ipv6Addr::from(u128::from_str_radix(words.get(4)?, 16).ok()?);
        (default && !gateway.is_unspecified()).then_some(gateway)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostenv::Env;
    use proptest::prelude::*;

    const V4: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                      tap0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                      tap0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
    const V6: &str = "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 \
                      00000000000000000000000000000000 00000100 00000001 00000000 00000001 tap0\n\
                      00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                      fd000000000000000000000000000002 00000400 00000001 00000000 00000003 tap0\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_default_gateway_is_found_among_the_routes() {
        assert_eq!(gateway_v4(V4), Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(gateway_v6(V6).unwrap().to_string(), "fd00::2");
        assert_eq!((gateway_v4(""), gateway_v6("")), (None, None));
    }

    #[test]
    fn a_choice_of_the_user_stays() {
        let given = [OsString::from("--host-gateway-ip=192.0.2.1")];
        let args: [&[OsString]; 1] = [&given];
        let env = Env::default();
        let config = Config::read(&env, &args);
        assert_eq!(options(Some(2), None, &config), Ok(Vec::new()));
        let config = Config::read(&env, &[]);
        assert_eq!(options(None, None, &config), Ok(Vec::new()), "not allowed");
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "[0-9a-f \t\nX]{0,200}") {
            let _ = (gateway_v4(&text), gateway_v6(&text));
        }
    }
}
