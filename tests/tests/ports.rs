//! Published ports of the builtin driver: who can reach what, from where, and what an error says.

use tests::{Context as _, PATIENCE, Result, Running, Suite, TestBox, ensure, need, wait};

/// Starts a target behind rootlesskit with its state folder in /tmp/s, and waits until its ports are open.
fn start<'b>(b: &'b TestBox, flags: &str, target: &str) -> Result<Running<'b>> {
    let command =
        format!("exec rootlesskit --state-dir=/tmp/s --port-driver=builtin {flags} {target}");
    let mut kit = b.user(&command).spawn()?;
    wait::until_true("the API answers", PATIENCE, || {
        ensure!(kit.alive()?, "ended: {}", kit.printed()?);
        Ok(b.exists("/tmp/s/api.sock"))
    })?;
    wait::until_true("the target serves", PATIENCE, || Ok(kit.printed()?.contains("ready")))?;
    Ok(kit)
}

fn stop(kit: Running<'_>) -> Result<()> {
    kit.signal("TERM")?;
    kit.wait(PATIENCE).map(drop)
}

fn get(b: &TestBox, url: &str) -> Result<String> {
    b.user(&format!("curl -sS -m30 'http://{url}/'")).ok()
}

#[test]
fn each_form_of_a_spec_listens_where_it_says_and_nowhere_else() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    // Spec, where the server listens in the namespace, addresses that answer, addresses that refuse.
    let cases: [(&str, &str, &[&str], &[&str]); 9] = [
        (
            "0.0.0.0:8080:80/tcp",
            "0.0.0.0:80",
            &["127.0.0.1:8080", "[::1]:8080", "10.77.0.1:8080"],
            &[],
        ),
        (":8080:80/tcp", "0.0.0.0:80", &["127.0.0.1:8080", "[::1]:8080"], &[]),
        (
            "0.0.0.0:8080:80/tcp4",
            "0.0.0.0:80",
            &["127.0.0.1:8080", "10.77.0.1:8080"],
            &["[::1]:8080"],
        ),
        ("[::]:8080:80/tcp6", "[::]:80", &["[::1]:8080", "[fd77::1]:8080"], &["127.0.0.1:8080"]),
        (
            "127.0.0.1:8080:80/tcp",
            "0.0.0.0:80",
            &["127.0.0.1:8080"],
            &["10.77.0.1:8080", "[::1]:8080"],
        ),
        ("10.77.0.1:8080:80/tcp", "0.0.0.0:80", &["10.77.0.1:8080"], &["127.0.0.1:8080"]),
        ("[::1]:8080:[::1]:80/tcp", "[::1]:80", &["[::1]:8080"], &["127.0.0.1:8080"]),
        ("[::]:8080:[127.0.0.1]:80/tcp6", "127.0.0.1:80", &["[::1]:8080"], &[]),
        ("127.0.0.1:8080:[::1]:80/tcp", "[::1]:80", &["127.0.0.1:8080"], &[]),
    ];
    for net in ["slirp4netns", "none"] {
        for (spec, listen, answer, refuse) in cases {
            let kit = start(
                &b,
                &format!("--net={net} -p {spec}"),
                &format!("fixture http {listen} page"),
            )?;
            for url in answer {
                let page = get(&b, url)?;
                ensure!(page.starts_with("page from "), "{net} {spec}: {url} says {page:?}");
            }
            for url in refuse {
                b.user(&format!("curl -sS -m5 'http://{url}/'")).fails_with(7)?;
            }
            stop(kit)?;
        }
    }
    b.assert_clean(&[])
}

#[test]
fn detached_namespaces_are_published_too() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let target = "nsenter -n/tmp/s/netns fixture http 0.0.0.0:80 page";
    let kit = start(&b, "--net=slirp4netns --detach-netns -p 0.0.0.0:8080:80/tcp", target)?;
    ensure!(get(&b, "127.0.0.1:8080")?.starts_with("page from "));
    ensure!(b.peer("curl -sS -m30 http://10.77.0.1:8080/").ok()?.starts_with("page from "));
    stop(kit)?;
    b.assert_clean(&[])
}

#[test]
fn the_server_sees_the_address_of_a_client_that_is_not_local() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for flags in ["--net=slirp4netns", "--net=slirp4netns --detach-netns"] {
        let enter = if flags.contains("detach") { "nsenter -n/tmp/s/netns" } else { "" };
        let kit = start(
            &b,
            &format!("{flags} -p 0.0.0.0:8080:80/tcp"),
            &format!("{enter} fixture http [::]:80 page"),
        )?;
        assert_eq!(
            b.peer("curl -sS -m30 http://10.77.0.1:8080/").ok()?,
            "page from 10.77.0.2\n",
            "{flags}"
        );
        stop(kit)?;
        let kit = start(
            &b,
            &format!("{flags} --source-ip-transparent=false -p 0.0.0.0:8080:80/tcp"),
            &format!("{enter} fixture http [::]:80 page"),
        )?;
        assert_eq!(
            b.peer("curl -sS -m30 http://10.77.0.1:8080/").ok()?,
            "page from 127.0.0.1\n",
            "{flags}"
        );
        stop(kit)?;
    }
    b.assert_clean(&[])
}

#[test]
fn a_local_clients_port_is_not_kept_even_where_there_is_only_one_to_take() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let one = "sysctl -qw net.ipv4.ip_local_port_range='50000 50000'";
    b.root(one).ok()?;
    for proto in ["tcp", "udp"] {
        let kit = start(
            &b,
            &format!("--net=none -p 0.0.0.0:9999:99/{proto}"),
            &format!("sh -c \"{one} && exec fixture {proto}-echo [::]:99\""),
        )?;
        let said = b.user(&format!("fixture who {proto} 127.0.0.1:9999")).ok()?;
        let (own, seen) = said.trim_end().split_once(' ').with_context(|| said.clone())?;
        assert_eq!(seen, "127.0.0.1:50000", "{proto}");
        ensure!(own != seen, "{proto}: the fixture took a port that anybody may get: {own}");
        stop(kit)?;
    }
    b.assert_clean(&[])
}

#[test]
fn udp_flows_in_both_families_with_answers_from_the_address_that_was_asked() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit = start(
        &b,
        "--net=slirp4netns -p 0.0.0.0:9999:99/udp -p [::1]:9998:99/udp6",
        "fixture udp-echo [::]:99",
    )?;
    b.root("ip addr add 10.77.0.9/24 dev eth0").ok()?;
    for address in [
        "127.0.0.1:9999",
        "127.0.0.2:9999",
        "10.77.0.1:9999",
        "10.77.0.9:9999",
        "[::1]:9999",
        "[fd77::1]:9999",
        "[::1]:9998",
    ] {
        let answer = b.user(&format!("fixture udp-ask '{address}' ping")).ok()?;
        ensure!(answer.ends_with(" ping\n"), "{address}: {answer:?}");
    }
    for address in ["10.77.0.1:9999", "10.77.0.9:9999", "[fd77::1]:9999"] {
        let answer = b.peer(&format!("fixture udp-ask '{address}' ping")).ok()?;
        ensure!(answer.ends_with(" ping\n"), "{address}: {answer:?}");
    }
    stop(kit)?;
    b.assert_clean(&[])
}

#[test]
fn rootlessctl_adds_lists_and_removes() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit = start(&b, "--net=slirp4netns", "fixture http [::]:80 page")?;
    let ctl = |args: &str| b.user(&format!("rootlessctl --socket /tmp/s/api.sock {args}"));
    assert_eq!(ctl("add-ports 0.0.0.0:8080:80/tcp4 '[::]:8080:80/tcp6'").ok()?, "1\n2\n");
    ensure!(get(&b, "127.0.0.1:8080")?.starts_with("page"));
    ensure!(get(&b, "[::1]:8080")?.starts_with("page"));
    let table = ctl("list-ports").ok()?;
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ID", "PROTO", "PARENTIP", "PARENTPORT", "CHILDIP", "CHILDPORT"]);
    assert_eq!(rows[1], ["1", "tcp4", "0.0.0.0", "8080", "80"]);
    let text = ctl("add-ports 0.0.0.0:8080:80/tcp4").fails_with(1)?;
    ensure!(text.contains("conflict with ID 1"), "{text}");
    let text = ctl("add-ports 127.0.0.1:8080:80/tcp").fails_with(1)?;
    ensure!(text.contains("address already in use"), "{text}");
    assert_eq!(ctl("remove-ports 1").ok()?, "1\n");
    b.user("curl -sS -m5 http://127.0.0.1:8080/").fails_with(7)?;
    ensure!(get(&b, "[::1]:8080")?.starts_with("page"));
    ctl("remove-ports 1").fails_with(1)?;
    ctl("add-ports 0.0.0.0:0:80/tcp").fails_with(1)?;
    ctl("add-ports 0.0.0.0:8081:80/sctp").fails_with(1)?;
    assert_eq!(ctl("list-ports --json").ok()?.lines().count(), 1);
    stop(kit)?;
    b.assert_clean(&[])
}

#[test]
fn a_removed_port_closes_its_live_connections() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit = start(&b, "--net=slirp4netns -p 0.0.0.0:8080:80/tcp", "fixture tcp-echo 0.0.0.0:80")?;
    let client = b.user("exec socat -u TCP:127.0.0.1:8080 -").spawn()?;
    wait::until_true("the connection stands", PATIENCE, || Ok(client.printed()?.contains(':')))?;
    b.user("rootlessctl --socket /tmp/s/api.sock remove-ports 1").ok()?;
    client.wait(PATIENCE)?;
    stop(kit)?;
    b.assert_clean(&[])
}

#[test]
fn large_transfers_arrive_whole_in_both_directions_and_half_closes_pass() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit = start(&b, "--net=slirp4netns -p 0.0.0.0:8080:80/tcp", "fixture tcp-echo 0.0.0.0:80")?;
    let script = "head -c 50000000 /dev/urandom > /tmp/big; socat -t 20 - TCP:127.0.0.1:8080 < /tmp/big | tail -n +2 | cmp - /tmp/big && rm /tmp/big";
    // The first line is the echo server's; random data follow it byte by byte.
    b.user(script).ok()?;
    stop(kit)?;
    b.assert_clean(&[])
}

#[test]
fn a_privileged_port_is_refused_with_its_remedies() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let text = b
        .user("rootlesskit --net=none --port-driver=builtin -p 0.0.0.0:80:80/tcp true")
        .fails_with(1)?;
    for part in ["80", "net.ipv4.ip_unprivileged_port_start", "CAP_NET_BIND_SERVICE"] {
        ensure!(text.contains(part), "no {part} in {text}");
    }
    b.assert_clean(&[])
}

#[test]
fn with_setcap_a_privileged_port_can_be_published_and_nsenter_still_works() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("setcap cap_net_bind_service=ep /usr/bin/rootlesskit").ok()?;
    let kit = start(&b, "--net=slirp4netns -p 0.0.0.0:80:80/tcp", "fixture http 0.0.0.0:80 page")?;
    ensure!(get(&b, "127.0.0.1:80")?.starts_with("page"));
    let enter = "nsenter -U --preserve-credentials -n -m -t $(cat /tmp/s/child_pid) id -u";
    assert_eq!(b.user(enter).ok()?, "0\n");
    stop(kit)?;
    b.assert_clean(&[])
}

#[test]
fn with_the_sysctl_a_privileged_port_can_be_published() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("sysctl -w net.ipv4.ip_unprivileged_port_start=80").ok()?;
    let kit = start(&b, "--net=none -p 0.0.0.0:80:80/tcp", "fixture http 0.0.0.0:80 page")?;
    ensure!(get(&b, "127.0.0.1:80")?.starts_with("page"));
    stop(kit)?;
    b.assert_clean(&[])
}

#[test]
fn implicit_ports_of_pasta_open_by_themselves() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    need!(b.exists("/usr/bin/pasta"), "pasta in the box");
    let kit = b.user("exec rootlesskit --state-dir=/tmp/s --net=pasta --port-driver=implicit fixture http 0.0.0.0:8080 page").spawn()?;
    let page =
        wait::until("pasta finds the listener", PATIENCE, || Ok(get(&b, "127.0.0.1:8080").ok()))?;
    ensure!(page.starts_with("page from "), "{page}");
    let text = b
        .user("rootlessctl --socket /tmp/s/api.sock add-ports 0.0.0.0:8081:80/tcp")
        .fails_with(1)?;
    ensure!(text.contains("no PortDriver is available"), "{text}");
    stop(kit)?;
    b.assert_clean(&[])
}

#[test]
fn ports_of_slirp4netns_answer_on_version_4_only() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let flags = "--net=slirp4netns --port-driver=slirp4netns -p 0.0.0.0:8080:80/tcp -p 127.0.0.1:8081:80/tcp4";
    let kit = start(&b, flags, "fixture http [::]:80 page")?;
    for url in ["127.0.0.1:8080", "10.77.0.1:8080", "127.0.0.1:8081"] {
        ensure!(get(&b, url)?.starts_with("page from "), "{url}");
    }
    // The driver keeps the addresses of clients.
    assert_eq!(b.peer("curl -sS -m30 http://10.77.0.1:8080/").ok()?, "page from 10.77.0.2\n");
    for url in ["[::1]:8080", "[::1]:8081", "10.77.0.1:8081"] {
        b.user(&format!("curl -sS -m5 'http://{url}/'")).fails_with(7)?;
    }
    let ctl = |args: &str| b.user(&format!("rootlessctl --socket /tmp/s/api.sock {args}"));
    let text = ctl("add-ports '[::]:8082:80/tcp6'").fails_with(1)?;
    ensure!(text.contains("tcp6"), "{text}");
    ctl("remove-ports 1").ok()?;
    b.user("curl -sS -m5 http://127.0.0.1:8080/").fails_with(7)?;
    stop(kit)?;
    b.assert_clean(&[])
}

#[test]
fn ports_of_pesto_are_those_that_were_asked_for_and_survive_pastas_death() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let flags = "--net=pasta --ipv6 --disable-host-loopback --port-driver=pesto -p 127.0.0.1:8080:80/tcp -p [::1]:8081:80/tcp6";
    let kit = start(&b, flags, "fixture http [::]:80 page")?;
    for url in ["127.0.0.1:8080", "[::1]:8081"] {
        wait::until_true(url, PATIENCE, || {
            Ok(get(&b, url).is_ok_and(|p| p.starts_with("page from ")))
        })?;
    }
    for url in ["10.77.0.1:8080", "127.0.0.1:8081", "127.0.0.1:80"] {
        b.user(&format!("curl -sS -m5 'http://{url}/'")).fails_with(7)?;
    }
    let ctl = |args: &str| b.user(&format!("rootlessctl --socket /tmp/s/api.sock {args}"));
    assert_eq!(ctl("add-ports 0.0.0.0:8082:80/tcp").ok()?, "3\n");
    assert_eq!(b.peer("curl -sS -m30 http://10.77.0.1:8082/").ok()?, "page from 10.77.0.2\n");
    let text = ctl("add-ports 0.0.0.0:8083:127.0.0.1:80/tcp").fails_with(1)?;
    ensure!(text.contains("can only forward to 10.0.2.100"), "{text}");
    ctl("remove-ports 1").ok()?;
    b.user("curl -sS -m5 http://127.0.0.1:8080/").fails_with(7)?;

    let pasta = b.user_processes().into_iter().find(|p| p.program().starts_with("pasta"));
    b.signal(pasta.map_or(0, |p| p.pid), "KILL")?;
    wait::until_true("ports are published again", PATIENCE, || {
        Ok(get(&b, "[::1]:8081").is_ok_and(|p| p.starts_with("page from ")))
    })?;
    stop(kit)?;
    b.assert_clean(&[])
}
