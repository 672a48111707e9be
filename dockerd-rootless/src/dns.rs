//! The name server of containers when dockerd's network namespace is detached and the network is the gateway.
//!
//! dockerd stays on the host's network then and gives the name servers in the host's `/etc/resolv.conf` to the
//! containers, who reach them through the gateway. Servers on the host's loopback are of no use on the default bridge:
//! dockerd replaces them by public ones, except for those of systemd-resolved, whose own servers it knows where to find.
//! The gateway has a name server that asks those of the host as they are; rootlesskit writes its address to
//! `resolv.conf` in the state directory, and where dockerd would be at a loss it is told with `--dns`.
//!
//! Not in general, because `--dns` is also for containers on the host's network (`--net=host`), from where the gateway
//! cannot be reached: for their sake the servers of the host come first. In other containers these are addresses of their
//! own loopback, where nobody listens, which costs no time. And not if the user chose servers: dockerd accepts an option
//! on the command line or in its configuration file, not in both.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use drivers::NetworkDriver;
use hostenv::Env;
use hostenv::vars;

use crate::config::Config;
use crate::report::Note;

/// The only server of a host with systemd-resolved, and where dockerd looks for more then.
pub(crate) const RESOLVED: (Ipv4Addr, &str) =
    (Ipv4Addr::new(127, 0, 0, 53), "run/systemd/resolve/resolv.conf");

/// A resolver asks three servers at most (resolv.conf(5)), and the gateway is one of them.
const MAX_OF_HOST: usize = 2;

/// Options for dockerd, if it needs some; files of the host are looked up below `root`.
///
/// # Errors
/// A warning if the server's address cannot be told.
pub(crate) fn options(
    env: &Env,
    root: &Path,
    state_dir: &Path,
    config: &Config<'_>,
) -> Result<Vec<OsString>, Note> {
    let gateway = env
        .get(vars::DOCKERD_ROOTLESS_NET_IN_FORCE)
        .is_some_and(|net| net == NetworkDriver::Gateway.name());
    if !gateway || config.sets("dns", &["dns"]) {
        return Ok(Vec::new());
    }
    let Some(of_host) = out_of_reach(root) else { return Ok(Vec::new()) };
    let file = state_dir.join("resolv.conf");
    let unknown = |why: String| {
        Note::warn(format!(
            "containers may be unable to resolve names: the host's name server listens only on loopback, and the \
             address of the gateway's name server is unknown: {why}. hint: set --dns, or \"dns\" in daemon.json"
        ))
    };
    let text =
        hostenv::file::text(&file).map_err(|e| unknown(format!("{}: {e}", file.display())))?;
    let servers = servers_in(&text);
    // Containers without IPv6 reach the first IPv4 server.
    let server = servers.iter().find(|ip| ip.is_ipv4()).or(servers.first());
    let server =
        server.ok_or_else(|| unknown(format!("{} lists no name server", file.display())))?;
    // A bridge container is refused by its own loopback at once and goes on to the gateway; one on the host's network
    // gets its answer before it comes to that.
    let all = of_host.iter().take(MAX_OF_HOST).chain([server]);
    Ok(all.map(|ip| format!("--dns={ip}").into()).collect())
}

/// The host's name servers if containers on the default bridge have no use for them.
fn out_of_reach(root: &Path) -> Option<Vec<IpAddr>> {
    let servers =
        |file: &str| servers_in(&hostenv::file::text(&root.join(file)).unwrap_or_default());
    let mut of_host = servers("etc/resolv.conf");
    let loopback = |servers: &[IpAddr]| servers.iter().all(IpAddr::is_loopback);
    let (resolved, more) = RESOLVED;
    let known = of_host == [IpAddr::from(resolved)] && !loopback(&servers(more));
    if known || !loopback(&of_host) {
        return None;
    }
    if of_host.is_empty() {
        // "The name server on the local machine" (resolv.conf(5)).
        of_host.push(Ipv4Addr::LOCALHOST.into());
    }
    Some(of_host)
}

/// The servers as dockerd reads them. The zone of an address does not matter here.
pub(crate) fn servers_in(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver").and(words.next())
    });
    lines.filter_map(|word| word.split('%').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    struct Home {
        dir: tempfile::TempDir,
        env: Env,
    }

    impl Home {
        /// A host with this `/etc/resolv.conf` and a running gateway; a home without configuration.
        fn new(resolv_conf: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut env = Env::default();
            env.set(vars::DOCKERD_ROOTLESS_NET_IN_FORCE, "gateway");
            env.set(vars::HOME, dir.path());
            let home = Self { dir, env };
            home.write("etc/resolv.conf", resolv_conf);
            home.write("state/resolv.conf", WRITTEN);
            home
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn result(&self, of_dockerd: &[&str], of_user: &[&str]) -> Result<String, Note> {
            let words = |args: &[&str]| args.iter().map(OsString::from).collect::<Vec<_>>();
            let given = [words(of_dockerd), words(of_user)];
            let state_dir = self.dir.path().join("state");
            let given: [&[OsString]; 2] = [&given[0], &given[1]];
            let config = Config::read(&self.env, &given);
            let options = options(&self.env, self.dir.path(), &state_dir, &config)?;
            Ok(options.iter().map(|o| o.to_str().unwrap()).collect::<Vec<_>>().join(" "))
        }

        fn options(&self, of_dockerd: &[&str], of_user: &[&str]) -> String {
            self.result(of_dockerd, of_user).unwrap()
        }
    }

    const WRITTEN: &str = "search example.org\nnameserver fd00::3\nnameserver 10.0.2.3\n";
    const LOCAL: &str = "search lan\nnameserver 127.0.0.1\n";
    const OURS: &str = "--dns=127.0.0.1 --dns=10.0.2.3";

    #[test]
    fn servers_on_loopback_are_asked_through_the_gateway() {
        for (resolv_conf, expected) in [
            (LOCAL, OURS),
            ("", OURS),
            (
                "nameserver 127.0.0.1\nnameserver ::1\nnameserver 127.0.0.2",
                "--dns=127.0.0.1 --dns=::1 --dns=10.0.2.3",
            ),
            ("nameserver 127.0.0.53\n", "--dns=127.0.0.53 --dns=10.0.2.3"),
            ("nameserver 192.0.2.1\n", ""),
            ("nameserver 127.0.0.1\nnameserver 192.0.2.1\n", ""),
            ("nameserver fe80::1%eth0\n", ""),
            ("#nameserver 192.0.2.1\nnameservers 192.0.2.1", OURS),
        ] {
            let options = Home::new(resolv_conf).options(&[], &["--debug", "--dns-search=x"]);
            assert_eq!(options, expected, "{resolv_conf:?}");
        }
        let home = Home::new(LOCAL);
        home.write("state/resolv.conf", "nameserver fd00::3\n");
        assert_eq!(home.options(&[], &[]), "--dns=127.0.0.1 --dns=fd00::3");
    }

    #[test]
    fn dockerd_finds_the_servers_of_systemd_resolved() {
        let home = Home::new("nameserver 127.0.0.53\n");
        home.write("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n");
        assert_eq!(home.options(&[], &[]), "");
        home.write("run/systemd/resolve/resolv.conf", "# no servers are known\n");
        assert_eq!(home.options(&[], &[]), "--dns=127.0.0.53 --dns=10.0.2.3");
        // That file is not asked for any other server.
        home.write("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n");
        home.write("etc/resolv.conf", LOCAL);
        assert_eq!(home.options(&[], &[]), OURS);
    }

    #[test]
    fn other_networks_are_left_alone() {
        for net in ["slirp4netns", "", "Gateway"] {
            let mut home = Home::new(LOCAL);
            home.env.set(vars::DOCKERD_ROOTLESS_NET_IN_FORCE, net);
            assert_eq!(home.options(&[], &[]), "", "{net}");
        }
    }

    #[test]
    fn servers_on_the_command_line_are_the_users_choice() {
        let home = Home::new(LOCAL);
        for args in [&["--dns", "192.0.2.1"][..], &["--debug", "--dns=192.0.2.1"]] {
            assert_eq!(home.options(&[], args), "", "{args:?}");
            assert_eq!(home.options(args, &["--debug"]), "", "{args:?} in $DOCKERD");
        }
    }

    #[test]
    fn servers_in_the_configuration_are_the_users_choice() {
        let home = Home::new(LOCAL);
        let file = ".config/docker/daemon.json";
        for (text, expected) in [
            ("{\"dns\": [\"192.0.2.1\"]}", ""),
            ("\u{feff}{\"dns\": []}", ""),
            ("{\"dns-search\": [\"x\"], \"features\": {\"dns\": true}}", OURS),
            ("\u{feff}{}", OURS),
            ("", OURS),
            ("{\"dns\":", ""),
        ] {
            home.write(file, text);
            assert_eq!(home.options(&[], &[]), expected, "{text}");
        }
        // As Notepad and PowerShell write it.
        for (text, expected) in [("\u{feff}{\"dns\": []}", ""), ("\u{feff}{}", OURS)] {
            let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            fs::write(home.dir.path().join(file), utf16).unwrap();
            assert_eq!(home.options(&[], &[]), expected, "{text}");
        }
        fs::remove_file(home.dir.path().join(file)).unwrap();
        fs::create_dir(home.dir.path().join(file)).unwrap();
        assert_eq!(home.options(&[], &[]), "");
    }

    #[test]
    fn the_configuration_is_the_one_that_dockerd_reads() {
        let mut home = Home::new(LOCAL);
        let with = "{\"dns\": [\"192.0.2.1\"]}";
        home.write("other.json", with);
        let other = home.dir.path().join("other.json").to_str().unwrap().to_owned();
        for args in [&["--config-file", &other][..], &[&format!("--config-file={other}")]] {
            assert_eq!(home.options(&[], args), "");
            assert_eq!(home.options(args, &[]), "");
        }
        assert_eq!(home.options(&["--config-file", &other], &["--config-file=/none"]), OURS);
        // The default file does not count then.
        home.write(".config/docker/daemon.json", with);
        assert_eq!(home.options(&[], &["--config-file=/none"]), OURS);
        let xdg = home.dir.path().join("xdg");
        home.env.set(vars::XDG_CONFIG_HOME, xdg);
        assert_eq!(home.options(&[], &[]), OURS);
        home.write("xdg/docker/daemon.json", with);
        assert_eq!(home.options(&[], &[]), "");
    }

    #[test]
    fn an_address_that_cannot_be_told_is_a_warning_where_it_matters() {
        let home = Home::new(LOCAL);
        home.write("state/resolv.conf", "search example.org\n");
        let text = home.result(&[], &[]).unwrap_err().text;
        assert!(text.contains("resolv.conf lists no name server. hint: "), "{text}");
        fs::remove_file(home.dir.path().join("state/resolv.conf")).unwrap();
        let text = home.result(&[], &[]).unwrap_err().text;
        assert!(text.contains("state/resolv.conf: No such file"), "{text}");
        home.write("etc/resolv.conf", "nameserver 192.0.2.1\n");
        assert_eq!(home.options(&[], &[]), "");
    }

    proptest! {
        #[test]
        fn every_text_is_a_list_of_servers(text in any::<String>(), ip in any::<IpAddr>()) {
            let _ = servers_in(&text);
            prop_assert_eq!(servers_in(&format!("# x\n nameserver {ip} x\noptions x")), [ip]);
        }
    }
}
