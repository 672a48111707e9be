//! Sloppy surroundings: broken standard streams, odd umasks, stale variables, helpers that misbehave. The work goes
//! on, or ends in time with the right status.

use std::time::{Duration, Instant};

use tests::{PATIENCE, Result, Suite, TestBox, ensure, need, wait};

const SLIRP: &str = "--net=slirp4netns --disable-host-loopback --copy-up=/etc";

/// A slirp4netns that answers questions like the real one and otherwise does what `body` says.
fn fake_slirp(b: &TestBox, body: &str) -> Result<()> {
    b.script(
        "/tmp/slirp",
        &format!("#!/bin/sh\nif [ \"$1\" = --help ]; then exec slirp4netns --help; fi\n{body}\n"),
    )
}

#[test]
fn a_broken_standard_error_changes_no_exit_status() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.user("rootlesskit --net=none sh -c 'exit 7' 2>/dev/full").fails_with(7)?;
    b.user("rootlesskit --nonsense >/dev/full 2>/dev/full").fails_with(1)?;
    b.user("rootlesskit --net=none sh -c 'exit 7' <&- >&- 2>&-").fails_with(7)?;
    // The reader goes away while it serves; what it has to say then has no listener.
    let line = format!(
        "rootlesskit --debug {SLIRP} sh -c 'sleep 1; pkill slirp4netns; sleep 1; exit 7' 2>&1 >/dev/null | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    );
    b.user(&format!("exec bash -c '{}'", line.replace('\'', r"'\''"))).fails_with(7)?;
    b.assert_clean(&[])
}

#[test]
fn listen_fds_that_promise_too_much() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for (vars, fds) in [
        ("LISTEN_FDS=2 LISTEN_PID=1", "0 1 2"),
        ("LISTEN_FDS=20 LISTEN_PID=1", "0 1 2"),
        ("LISTEN_FDS=60000 LISTEN_PID=1", "0 1 2"),
    ] {
        let said = b
            .user(&format!(
                "{vars} rootlesskit --net=none sh -c 'cd /proc/$$/fd; for fd in *; do [ $fd -lt 10 ] && [ -e $fd ] && printf \"%s \" $fd; done; true'"
            ))
            .ok()?;
        assert_eq!(said.trim(), fds, "{vars}");
    }
    // A hole in the row, and one socket behind it.
    b.user("LISTEN_FDS=6 LISTEN_PID=1 rootlesskit --net=none sh -c 'read l <&5; test -n \"$l\"' 5</etc/passwd")
        .ok()?;
    b.assert_clean(&[])
}

#[test]
fn sockets_are_private_and_names_resolve_whatever_the_umask() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for umask in ["000", "022", "077"] {
        let flags = format!("{SLIRP} --port-driver=slirp4netns --state-dir=/tmp/s");
        let said = b
            .user(&format!(
                "umask {umask}; rootlesskit {flags} stat -Lc '%A' /tmp/s/api.sock /tmp/s/.s4nn.sock /etc/hosts /etc/resolv.conf"
            ))
            .ok()?;
        let modes: Vec<&str> = said.split_whitespace().collect();
        need_modes(&modes, umask)?;
    }
    b.assert_clean(&[])
}

fn need_modes(modes: &[&str], umask: &str) -> Result<()> {
    ensure!(modes.len() == 4, "umask {umask}: {modes:?}");
    for socket in &modes[..2] {
        // Who may write to a socket may connect to it.
        let writable = [5, 8].map(|at| socket.as_bytes().get(at) == Some(&b'w'));
        ensure!(socket.starts_with('s') && writable == [false; 2], "umask {umask}: {modes:?}");
    }
    ensure!(modes[2..] == ["-rw-r--r--", "-rw-r--r--"], "umask {umask}: {modes:?}");
    Ok(())
}

#[test]
fn an_end_by_a_real_time_signal_is_an_ordinary_end() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let told = b.user("rootlesskit sh -c 'kill -40 $$'").fails_with(255)?;
    ensure!(told.contains("signal: signal 40"), "{told}");
    // An orphan that ends so is collected by pid 1, which has to go on.
    b.user(
        "rootlesskit --pidns sh -c '(sh -c \"sleep 0.2; kill -40 \\$\\$\" &) ; sleep 0.6; exit 5'",
    )
    .fails_with(5)?;
    b.assert_clean(&[])
}

#[test]
fn the_helper_hears_signals_but_not_those_of_our_terminal() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit = b.user(&format!("exec rootlesskit {SLIRP} sleep infinity")).spawn()?;
    // The target runs when the helper is ready; before that a slirp4netns may be one that is asked for its version.
    wait::until_true("the target", PATIENCE, || Ok(b.process("sleep").is_ok()))?;
    let helper = b.process("slirp4netns")?;
    let blocked = b.root(&format!("grep SigBlk: /proc/{}/status", helper.pid)).ok()?;
    ensure!(blocked.trim().ends_with("0000000000000000"), "{blocked}");
    let group = |pid: i64| b.root(&format!("ps -o pgid= -p {pid}")).ok();
    ensure!(group(helper.pid.into())? != group(kit.pid().into())?, "the same process group");
    kit.signal("TERM")?;
    kit.wait(PATIENCE)?;
    b.assert_clean(&[])
}

#[test]
fn what_a_dead_helper_leaves_running_delays_nothing() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for heir in ["sleep 600 & exit 4", "timeout 600 yes & exit 4"] {
        fake_slirp(&b, heir)?;
        let out =
            b.user(&format!("rootlesskit {SLIRP} --slirp4netns-binary=/tmp/slirp true")).run()?;
        ensure!(out.code == 1, "{heir}: {out}");
        ensure!(out.stderr.contains("slirp4netns failed: exit status 4"), "{heir}: {out}");
        ensure!(out.stderr.len() < 20_000, "{heir}: {} bytes", out.stderr.len());
        for heir in b.user_processes() {
            // One may end with the other.
            b.signal(heir.pid, "KILL").ok();
        }
    }
    b.assert_clean(&["/tmp/slirp"])
}

#[test]
fn a_helper_that_prints_blank_lines_is_still_listened_to() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    fake_slirp(
        &b,
        "(sleep 0.3; echo; sleep 0.3; head -c 300000 /dev/zero | tr '\\0' x; touch /tmp/all) & exec slirp4netns \"$@\"",
    )?;
    b.user(&format!(
        "rootlesskit {SLIRP} --slirp4netns-binary=/tmp/slirp sh -c 'until test -e /tmp/all; do sleep 0.1; done'"
    ))
    .ok()?;
    b.assert_clean(&["/tmp/all", "/tmp/slirp"])
}

#[test]
fn a_stopped_slirp4netns_does_not_hold_up_the_end() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit = b
        .user(&format!(
            "exec rootlesskit {SLIRP} --port-driver=slirp4netns --state-dir=/tmp/s sleep infinity"
        ))
        .spawn()?;
    wait::until_true("the API", PATIENCE, || Ok(b.exists("/tmp/s/api.sock")))?;
    b.signal(b.process("slirp4netns")?.pid, "STOP")?;
    b.user("for p in $(seq 9001 9030); do rootlessctl --socket /tmp/s/api.sock add-ports 127.0.0.1:$p:80/tcp >/dev/null 2>&1 & done; sleep 1")
        .run()?;
    let begin = Instant::now();
    kit.signal("TERM")?;
    assert_eq!(kit.wait(PATIENCE)?.code, 255);
    // One client after the other would take twice as long.
    ensure!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    wait::until_true("clients end", PATIENCE, || Ok(b.user_processes().is_empty()))?;
    b.assert_clean(&[])
}

#[test]
fn a_client_that_says_half_a_request_does_not_hold_up_the_end() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    need!(b.root("python3 -c pass").run()?.code == 0, "python3 in the box");
    let kit = b.user("exec rootlesskit --net=none --state-dir=/tmp/s sleep infinity").spawn()?;
    wait::until_true("the API", PATIENCE, || Ok(b.exists("/tmp/s/api.sock")))?;
    let client = b
        .user("exec python3 -c 'import socket,time; s=socket.socket(socket.AF_UNIX); s.connect(\"/tmp/s/api.sock\"); s.send(b\"GET /v1/in\"); open(\"/tmp/sent\",\"w\"); s.recv(1)'")
        .spawn()?;
    wait::until_true("half a request", PATIENCE, || Ok(b.exists("/tmp/sent")))?;
    kit.signal("TERM")?;
    assert_eq!(kit.wait(PATIENCE)?.code, 255);
    client.wait(PATIENCE)?;
    b.assert_clean(&["/tmp/sent"])
}

#[test]
fn somebody_elses_files_in_place_of_our_state_directory_stay() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit = b.user("exec rootlesskit --net=none --state-dir=/tmp/s sleep infinity").spawn()?;
    wait::until_true("the API", PATIENCE, || Ok(b.exists("/tmp/s/api.sock")))?;
    b.user("rm -r /tmp/s && mkdir /tmp/s && echo mine > /tmp/s/hosts").ok()?;
    kit.signal("TERM")?;
    kit.wait(PATIENCE)?;
    assert_eq!(b.read("/tmp/s/hosts")?, "mine\n");
    b.user("rm -r /tmp/s").ok()?;
    b.assert_clean(&[])
}

#[test]
fn ctrl_z_gives_the_terminal_back_and_fg_goes_on() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    // Each key is pressed when the one before has had its effect; lines wait in the terminal for whoever reads them.
    let typed = format!(
        "until_there() {{ until [ -e $1 ]; do sleep 0.1; done; }}
         echo 'rootlesskit {SLIRP} sh -c \"touch /tmp/up; until [ -e /tmp/end ]; do sleep 0.1; done\"'
         until_there /tmp/up; printf '\\032'
         echo 'echo stopped=$(jobs | grep -c Stopped); touch /tmp/back'
         until_there /tmp/back; echo fg; touch /tmp/end; echo 'echo ended=$?'; echo exit"
    );
    let out = b
        .user(&format!("({typed}) | HISTFILE=/dev/null script -qc 'bash --norc -i' /dev/null"))
        .ok()?;
    ensure!(out.contains("stopped=1"), "{out}");
    ensure!(out.contains("ended=0"), "{out}");
    b.assert_clean(&["/tmp/up", "/tmp/back", "/tmp/end"])
}
