//! Ping: real answers, real errors, and silence where there is silence.

use tests::{PATIENCE, Result, ensure, wait};

use crate::kit::{self, Net};

#[test]
fn ping_answers_are_real_and_absent_where_nobody_answers() -> Result<()> {
    let b = kit::boot()?;
    let net = Net::start(&b)?;
    for to in ["10.77.0.2", "fd77::2", "10.77.0.1", "fd77::1"] {
        let text = net.inside(&format!("ping -c 3 -i 0.1 -W 30 {to}")).ok()?;
        ensure!(text.contains("3 received") || text.contains(" 0% packet loss"), "{text}");
    }
    // The size of the payload, fragments included, and what it holds.
    for size in [0, 1400, 1472, 8000] {
        net.inside(&format!("ping -c 1 -W 30 -s {size} -p a55a 10.77.0.2")).ok()?;
    }
    // Nobody has the address; nobody on the way says anything; it is closed.
    for to in ["10.77.0.99", "fd77::99", "10.99.0.1", "10.0.2.77"] {
        let out = net.inside(&format!("ping -c 2 -i 0.2 -W 1 {to}")).run()?;
        ensure!(out.code != 0 && !out.stdout.contains("bytes from"), "{out}");
    }
    // An answer that the host would not get is not there: the other machine stops answering.
    b.peer("sysctl -qw net.ipv4.icmp_echo_ignore_all=1").ok()?;
    let out = net.inside("ping -c 2 -i 0.2 -W 1 10.77.0.2").run()?;
    ensure!(out.code == 1 && !out.stdout.contains("bytes from"), "{out}");
    net.stop()
}

#[test]
fn ping_routers_on_the_way_are_seen() -> Result<()> {
    let b = kit::boot()?;
    // The other machine is a router now, with a network behind it.
    b.peer(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
         sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
         ip link add d0 type veth peer name d1; ip link set d1 up; ip link set d0 up; ip addr add 10.66.0.1/24 dev d0; ip addr add fd66::1/64 dev d0 nodad",
    )
    .ok()?;
    let net = Net::start(&b)?;
    for (family, to, own, router) in
        [("-4", "10.66.0.9", "10.0.2.2", "10.77.0.2"), ("-6", "fd66::9", "fd00::", "fd77::2")]
    {
        // The first hop is the gateway.
        let out = net.inside(&format!("ping {family} -c 1 -W 2 -t 1 {to}")).run()?;
        let exceeded =
            out.stdout.contains("Time to live exceeded") || out.stdout.contains("Hop limit");
        ensure!(exceeded && out.stdout.contains(own), "{out}");
        // The next is the other machine.
        let seen = wait::until(&format!("{router} answers"), PATIENCE, || {
            let out = net.inside(&format!("ping {family} -c 1 -W 2 -t 2 {to}")).run()?;
            Ok(out.stdout.contains(router).then_some(out))
        })?;
        let exceeded =
            seen.stdout.contains("Time to live exceeded") || seen.stdout.contains("Hop limit");
        ensure!(exceeded, "{seen}");
    }
    // The same for datagrams, as traceroute(8) sends them: the socket hears of it by its error queue only.
    let script = "
import socket, select, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)
s.sendto(b'probe', ('10.66.0.9', 33434))
select.select([], [], [s], 3)
end = time.time() + 3
while time.time() < end:
    try:
        data, control, flags, to = s.recvmsg(100, 1000, socket.MSG_ERRQUEUE)
    except BlockingIOError:
        time.sleep(0.02)
        continue
    except OSError:
        continue
    error = control[0][2]
    print('type', error[5], 'code', error[6], 'from', socket.inet_ntoa(error[20:24]))
    break
";
    let text = net.inside("exec python3 -c \"$CODE\"").env("CODE", script).ok()?;
    assert_eq!(text, "type 11 code 0 from 10.77.0.2\n");
    net.stop()
}

#[test]
fn ping_that_the_kernel_forbids_is_said_with_the_remedy() -> Result<()> {
    let b = kit::boot()?;
    b.root("sysctl -qw net.ipv4.ping_group_range='1 0'").ok()?;
    let net = Net::start(&b)?;
    let out = net.inside("ping -c 1 -W 2 10.77.0.2").run()?;
    ensure!(out.code != 0 && !out.stdout.contains("bytes from"), "{out}");
    wait::until_true("the remedy is printed", PATIENCE, || {
        let text = net.kit.printed()?;
        Ok(text.contains("ping_group_range") && text.contains("sysctl"))
    })?;
    // Once, however often it is tried.
    net.inside("ping -c 3 -i 0.1 -W 1 10.77.0.2").run()?;
    let text = net.kit.printed()?;
    assert_eq!(
        text.lines().filter(|l| l.contains("cannot") || l.contains("forbid")).count(),
        1,
        "{text}"
    );
    net.stop()
}
