//! Listeners of published ports, and what an error of the kernel means to whoever wanted one.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use api::ValidSpec;
use nix::libc;
use relay::{Listener, Proto};

use crate::exit::go_words;
use crate::limit::sysctl;

/// Listens in the host's namespace where a spec says.
///
/// # Errors
/// What the kernel says, in the words of Go's `net` package, with a remedy.
pub(crate) fn bind(spec: &ValidSpec) -> anyhow::Result<Listener> {
    let proto: Proto = spec.proto.as_str().parse()?;
    relay::listen::bind(proto, spec.parent_ip, spec.parent_port).map_err(|e| explain_bind(spec, &e))
}

/// The text that Go's `net` package would give, which clients match, and what can be done.
fn explain_bind(spec: &ValidSpec, error: &io::Error) -> anyhow::Error {
    let port = spec.parent_port;
    let address = match spec.parent_ip {
        Some(ip) => SocketAddr::new(ip, port).to_string(),
        None => format!(":{port}"),
    };
    let proto = spec.proto.as_str();
    let step = if error.raw_os_error().is_some() { "bind: " } else { "" };
    let go = format!("listen {proto} {address}: {step}{}", go_words(error));
    let start = sysctl(Path::new("/"), "net.ipv4.ip_unprivileged_port_start");
    match start.filter(|_| error.raw_os_error() == Some(libc::EACCES)) {
        Some(start) if u64::from(port) < start => anyhow::anyhow!(privileged(port, start, &go)),
        _ => anyhow::anyhow!(go),
    }
}

fn privileged(port: u16, start: u64, cause: &str) -> String {
    format!(
        "cannot expose privileged port {port}, you can add 'net.ipv4.ip_unprivileged_port_start={port}' to /etc/sysctl.conf (currently {start}), or set CAP_NET_BIND_SERVICE on rootlesskit binary, or choose a larger port number (>= {start}): {cause}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::PortSpec;

    fn valid(text: &str) -> ValidSpec {
        text.parse::<PortSpec>().unwrap().validate().unwrap()
    }

    #[test]
    fn errors_are_gos_with_a_remedy() {
        let in_use = io::Error::from_raw_os_error(libc::EADDRINUSE);
        let text = explain_bind(&valid("0.0.0.0:8080:80/tcp4"), &in_use).to_string();
        assert_eq!(text, "listen tcp4 0.0.0.0:8080: bind: address already in use");
        let text = explain_bind(&valid("[::1]:53:53/udp"), &in_use).to_string();
        assert_eq!(text, "listen udp [::1]:53: bind: address already in use");
        let text = privileged(80, 1024, "x");
        assert!(
            text.contains("cannot expose privileged port 80")
                && text.contains("ip_unprivileged_port_start=80")
        );
    }
}
