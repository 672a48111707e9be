//! The flow log: what has ended, how, whose it was and what it moved, for several followers at once.

use std::time::Duration;

use serde_json::Value;
use tests::{As, Context as _, PATIENCE, Result, Running, TestBox, ensure, wait};

use crate::attribution::{BEGIN, END};
use crate::kit::{self, FLAGS, Net, events};

/// A UDP flow that was answered ends after 120 s of silence.
const IDLE: Duration = Duration::from_secs(240);

const SOCKET: &str = "--socket /tmp/s/api.sock";

/// A server that resets a connection when it has received a byte.
const RESETTING: &str = r#"perl -MIO::Socket::INET -MSocket -e '$| = 1;
    $s = IO::Socket::INET->new(Listen => 5, LocalPort => 7001, ReuseAddr => 1) or die;
    print "ready\n";
    while ($c = $s->accept) { sysread $c, $b, 1; setsockopt $c, SOL_SOCKET, SO_LINGER, pack("ii", 1, 0); close $c }'"#;

/// Follows, and waits until something shows that it does.
pub(crate) fn follow<'b>(net: &Net<'b>) -> Result<Running<'b>> {
    let mut follower = net
        .b
        .user(&format!("exec rootlessctl {SOCKET} flows --follow --json 2>/dev/null"))
        .spawn()?;
    wait::until_true("it follows", PATIENCE, || {
        ensure!(follower.alive()?, "it ended: {}", follower.printed()?);
        net.inside("! fixture get 10.77.0.2:9").ok()?;
        Ok(follower.printed()?.contains("\"port\":9}"))
    })?;
    Ok(follower)
}

/// Parts of the only event that has them, such as `protocol=tcp` and `destination.port=80`.
fn find<'a>(events: &'a [Value], parts: &str) -> Result<Option<&'a Value>> {
    let text = |event: &Value, path: &str| {
        let value = path.split('.').fold(event, |value, name| &value[name]);
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    let has = |event: &Value| {
        parts.split(' ').all(|part| {
            part.split_once('=').is_some_and(|(path, expected)| text(event, path) == expected)
        })
    };
    let mut found = events.iter().filter(|event| has(event));
    let first = found.next();
    let more: Vec<_> = found.collect();
    ensure!(more.is_empty(), "{parts}: {first:?}, and also {more:?}");
    Ok(first)
}

/// Waits until each of these lines is there, and once.
fn wait_for(follower: &Running<'_>, lines: &[String], limit: Duration) -> Result<()> {
    let missing = || -> Result<Vec<&String>> {
        let events = events(follower)?;
        let found = lines.iter().map(|line| Ok((line, find(&events, line)?.is_none())));
        let found: Vec<(&String, bool)> = found.collect::<Result<_>>()?;
        Ok(found.into_iter().filter(|(_, missing)| *missing).map(|(line, _)| line).collect())
    };
    wait::until_true("everything is shown", limit, || Ok(missing()?.is_empty()))
        .with_context(|| format!("{:#?} of {}", missing(), follower.printed().unwrap_or_default()))
}

fn unreachable(b: &TestBox) -> Result<()> {
    b.root("ip route add unreachable 10.88.0.1; sysctl -qw net.ipv4.tcp_syn_retries=1").ok()?;
    b.peer(
        "nft add table inet t; nft add chain inet t in '{ type filter hook input priority 0; }'
         nft add rule inet t in meta l4proto '{ tcp, udp }' th dport 82 drop",
    )
    .ok()
    .map(drop)
}

#[test]
fn flows_tell_whose_they_were_what_they_moved_and_how_they_ended() -> Result<()> {
    let b = kit::boot()?;
    unreachable(&b)?;
    let _echo = kit::serve(&b, As::Peer, "udp-echo 0.0.0.0:85")?;
    let _resetting = kit::ready(b.peer(RESETTING))?;
    let ports = "-p 0.0.0.0:8080:80/tcp -p 0.0.0.0:8081:81/udp -p 0.0.0.0:8082:82/tcp -p 0.0.0.0:8084:84/udp";
    let net = Net::with(&b, &format!("{FLAGS} {ports} -p 0.0.0.0:8083:80/tcp@192.0.2.1"))?;
    let page = kit::ready(net.inside("exec fixture http 0.0.0.0:80 page"))?;
    let udp = kit::ready(net.inside("exec fixture udp-echo 0.0.0.0:81"))?;
    let mut follower = follow(&net)?;

    let script = format!(
        "{BEGIN}
         # Not longer than the gateway tries: a later SYN would be another attempt.
         inside sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_syn_retries'
         inside fixture get peer.test:7000
         ! inside fixture get 10.77.0.2:1
         ! inside fixture get 10.88.0.1:80
         ! inside fixture get 10.77.0.2:82
         ! inside fixture get 10.0.2.2:83
         inside bash -c 'exec 3<>/dev/tcp/10.77.0.2/7001; echo x >&3; ! read -u 3 line'
         # Whoever closes before it has read everything resets.
         inside bash -c 'exec 3<>/dev/tcp/10.77.0.2/7000; printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3; read -n 1 -u 3'
         inside bash -c 'echo -n hello >/dev/udp/10.0.2.2/84 || true'
         inside bash -c 'echo -n hello >/dev/udp/10.77.0.2/82; echo -n hello >/dev/udp/10.77.0.2/86'
         inside fixture udp-ask 10.77.0.2:85 hello
         inside ping -c 3 -i 0.2 -W 60 10.77.0.2
         ! inside ping -c 1 -W 1 10.88.0.1
         {END}"
    );
    net.inside(&script).ok()?;
    b.peer("fixture get 10.77.0.1:8080").ok()?;
    b.peer("fixture udp-ask 10.77.0.1:8081 hello").ok()?;
    b.peer("! fixture get 10.77.0.1:8082").ok()?;
    b.peer("! fixture get 10.77.0.1:8083").ok()?;
    b.peer("bash -c 'echo -n hello >/dev/udp/10.77.0.1/8084'").ok()?;
    let held = b
        .peer("exec bash -c 'exec 3<>/dev/tcp/10.77.0.1/8080; echo held; exec sleep 100'")
        .spawn()?;
    wait::until_true("it is connected", PATIENCE, || Ok(held.printed()?.contains("held")))?;
    net.ctl("remove-ports 1").ok()?;

    let out = |line: &str| format!("event=flow direction=outbound containerIp=172.20.0.2 {line}");
    let to = |port: u16, line: &str| {
        out(&format!("destination.ip=10.77.0.2 destination.port={port} {line}"))
    };
    let question = "GET / HTTP/1.0\r\nHost: peer.test:7000\r\n\r\n".len();
    let body = "peer from 10.77.0.1\n";
    let answer = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).len();
    let published = |port: u16, line: &str| {
        let client = "direction=published client.ip=10.77.0.2";
        format!("event=flow {client} destination.port={port} {line}")
    };
    let page_answer = answer - body.len() + "page from 10.77.0.2\n".len();
    let page_question = question - "peer.test:7000".len() + "10.77.0.1:8080".len();
    let mut lines = vec![
        to(
            7000,
            &format!("protocol=tcp end=closed name=peer.test bytesOut={question} bytesIn={answer}"),
        ),
        to(7000, "protocol=tcp end=clientReset bytesOut=18"),
        to(7001, "protocol=tcp end=serverReset bytesOut=2 bytesIn=0"),
        to(1, "protocol=tcp end=refused bytesOut=0"),
        to(82, "protocol=tcp end=timedOut"),
        out("destination.ip=10.88.0.1 protocol=tcp end=unreachable"),
        out("destination.ip=10.0.2.2 destination.port=83 protocol=tcp end=denied"),
        out("destination.ip=10.0.2.2 destination.port=84 protocol=udp end=denied"),
        published(
            8080,
            &format!(
                "destination.ip=0.0.0.0 containerIp=10.0.2.100 protocol=tcp end=closed bytesIn={page_question} bytesOut={page_answer}"
            ),
        ),
        published(8080, "containerIp=10.0.2.100 protocol=tcp end=withdrawn"),
        published(8082, "containerIp=10.0.2.100 protocol=tcp end=refused"),
        published(8083, "containerIp=null protocol=tcp end=denied"),
    ];
    wait_for(&follower, &lines, PATIENCE)?;
    // What only ends when it has been silent for long.
    lines.extend([
        to(82, "protocol=udp end=timedOut bytesOut=5 bytesIn=0"),
        to(86, "protocol=udp end=refused bytesOut=5 bytesIn=0"),
        to(85, "protocol=udp end=idle"),
        out("destination.ip=10.77.0.2 destination.port=null protocol=icmp end=idle bytesOut=168 bytesIn=168"),
        out("destination.ip=10.88.0.1 destination.port=null protocol=icmp end=unreachable"),
        published(8081, "containerIp=10.0.2.100 protocol=udp end=idle bytesIn=5"),
        published(8084, "containerIp=10.0.2.100 protocol=udp end=refused bytesIn=5 bytesOut=0"),
    ]);
    wait_for(&follower, &lines, IDLE)?;
    let seen = events(&follower)?;
    let idle = find(&seen, &to(85, "protocol=udp end=idle"))?.context("it was there")?;
    ensure!(idle["durationMs"].as_u64() > Some(120_000), "{idle}");
    ensure!(idle["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{idle}");
    ensure!(!seen.iter().any(|event| event["destination"]["port"] == 53), "DNS: {seen:?}");

    ensure!(follower.alive()?, "{}", follower.printed()?);
    follower.signal("INT")?;
    ensure!(follower.wait(PATIENCE)?.code == 0, "Ctrl-C is no failure");
    drop((page, udp, held));
    net.stop()
}

#[test]
fn flows_go_on_when_the_gateway_is_replaced_and_when_a_follower_goes_away() -> Result<()> {
    let b = kit::boot()?;
    let net = Net::start(&b)?;
    let (one, two) = (follow(&net)?, follow(&net)?);
    let text = net.b.user(&format!("exec rootlessctl {SOCKET} flows --follow")).spawn()?;
    wait::until_true("it follows", PATIENCE, || Ok(text.printed()?.contains("NAME\n")))?;
    net.inside("fixture get 10.77.0.2:7000").ok()?;
    let flow = "event=flow destination.port=7000 end=closed";
    wait_for(&one, &[flow.to_owned()], PATIENCE)?;
    wait_for(&two, &[flow.to_owned()], PATIENCE)?;
    // One that hangs up without a word.
    drop(two);
    let old = net.gateway()?.0;
    b.signal(old.pid, "KILL")?;
    wait_for(&one, &["event=restarted".to_owned()], PATIENCE)?;
    net.inside("fixture get peer.test:7000").ok()?;
    wait_for(&one, &[format!("{flow} name=peer.test")], PATIENCE)?;
    wait::until_true("the text form shows the same", PATIENCE, || {
        let printed = text.printed()?;
        Ok(printed.contains("the gateway was restarted") && printed.contains("  peer.test\n"))
    })?;
    let printed = text.printed()?;
    let row = "10.0.2.100       outbound   tcp    10.77.0.2:7000";
    ensure!(printed.contains(row) && printed.lines().count() >= 4, "{printed}");
    // There is room for so many; those who left have made room.
    let mut many = Vec::new();
    for _ in 0..14 {
        many.push(follow(&net)?);
    }
    let refused = net.ctl("flows --follow").fails_with(1)?;
    ensure!(refused.contains("too many clients follow the flow log\nhint: "), "{refused}");
    drop(many);
    wait::until_true("there is room again", PATIENCE, || {
        net.ctl("flows --follow").limit(1).run().map(|out| out.code == 137)
    })?;
    // The end of rootlesskit ends them.
    net.stop()?;
    let out = text.wait(PATIENCE)?;
    ensure!(out.code == 1 && out.stderr.contains("RootlessKit has closed the flow log"), "{out}");
    ensure!(out.stderr.matches("instead of the names of containers").count() == 1, "{out}");
    ensure!(one.wait(PATIENCE)?.code == 1, "it ended in order");
    Ok(())
}

#[test]
fn flows_that_a_slow_follower_misses_are_counted_and_others_see_them() -> Result<()> {
    const MANY: u64 = 20_000;
    let b = kit::boot()?;
    let net = Net::start(&b)?;
    let (slow, quick) = (follow(&net)?, follow(&net)?);
    slow.signal("STOP")?;
    // Each of these datagrams is denied, so each of them is an event.
    let thousand =
        "for i in $(seq 1000); do echo >/dev/udp/10.0.2.2/9; done 2>/dev/null; sleep 0.2";
    let burst = format!("for j in $(seq {}); do {thousand}; done", MANY / 1000);
    net.inside(&format!("exec bash -c '{burst}'")).limit(600).ok()?;
    let all = kit::number(&net.stats()?, &["events", "denied"]);
    ensure!(all >= MANY / 2, "only {all} were denied");
    // How many it shows, and how many it says that it does not.
    let seen = |follower: &Running<'_>| -> Result<(u64, u64)> {
        let events = events(follower)?;
        let shown = events.iter().filter(|event| event["end"] == "denied").count() as u64;
        let missed = events.iter().map(|event| kit::number(event, &["count"])).sum();
        Ok((shown, missed))
    };
    let complete = |follower: &Running<'_>| {
        wait::until_true("all is shown or counted", PATIENCE, || {
            let (shown, missed) = seen(follower)?;
            Ok(shown + missed >= all)
        })?;
        let (shown, missed) = seen(follower)?;
        ensure!(shown + missed == all, "{shown} shown and {missed} missed of {all}");
        Ok((shown, missed))
    };
    let (shown_quickly, _) = complete(&quick)?;
    slow.signal("CONT")?;
    let (shown, missed) = complete(&slow)?;
    ensure!(missed > 0 && shown < shown_quickly, "{shown} of {shown_quickly}, {missed} missed");
    drop((slow, quick));
    net.stop()
}

#[test]
fn flows_need_the_gateway_and_say_so() -> Result<()> {
    let b = kit::boot()?;
    let net =
        Net::with(&b, "--net=slirp4netns --port-driver=builtin --copy-up=/etc --copy-up=/run")?;
    let refused = net.ctl("flows --follow").fails_with(1)?;
    let expected = "error: network driver \"slirp4netns\" has no flow log\nhint: use --net=gateway";
    ensure!(refused.contains(expected), "{refused}");
    net.stop()
}
