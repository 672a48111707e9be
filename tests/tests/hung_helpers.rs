//! A helper that hangs, here one that is stopped, keeps those waiting who change ports, for a while; nobody else.

use std::time::Instant;

use tests::{PATIENCE, Result, Suite, TestBox, ensure, wait};

#[test]
fn hung_helpers_keep_neither_api_nor_signals_waiting() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for (flags, program) in [
        ("--net=slirp4netns --port-driver=slirp4netns", "slirp4netns"),
        ("--net=pasta --port-driver=pesto", "pasta"),
    ] {
        // The target tells that it has heard a signal.
        let target = "trap 'echo heard' USR1; echo up; while :; do sleep 0.1; done";
        let mut kit = b
            .user(&format!(
                "exec rootlesskit --state-dir=/tmp/s {flags} --disable-host-loopback -p 127.0.0.1:8080:80/tcp sh -c \"$T\""
            ))
            .env("T", target)
            .spawn()?;
        wait::until_true("the target runs", PATIENCE, || {
            ensure!(kit.alive()?, "rootlesskit ended: {}", kit.printed()?);
            Ok(kit.printed()?.contains("up\n"))
        })?;
        let helper = b
            .user_processes()
            .into_iter()
            .find(|p| p.program().starts_with(program) && p.state != 'Z');
        let helper = helper.ok_or_else(|| tests::Error::msg(format!("no {program}")))?.pid;
        b.signal(helper, "STOP")?;
        let ctl = |args: &str| b.user(&format!("rootlessctl --socket /tmp/s/api.sock {args}"));
        // Twenty, of which the first costs what the helper is given.
        let adds = ctl("add-ports $(seq -f 127.0.0.1:%g:80/tcp 9000 9019)").spawn()?;
        let begin = Instant::now();
        kit.signal("USR1")?;
        wait::until_true("the signal arrives", PATIENCE, || Ok(kit.printed()?.contains("heard")))?;
        for _ in 0..3 {
            ctl("info").ok()?;
            ensure!(ctl("list-ports --json").ok()?.contains("8080"), "the port is listed");
        }
        ensure!(begin.elapsed() < PATIENCE, "{program}: {:?}", begin.elapsed());
        let out = adds.wait(PATIENCE)?;
        ensure!(out.code != 0 && out.stderr.contains("did not answer"), "{program}: {out}");
        // It was only stopped.
        b.signal(helper, "CONT")?;
        wait::until_true("ports can be published again", PATIENCE, || {
            Ok(ctl("add-ports 127.0.0.1:9100:80/tcp").run()?.code == 0)
        })?;
        b.signal(helper, "STOP")?;
        let _adds = ctl("add-ports 127.0.0.1:9200:80/tcp").spawn()?;
        kit.signal("TERM")?;
        kit.wait(PATIENCE)?;
        b.assert_clean(&[])?;
    }
    Ok(())
}
