//! Changes while it runs, and a gateway process that is replaced.

use tests::egress::{goes_on, write};
use tests::{PATIENCE, Result, ensure, wait};

use super::{Egress, FILE, Who};
use crate::flows::follow;
use crate::kit::{self, events, number};

const OPEN: &str = "[[rule]]\nname = 'other'\naction = 'deny'\nto = '192.0.2.1'\n";
const CLOSED: &str =
    "[[rule]]\nname = 'eleven'\naction = 'deny'\nto = ['10.77.0.11', 'fd77::11']\n";

#[test]
fn egress_a_change_is_in_force_within_a_second_however_the_file_is_changed() -> Result<()> {
    let b = kit::boot()?;
    let e = Egress::start(&b, "", OPEN)?;
    write(&b, "/home/tester/open", OPEN)?;
    write(&b, "/home/tester/closed", CLOSED)?;
    b.user("mkdir d && cp open closed d").ok()?;
    // One shell, so that nothing but the product takes time.
    let flip = |how: &str, state: &str, outcome: &str| -> Result<u64> {
        let script = format!(
            "cd /home/tester; {}; begin=$(date +%s%N)
             until fixture probe 5 tcp/10.77.0.11:7000 | grep -q {outcome}; do :; done
             echo $((($(date +%s%N) - begin) / 1000000))",
            how.replace("STATE", state)
        );
        Ok(e.net.inside(&script).ok()?.trim().parse()?)
    };
    let mut times = Vec::new();
    for how in [
        "cp STATE new; mv new egress.toml",
        "cat STATE >egress.toml",
        "rm egress.toml; cp STATE egress.toml",
        "ln -s d/STATE new; mv -T new egress.toml",
        "cp STATE d/new; mv d/new d/closed; cp d/closed d/open; ln -s d/open new; mv -T new egress.toml",
        "cp STATE d/open",
        "cp STATE d/new; mv d/new d/open",
    ] {
        for (state, outcome) in [("closed", "EHOSTUNREACH"), ("open", "connected")] {
            times.push(flip(how, state, outcome)?);
        }
    }
    println!("in force after {times:?} ms");
    // On a busy machine, some take longer.
    let slow = times.iter().filter(|took| **took > 1000).count();
    ensure!(slow <= times.len() / 2, "{times:?}");
    ensure!(!e.net.kit.printed()?.contains("egress.toml: line"), "{}", e.net.kit.printed()?);
    b.user("rm -r d open closed").ok()?;
    e.stop()
}

#[test]
fn egress_what_a_change_forbids_ends_and_everything_else_goes_on() -> Result<()> {
    let b = kit::boot()?;
    for more in ["", "--detach-netns"] {
        let e = Egress::start(&b, more, OPEN)?;
        let follower = follow(&e.net)?;
        let mut ending = Vec::new();
        let mut staying = Vec::new();
        for (who, closed, open) in
            [(Who::One, "10.77.0.11", "10.77.0.12"), (Who::Namespace, "[fd77::11]", "10.77.0.12")]
        {
            for (how, port) in [("tcp", 7010), ("udp", 7011)] {
                ending.push(e.keep(who, how, &format!("{closed}:{port}"))?);
                staying.push(e.keep(who, how, &format!("{open}:{port}"))?);
            }
        }
        let ping = e.command(Who::One, "exec ping -i 0.2 -W 60 10.77.0.11").spawn()?;
        wait::until_true("it is answered", PATIENCE, || {
            Ok(ping.printed()?.contains("bytes from"))
        })?;
        // Connections whose client is silent hear of it, too; so does the server.
        let silent = e
            .command(Who::Two, "exec bash -c 'exec 3<>/dev/tcp/10.77.0.11/7010; read -u 3 a; echo held; cat <&3; echo ended'")
            .spawn()?;
        wait::until_true("it is connected", PATIENCE, || Ok(silent.printed()?.contains("held")))?;
        write(&b, FILE, CLOSED)?;
        for kept in ending {
            let out = kept.wait(PATIENCE)?;
            let why = out.stdout.lines().last().unwrap_or_default().to_owned();
            let expected =
                ["ended ECONNRESET", "ended EPIPE", "ended EHOSTUNREACH", "ended EACCES"];
            ensure!(expected.contains(&why.as_str()), "{out}");
        }
        wait::until_true("the ping ends", PATIENCE, || {
            Ok(ping.printed()?.contains("Packet filtered"))
        })?;
        let out = silent.wait(PATIENCE)?;
        ensure!(out.stdout.ends_with("ended\n") && out.stderr.contains("reset"), "{out}");
        // Nothing is left at the other machine.
        wait::until_true("the server's connections have ended", PATIENCE, || {
            Ok(b.peer("ss -Htn state established dst 10.77.0.1 src 10.77.0.11").ok()?.is_empty())
        })?;
        staying.iter_mut().try_for_each(goes_on)?;
        // How they ended is in the flow log.
        wait::until_true("it is logged", PATIENCE, || {
            let events = events(&follower)?;
            let has = |protocol: &str, ip: &str, bytes: bool| {
                events.iter().any(|event| {
                    event["protocol"] == protocol
                        && event["destination"]["ip"] == ip
                        && event["end"] == "denied"
                        && event["rule"] == "eleven"
                        && (number(event, &["bytesIn"]) > 0) == bytes
                })
            };
            Ok(["tcp", "udp"]
                .iter()
                .all(|p| has(p, "10.77.0.11", true) && has(p, "fd77::11", true))
                && has("icmp", "10.77.0.11", true))
        })
        .map_err(|error| error.context(follower.printed().unwrap_or_default()))?;
        drop((staying, ping, follower));
        e.stop()?;
    }
    Ok(())
}

#[test]
fn egress_a_broken_change_leaves_the_last_policy_in_force() -> Result<()> {
    let b = kit::boot()?;
    let e = Egress::start(&b, "", CLOSED)?;
    let eleven = "tcp/10.77.0.11:7000";
    let said = |part: &str| -> Result<usize> { Ok(e.net.kit.printed()?.matches(part).count()) };
    // (the change, what is said about it, in the log and by `policy show`)
    for (change, part) in [
        (format!("cat >{FILE}"), "line 3"),
        (format!("rm {FILE}"), "No such file"),
        (format!("mkdir {FILE}"), "is a directory"),
    ] {
        let broken = OPEN.replace("action = 'deny'", "action = 'forbid'");
        b.user(&change).input(broken).ok()?;
        wait::until_true("it is shown", PATIENCE, || {
            Ok(e.net.ctl("policy show").ok()?.contains(part))
        })
        .map_err(|error| {
            error.context(format!("{change}: {:?}", e.net.ctl("policy show").run()))
        })?;
        wait::until_true("it is logged", PATIENCE, || Ok(said(part)? > 0))?;
        e.expect(Who::One, &[(eleven, "denied"), ("tcp/10.77.0.12:7000", "open")])?;
        ensure!(said(part)? == 1, "said more than once: {}", e.net.kit.printed()?);
        // So does a gateway process that is replaced meanwhile.
        let old = e.net.gateway()?.0.pid;
        b.signal(old, "KILL")?;
        e.becomes(Who::One, "tcp/10.77.0.12:7000", "open")?;
        e.expect(Who::One, &[(eleven, "denied")])?;
    }
    b.user(&format!("rmdir {FILE}")).ok()?;
    write(&b, FILE, OPEN)?;
    e.becomes(Who::One, eleven, "open")?;
    let show = e.net.ctl("policy show").ok()?;
    ensure!(!show.contains("line 3") && !show.contains("is a directory"), "{show}");
    e.stop()
}

#[test]
fn egress_a_gateway_process_that_takes_over_enforces_from_the_first_packet() -> Result<()> {
    let b = kit::boot()?;
    let e = Egress::start(&b, "", OPEN)?;
    write(&b, FILE, CLOSED)?;
    e.becomes(Who::One, "tcp/10.77.0.11:7000", "denied")?;
    // Tries without a pause, over TCP and UDP, with and without a name for it.
    let hammer = e
        .command(
            Who::One,
            "while :; do fixture probe 2 tcp/10.77.0.11:7000 udp/10.77.0.11:7011; fixture probe 2 tcp/10.77.0.12:7000; done",
        )
        .spawn()?;
    let count = |what: &str| -> Result<usize> {
        Ok(hammer.printed()?.lines().filter(|line| line.contains(what)).count())
    };
    for round in 0..3 {
        let before = count("10.77.0.12:7000 connected")?;
        wait::until_true("it tries", PATIENCE, || {
            Ok(count("10.77.0.12:7000 connected")? > before + 3)
        })?;
        b.signal(e.net.gateway()?.0.pid, "KILL")?;
        wait::until_true("it is replaced", PATIENCE, || {
            Ok(e.net.stats().is_ok_and(|stats| number(&stats, &["restarts"]) == round + 1))
        })?;
    }
    let denied = count("10.77.0.11:7000 EHOSTUNREACH")?;
    wait::until_true("it is denied again", PATIENCE, || {
        Ok(count("10.77.0.11:7000 EHOSTUNREACH")? > denied + 3)
    })?;
    let printed = hammer.printed()?;
    let through = printed.lines().filter(|line| {
        line.contains("10.77.0.11") && (line.contains("connected") || line.contains("answered"))
    });
    assert_eq!(through.collect::<Vec<_>>(), [""; 0], "{printed}");
    drop(hammer);
    e.stop()
}
