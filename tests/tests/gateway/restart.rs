//! A gateway process that dies is replaced; nothing else is.

use std::time::Instant;

use tests::{As, PATIENCE, Result, TestBox, ensure, wait};

use crate::kit::{self, FLAGS, Net, gateways};

/// What has to be the same before and after.
fn namespace(net: &Net<'_>) -> Result<String> {
    net.inside("readlink /proc/self/ns/net; ip -o addr show dev tap0 | grep -v fe80; ip route; ip -6 route; nft list ruleset; cat /etc/resolv.conf").ok()
}

#[test]
fn restart_after_a_kill_everything_works_again_five_times() -> Result<()> {
    let b = kit::boot()?;
    let _echo = kit::serve(&b, As::Peer, "udp-echo [::]:85")?;
    let flags = format!("{FLAGS} -p 0.0.0.0:8080:80/tcp -p 0.0.0.0:8081:81/udp");
    let net = Net::with(&b, &flags)?;
    let inner = kit::ready(net.inside("exec fixture http 0.0.0.0:80 page"))?;
    let inner_echo = kit::ready(net.inside("exec fixture udp-echo 0.0.0.0:81"))?;
    net.inside("nft add table inet mine; nft add chain inet mine forward '{ type filter hook forward priority 0; }'").ok()?;
    let same = namespace(&net)?;
    ensure!(same.contains("table inet mine") && same.contains("10.0.2.100/24"), "{same}");
    let mut times = Vec::new();
    for round in 0..5 {
        let old = net.gateway()?.0;
        b.signal(old.pid, "KILL")?;
        let killed = Instant::now();
        // Asked for while there may be no gateway at all.
        let port = 8090 + round;
        let [connect, inside, page, udp, add] = kit::together([
            net.inside("fixture get 10.77.0.2:7000"),
            net.inside("fixture udp-ask 10.77.0.2:85 again"),
            b.peer("fixture get 10.77.0.1:8080"),
            b.peer("fixture udp-ask 10.77.0.1:8081 in"),
            net.ctl(&format!("add-ports 0.0.0.0:{port}:80/tcp")),
        ])?;
        for (what, out, expected) in [
            ("TCP", connect, "peer from 10.77.0.1"),
            ("UDP", inside, " again"),
            ("published TCP", page, "page from 10.77.0.2"),
            ("published UDP", udp, " in"),
            ("a new port", add, "\n"),
        ] {
            ensure!(out.stdout.contains(expected), "round {round}, {what}: {out}");
        }
        times.push(killed.elapsed());
        let page = b.peer(&format!("fixture get 10.77.0.1:{port}")).ok()?;
        assert_eq!(page, "page from 10.77.0.2\n");
        assert_eq!(net.inside("dig +short foo.test").ok()?, "10.9.8.7\n");
        net.inside("ping -c 1 -W 30 10.77.0.2").ok()?;
        assert_eq!(namespace(&net)?, same, "round {round}");
        ensure!(gateways(&b).len() == 1 && net.gateway()?.0.pid != old.pid, "{:?}", gateways(&b));
        assert_eq!(net.stats()?["restarts"], round + 1);
        ensure!(net.kit.printed()?.contains("gateway"), "nothing is said");
    }
    println!("everything works again after {times:.2?}");
    assert_eq!(net.ctl("list-ports --json").ok()?.lines().count(), 7);
    drop((inner, inner_echo));
    net.stop()
}

#[test]
fn restart_a_port_removed_while_the_gateway_was_down_stays_removed() -> Result<()> {
    let b = kit::boot()?;
    let net = Net::with(&b, &format!("{FLAGS} -p 0.0.0.0:8080:80/tcp -p 0.0.0.0:8081:80/tcp"))?;
    let inner = kit::ready(net.inside("exec fixture http 0.0.0.0:80 page"))?;
    // Stopped, it hangs; killed, it is replaced.
    let old = net.gateway()?.0;
    b.signal(old.pid, "STOP")?;
    b.signal(old.pid, "KILL")?;
    net.ctl("remove-ports 1").ok()?;
    wait::until_true("the other port answers", PATIENCE, || {
        Ok(b.peer("fixture get 10.77.0.1:8081").run()?.stdout == "page from 10.77.0.2\n")
    })?;
    b.peer("curl -sS -m3 http://10.77.0.1:8080/").fails_with(7)?;
    drop(inner);
    net.stop()
}

/// Kills the parent or the child, and looks for what is left.
fn kill(b: &TestBox, flags: &str, child: bool) -> Result<()> {
    let net = Net::with(b, flags)?;
    let busy = net.inside("exec fixture hang 10.99.0.0 300").spawn()?;
    wait::until_true("it is busy", PATIENCE, || Ok(busy.printed()?.contains("began")))?;
    drop(busy);
    let pid = if child { b.read("/tmp/s/child_pid")?.parse()? } else { net.kit.pid() };
    b.signal(pid, "KILL")?;
    net.kit.wait(PATIENCE)?;
    wait::until_true("the gateway process ends", PATIENCE, || Ok(gateways(b).is_empty()))?;
    b.assert_no_processes()
}

#[test]
fn restart_death_of_parent_or_child_leaves_no_gateway() -> Result<()> {
    let b = kit::boot()?;
    for flags in [FLAGS.to_owned(), format!("{FLAGS} --pidns"), format!("{FLAGS} --detach-netns")] {
        for child in [false, true] {
            kill(&b, &flags, child)?;
        }
    }
    // The state folder of a dead one is no obstacle.
    Net::start(&b)?.stop()
}
