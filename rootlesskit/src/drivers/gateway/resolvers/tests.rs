use super::conf::{MAX_SERVERS, address};
use super::*;
use crate::path_watch::MAX_WATCHES;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;

const LOCAL: &str = "127.0.0.1:53 [::1]:53";

fn text(servers: &[SocketAddr]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// A root with an empty `etc`, and a name server for each number.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(host.at("etc")).unwrap();
        host
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, server: u8) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), format!("nameserver 192.0.2.{server}\n")).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        symlink(target, self.at(path)).unwrap();
    }

    /// As link managers do it: a new link takes the place of the old one.
    fn relink(&self, path: &str, target: &str) {
        self.link("new-link", target);
        fs::rename(self.at("new-link"), self.at(path)).unwrap();
    }

    fn watch(&self) -> Watch {
        Watch::new(self.dir.path()).unwrap()
    }
}

fn readable(watch: &Watch, patience: PollTimeout) -> bool {
    poll(&mut [PollFd::new(watch.fd(), PollFlags::POLLIN)], patience).unwrap() > 0
}

/// What is told after a change; the events are there as soon as the system call that causes them returns.
#[track_caller]
fn told(watch: &mut Watch) -> String {
    for _ in 0..8 {
        assert!(readable(watch, PollTimeout::ZERO), "the change was not noticed");
        if let Some(servers) = watch.changed() {
            assert_eq!(servers, watch.servers());
            return text(&servers);
        }
    }
    panic!("other servers were expected than {:?}", watch.servers());
}

/// Nothing is told, and sooner or later there is nothing to look at either.
#[track_caller]
fn silent(watch: &mut Watch) {
    for _ in 0..8 {
        if !readable(watch, PollTimeout::ZERO) {
            return;
        }
        assert_eq!(watch.changed(), None);
    }
    panic!("looking causes events");
}

fn server(number: u8) -> String {
    format!("192.0.2.{number}:53")
}

#[test]
fn lines_that_count_and_lines_that_do_not() {
    let parsed = |input: &str| text(&parse(input));
    assert_eq!(
        parsed("# c\n;nameserver 9.9.9.9\nsearch a b\nnameserver\t192.0.2.1 # x\noptions ndots:2"),
        server(1)
    );
    assert_eq!(
        parsed("nameserver 2001:db8::1\r\nnameserver ::1\n"),
        "[2001:db8::1]:53 [::1]:53",
        "both families, and the line ends of other systems"
    );
    for junk in [
        "",
        "nameserver",
        "nameserver\n",
        "nameservers 192.0.2.1",
        "nameserver192.0.2.1",
        " nameserver 192.0.2.1",
        "nameserver dns.example.org",
        "nameserver 192.0.2.1:53",
        "nameserver 192.0.2.1%eth0",
        "nameserver 192.0.2.256",
        "NAMESERVER 192.0.2.1",
    ] {
        assert_eq!(parsed(junk), "", "{junk:?}");
    }
    let many: String =
        (1..9).map(|n| format!("nameserver junk{n}\nnameserver 192.0.2.{n}\n")).collect();
    assert_eq!(parsed(&many), [1, 2, 3].map(server).join(" "), "junk takes no place");
}

#[test]
fn scopes_are_interfaces() {
    let index = |zone: &str| match address(&format!("fe80::1%{zone}")) {
        Some(SocketAddr::V6(v6)) => Some((*v6.ip(), v6.scope_id())),
        _ => None,
    };
    let ip: Ipv6Addr = "fe80::1".parse().unwrap();
    let lo = if_nametoindex("lo").unwrap();
    assert_eq!(index("lo"), Some((ip, lo)));
    assert_eq!(index("77"), Some((ip, 77)));
    assert_eq!(index("no-such-one"), Some((ip, 0)));
    assert_eq!(index(""), Some((ip, 0)));
}

#[test]
fn without_servers_it_is_the_local_one() {
    let host = Host::new();
    let servers = || text(&read(host.dir.path()));
    assert_eq!(servers(), LOCAL);
    fs::write(host.at("etc/resolv.conf"), "search example.org\n").unwrap();
    assert_eq!(servers(), LOCAL);
    host.write("etc/resolv.conf", 1);
    assert_eq!(servers(), server(1));
    fs::remove_file(host.at("etc/resolv.conf")).unwrap();
    fs::create_dir(host.at("etc/resolv.conf")).unwrap();
    assert_eq!(servers(), LOCAL);
}

#[test]
fn a_fifo_holds_nobody_up() {
    let host = Host::new();
    let fifo = host.at("etc/resolv.conf");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    assert_eq!(text(&read(host.dir.path())), LOCAL);
}

#[test]
fn a_huge_file_is_cut_at_a_line() {
    let host = Host::new();
    let line = "nameserver 192.0.2.1\n";
    for cut in 0..line.len() + 1 {
        let filler = format!("#{}\n", "x".repeat(MAX_BYTES - cut - 2));
        assert_eq!(filler.len() + cut, MAX_BYTES);
        fs::write(host.at("etc/resolv.conf"), format!("{filler}{line}\n{line}")).unwrap();
        let expected = if cut + 1 >= line.len() { server(1) } else { LOCAL.to_owned() };
        assert_eq!(text(&read(host.dir.path())), expected, "{cut} bytes of the line");
    }
    fs::write(host.at("etc/resolv.conf"), "x".repeat(2 * MAX_BYTES)).unwrap();
    assert_eq!(text(&read(host.dir.path())), LOCAL);
}

#[test]
fn rewritten_in_place() {
    let host = Host::new();
    host.write("etc/resolv.conf", 1);
    let mut watch = host.watch();
    assert_eq!(text(watch.servers()), server(1));
    silent(&mut watch);
    host.write("etc/resolv.conf", 2);
    assert_eq!(told(&mut watch), server(2));
    host.write("etc/resolv.conf", 3);
    assert_eq!(told(&mut watch), server(3), "watched as before");
    host.write("etc/resolv.conf", 3);
    assert!(readable(&watch, PollTimeout::ZERO));
    silent(&mut watch);
}

#[test]
fn replaced_by_rename() {
    let host = Host::new();
    host.write("etc/resolv.conf", 1);
    let mut watch = host.watch();
    for number in 2..5 {
        host.write("elsewhere", number);
        fs::rename(host.at("elsewhere"), host.at("etc/resolv.conf")).unwrap();
        assert_eq!(told(&mut watch), server(number));
    }
    silent(&mut watch);
}

#[test]
fn deleted_and_back() {
    let host = Host::new();
    host.write("etc/resolv.conf", 1);
    let mut watch = host.watch();
    fs::remove_file(host.at("etc/resolv.conf")).unwrap();
    assert_eq!(told(&mut watch), LOCAL);
    host.write("etc/resolv.conf", 1);
    assert_eq!(told(&mut watch), server(1));
}

#[test]
fn the_link_leads_elsewhere() {
    let host = Host::new();
    host.write("run/a/resolv.conf", 1);
    host.write("run/b/resolv.conf", 2);
    host.link("etc/resolv.conf", "../run/a/resolv.conf");
    let mut watch = host.watch();
    assert_eq!(text(watch.servers()), server(1));
    host.relink("etc/resolv.conf", "/run/b/resolv.conf");
    assert_eq!(told(&mut watch), server(2));
    host.write("run/b/resolv.conf", 3);
    assert_eq!(told(&mut watch), server(3));
    silent(&mut watch);
    // Nobody looks there any more.
    host.write("run/a/resolv.conf", 4);
    assert!(!readable(&watch, PollTimeout::ZERO));
    // A file takes the place of the link.
    host.write("new", 5);
    fs::rename(host.at("new"), host.at("etc/resolv.conf")).unwrap();
    assert_eq!(told(&mut watch), server(5));
}

#[test]
fn a_chain_of_links_and_directories_that_are_links() {
    let host = Host::new();
    host.write("run/one/file", 1);
    host.write("run/two/file", 2);
    host.link("run/current", "one");
    fs::create_dir(host.at("var")).unwrap();
    host.link("var/run", "../run");
    host.link("etc/middle", "../var/run/current/file");
    host.link("etc/resolv.conf", "middle");
    let mut watch = host.watch();
    assert_eq!(text(watch.servers()), server(1));
    host.relink("run/current", "two");
    assert_eq!(told(&mut watch), server(2), "a directory in the middle");
    host.write("run/two/file", 3);
    assert_eq!(told(&mut watch), server(3), "the end");
    host.relink("etc/middle", "/run/one/file");
    assert_eq!(told(&mut watch), server(1), "a link in the middle");
    host.write("other/file", 6);
    host.relink("etc/resolv.conf", "./.././other//file");
    assert_eq!(told(&mut watch), server(6), "the beginning");
}

#[test]
fn directories_that_come_later_one_by_one() {
    let host = Host::new();
    host.link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    let mut watch = host.watch();
    assert_eq!(text(watch.servers()), LOCAL);
    for dir in ["run", "run/systemd", "run/systemd/resolve"] {
        fs::create_dir(host.at(dir)).unwrap();
        assert!(readable(&watch, PollTimeout::ZERO), "{dir}");
        silent(&mut watch);
    }
    host.write("run/systemd/resolve/stub-resolv.conf", 1);
    assert_eq!(told(&mut watch), server(1));
    fs::remove_dir_all(host.at("run/systemd")).unwrap();
    assert_eq!(told(&mut watch), LOCAL);
    // All at once, before anybody looks.
    host.write("run/systemd/resolve/stub-resolv.conf", 2);
    assert_eq!(told(&mut watch), server(2));
}

#[test]
fn a_directory_on_the_way_is_moved() {
    let host = Host::new();
    host.write("run/a/b/file", 1);
    host.write("spare/b/file", 2);
    host.link("etc/resolv.conf", "../run/a/b/file");
    let mut watch = host.watch();
    fs::rename(host.at("run/a"), host.at("gone")).unwrap();
    assert_eq!(told(&mut watch), LOCAL);
    fs::rename(host.at("spare"), host.at("run/a")).unwrap();
    assert_eq!(told(&mut watch), server(2));
    silent(&mut watch);
    host.write("gone/b/file", 3);
    assert!(!readable(&watch, PollTimeout::ZERO));
}

#[test]
fn a_file_that_is_written_under_another_name() {
    let host = Host::new();
    host.write("outside", 1);
    fs::hard_link(host.at("outside"), host.at("etc/resolv.conf")).unwrap();
    let mut watch = host.watch();
    host.write("outside", 2);
    assert_eq!(told(&mut watch), server(2));
}

#[test]
fn a_change_of_permissions_is_looked_at() {
    let host = Host::new();
    host.write("etc/resolv.conf", 1);
    let mut watch = host.watch();
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(host.at("etc/resolv.conf"), mode).unwrap();
    assert!(readable(&watch, PollTimeout::ZERO));
    silent(&mut watch);
}

#[test]
fn loops_and_floods_are_bounded() {
    let host = Host::new();
    host.link("etc/resolv.conf", "resolv.conf");
    let mut watch = host.watch();
    assert_eq!(text(watch.servers()), LOCAL);
    fs::remove_file(host.at("etc/resolv.conf")).unwrap();
    host.link("etc/resolv.conf", &"d/".repeat(500));
    silent(&mut watch);
    fs::create_dir_all(host.at("etc").join("d/".repeat(500))).unwrap();
    silent(&mut watch);
    assert_eq!(watch.path.armed(), MAX_WATCHES);
    // Up from the root is the root.
    host.write("x", 1);
    host.relink("etc/resolv.conf", "../../../x");
    assert_eq!(told(&mut watch), server(1));
}

proptest! {
    #[test]
    fn no_text_is_a_panic_and_three_are_enough(input in any::<String>(), lines in prop::collection::vec("(nameserver[ \t]{0,2})?[0-9a-f.:%]{0,12}[a-z ]{0,3}", 0..9)) {
        prop_assert!(parse(&input).len() <= MAX_SERVERS);
        prop_assert!(parse(&lines.join("\n")).len() <= MAX_SERVERS);
    }

    #[test]
    fn every_address_is_found_among_comments(ips in prop::collection::vec(any::<IpAddr>(), 1..6), space in "[ \t]{1,3}", tail in "([ \t][^\n]{0,9})?") {
        let text: String = ips.iter().map(|ip| format!("# {ip}\nnameserver{space}{ip}{tail}\n")).collect();
        let expected: Vec<_> = ips.iter().take(MAX_SERVERS).map(|ip| SocketAddr::new(*ip, PORT)).collect();
        prop_assert_eq!(parse(&text), expected);
    }
}
