//! Sudden death of each process, in each phase: no orphan, no hang, and the same state folder works again at once.

use tests::{PATIENCE, Result, Running, Suite, TestBox, ensure, wait};

const STATE: &str = "/tmp/s";

/// Flags of a start that goes through every phase.
const FULL: &str = "--state-dir=/tmp/s --net=slirp4netns --port-driver=builtin -p 0.0.0.0:8080:80/tcp --copy-up=/etc --copy-up=/run";

/// The state folder works again: nothing of the dead one is in the way.
fn starts_again(b: &TestBox) -> Result<()> {
    b.assert_no_processes()?;
    b.user(&format!("rootlesskit {FULL} sh -c 'rootlessctl list-ports | grep -q 8080'")).ok()?;
    b.assert_clean(&[])
}

fn up<'b>(b: &'b TestBox, flags: &str) -> Result<Running<'b>> {
    let mut kit = b.user(&format!("exec rootlesskit {FULL} {flags} sleep infinity")).spawn()?;
    wait::until_true("it runs", PATIENCE, || {
        ensure!(kit.alive()?, "ended: {}", kit.printed()?);
        Ok(b.user_processes().iter().any(|p| p.program() == "sleep"))
    })?;
    Ok(kit)
}

#[test]
fn a_killed_parent_takes_everything_with_it() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for flags in ["", "--pidns", "--pidns --reaper=false", "--detach-netns"] {
        let kit = up(&b, flags)?;
        kit.signal("KILL")?;
        assert_eq!(kit.wait(PATIENCE)?.code, 137);
        starts_again(&b)?;
    }
    Ok(())
}

#[test]
fn a_killed_child_takes_everything_with_it() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for flags in ["", "--pidns", "--detach-netns"] {
        let kit = up(&b, flags)?;
        let child = b.read("/tmp/s/child_pid")?.parse()?;
        b.signal(child, "KILL")?;
        assert_eq!(kit.wait(PATIENCE)?.code, 255, "{flags}");
        ensure!(!b.exists(STATE), "the state folder stays");
        starts_again(&b)?;
    }
    Ok(())
}

#[test]
fn a_killed_target_is_status_255() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for flags in ["", "--pidns", "--detach-netns"] {
        let kit = up(&b, flags)?;
        b.signal(b.process("sleep")?.pid, "KILL")?;
        let out = kit.wait(PATIENCE)?;
        assert_eq!(out.code, 255, "{flags}: {out}");
        ensure!(out.stderr.contains("killed"), "{out}");
        starts_again(&b)?;
    }
    Ok(())
}

#[test]
fn a_killed_network_helper_is_said_and_replaced() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for (net, program) in [("slirp4netns", "slirp4netns"), ("pasta", "pasta")] {
        let target =
            "sh -c 'until [ -e /tmp/stop ]; do sleep 0.1; done; fixture get peer.test:7000'";
        let flags =
            format!("--state-dir=/tmp/s --net={net} --disable-host-loopback --copy-up=/etc");
        let kit = b.user(&format!("exec rootlesskit {flags} {target}")).spawn()?;
        let helper = |not: i32| -> Option<i32> {
            // pasta may run as one of its variants (pasta.avx2).
            let found = b
                .user_processes()
                .into_iter()
                .find(|p| p.program().starts_with(program) && p.state != 'Z');
            found.map(|p| p.pid).filter(|pid| *pid != not)
        };
        wait::until_true("it runs", PATIENCE, || Ok(b.exists("/tmp/s/api.sock")))?;
        let first = wait::until("the helper runs", PATIENCE, || Ok(helper(0)))?;
        b.signal(first, "KILL")?;
        wait::until("another helper runs", PATIENCE, || Ok(helper(first)))?;
        wait::until_true("it is said", PATIENCE, || Ok(kit.printed()?.contains(program)))?;
        b.user("nsenter -U -m -n --preserve-credentials -t $(cat /tmp/s/child_pid) sh -c \
                'n=0; until fixture get 10.77.0.2:7000 2>/dev/null || [ $n = 600 ]; do n=$((n+1)); sleep 0.1; done'")
            .ok()?;
        b.user("touch /tmp/stop").ok()?;
        let out = kit.wait(PATIENCE)?;
        assert_eq!((out.code, out.stdout.as_str()), (0, "peer from 10.77.0.1\n"), "{net}: {out}");
        b.user("rm /tmp/stop").ok()?;
        b.assert_clean(&[])?;
    }
    Ok(())
}

/// A program on PATH that says it was reached, then blocks until it is killed: it holds a phase of the start.
fn hold(b: &TestBox, program: &str) -> Result<()> {
    b.script(&format!("/usr/local/bin/{program}"), "#!/bin/sh\ntouch /tmp/held\nexec sleep 1000\n")
}

fn unhold(b: &TestBox) -> Result<()> {
    b.root(
        "rm -f /tmp/held; cd /usr/local/bin; rm -f newuidmap newgidmap getsubids slirp4netns-held",
    )
    .ok()
    .map(drop)
}

/// Starts with one phase held, and waits until it got there.
fn held<'b>(b: &'b TestBox, program: &str) -> Result<Running<'b>> {
    let kit = if program == "slirp4netns" {
        // The feature probe has to pass; the start itself hangs.
        b.script(
            "/usr/local/bin/slirp4netns-held",
            "#!/bin/sh\n[ \"$1\" != --help ] || exec slirp4netns --help\ntouch /tmp/held\nexec sleep 1000\n",
        )?;
        b.user(&format!("exec rootlesskit {FULL} --slirp4netns-binary=/usr/local/bin/slirp4netns-held sleep infinity")).spawn()?
    } else {
        hold(b, program)?;
        let source = if program == "getsubids" { "--subid-source=dynamic" } else { "" };
        b.user(&format!("exec rootlesskit {FULL} {source} sleep infinity")).spawn()?
    };
    // It has said so before it became what is looked for.
    wait::until_true(&format!("{program} is reached"), PATIENCE, || {
        let blocks = || b.user_processes().iter().any(|p| p.program() == "sleep");
        Ok(b.exists("/tmp/held") && blocks())
    })?;
    Ok(kit)
}

#[test]
fn death_in_each_phase_of_the_start() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for phase in ["getsubids", "newuidmap", "newgidmap", "slirp4netns"] {
        // The parent dies: everything else goes.
        let kit = held(&b, phase)?;
        kit.signal("KILL")?;
        kit.wait(PATIENCE)?;
        unhold(&b)?;
        starts_again(&b).map_err(|e| e.context(format!("{phase}: parent killed")))?;

        // A stop request in the middle of the start: it ends, and cleans up.
        let kit = held(&b, phase)?;
        kit.signal("TERM")?;
        let out = kit.wait(PATIENCE)?;
        ensure!(out.code != 0, "{phase}: {out}");
        unhold(&b)?;
        starts_again(&b).map_err(|e| e.context(format!("{phase}: parent stopped")))?;

        // The held helper dies: an error that names it, not a hang.
        let kit = held(&b, phase)?;
        for helper in b.user_processes().iter().filter(|p| p.program() == "sleep") {
            // Once the first is dead rootlesskit itself ends the others.
            let _ = b.signal(helper.pid, "KILL");
        }
        let out = kit.wait(PATIENCE)?;
        assert_eq!(out.code, 1, "{phase}: {out}");
        ensure!(out.stderr.contains(phase), "{out}");
        unhold(&b)?;
        starts_again(&b).map_err(|e| e.context(format!("{phase}: helper killed")))?;

        // The child dies.
        if phase != "getsubids" {
            let kit = held(&b, phase)?;
            let parent = kit.pid();
            let parent = b.processes().into_iter().find(|p| p.pid == parent).map(|p| p.host_pid);
            let mut children = b.user_processes().into_iter();
            let child = children
                .find(|p| Some(p.host_parent) == parent && p.command.contains("--state-dir"));
            let child = child.ok_or_else(|| no_child(&b))?;
            b.signal(child.pid, "KILL")?;
            let out = kit.wait(PATIENCE)?;
            ensure!(out.code != 0, "{phase}: {out}");
            unhold(&b)?;
            starts_again(&b).map_err(|e| e.context(format!("{phase}: child killed")))?;
        }
    }
    Ok(())
}

fn no_child(b: &TestBox) -> tests::Error {
    tests::Error::msg(format!("no child among {:#?}", b.user_processes()))
}

#[test]
fn a_stopped_target_does_not_keep_a_killed_parents_children_alive() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit = up(&b, "")?;
    b.signal(b.process("sleep")?.pid, "STOP")?;
    kit.signal("KILL")?;
    kit.wait(PATIENCE)?;
    starts_again(&b)
}

#[test]
fn a_failing_start_ends_and_cleans_up() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    // Each of these made the original hang or leave things behind.
    for flags in [
        "--net=slirp4netns --port-driver=builtin --copy-up=/nonexistent",
        "--pidns --reaper=nonsense",
        "--copy-up=/run --propagation=rshared",
        "--net=slirp4netns --slirp4netns-binary=/bin/false",
    ] {
        let out = b.user(&format!("rootlesskit {flags} true")).run()?;
        assert_eq!(out.code, 1, "{flags}: {out}");
        b.assert_clean(&[])?;
    }
    Ok(())
}

#[test]
fn a_port_survives_a_shortage_of_descriptors() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit = b
        .user("ulimit -Hn 64; exec rootlesskit --state-dir=/tmp/s --net=none --port-driver=builtin -p 0.0.0.0:8080:80/tcp fixture tcp-echo 0.0.0.0:80")
        .spawn()?;
    wait::until_true("the target serves", PATIENCE, || Ok(kit.printed()?.contains("ready")))?;
    let script = "i=0; while [ $i -lt 100 ]; do sleep 2 | nc -N -w 3 127.0.0.1 8080 >/dev/null 2>&1 & i=$((i+1)); done; wait";
    b.user(script).run()?;
    let ask = "echo hello | nc -N -w 5 127.0.0.1 8080";
    wait::until_true("the port answers again", PATIENCE, || {
        Ok(b.user(ask).run()?.stdout.contains("hello"))
    })?;
    kit.signal("TERM")?;
    kit.wait(PATIENCE)?;
    b.assert_clean(&[])
}

/// Starts again and again, sends `signal` to the parent a little later each time, and lists exit statuses.
///
/// A shell without job control starts background commands with SIGINT ignored. `env` undoes that, so a signal may be
/// sent only when `env` has become rootlesskit: before, SIGINT would be lost, and the loop would wait forever.
fn sweep(b: &TestBox, flags: &str, signal: &str) -> Result<String> {
    let script = format!(
        "i=0; while [ $i -lt 60 ]; do
             env --default-signal=INT rootlesskit {flags} sleep infinity & pid=$!
             until read -r name < /proc/$pid/comm && [ \"$name\" = rootlesskit ]; do :; done
             sleep 0.$(printf %03d $((i * 3))); kill -{signal} $pid; wait $pid; echo $?
             i=$((i + 1))
         done"
    );
    b.user(&script).limit(120).ok()
}

#[test]
fn death_of_the_parent_at_any_moment_leaves_no_process_and_no_lock() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    sweep(&b, FULL, "KILL")?;
    starts_again(&b)?;
    sweep(&b, "--state-dir=/tmp/s --net=pasta --port-driver=implicit --pidns", "KILL")?;
    starts_again(&b)
}

#[test]
fn a_stop_request_at_any_moment_ends_the_start_and_leaves_nothing() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for signal in ["TERM", "INT"] {
        let statuses = sweep(&b, FULL, signal)?;
        ensure!(!statuses.lines().any(|status| status == "0"), "{statuses}");
        b.assert_clean(&[]).map_err(|error| error.context(statuses))?;
    }
    Ok(())
}
