//! How a capture ends, and what it refuses to begin.

use tests::containers::PEER;
use tests::kit::Net;
use tests::{As, PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::{read, start};

#[test]
fn a_capture_ends_at_its_limits_with_a_whole_file() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let net = Net::start(&b)?;
    let server = tests::kit::serve(&b, As::Peer, "streams [::]:7002")?;
    let traffic = net.inside("while :; do fixture get 10.77.0.2:7000 >/dev/null; done").spawn()?;
    let capture = |args: &str| -> Result<String> {
        let out = net.ctl(&format!("capture {args}")).run()?;
        ensure!(out.code == 0, "{out}");
        Ok(out.stderr)
    };
    let said = capture("-c 7 -w count.pcapng")?;
    ensure!(
        said.contains("captured 7 packets") && said.contains(": reached --max-packets"),
        "{said}"
    );
    ensure!(read(&b, "count.pcapng")?.len() == 7, "not 7 packets");

    let said = capture("--max-time 300ms -w time.pcapng")?;
    ensure!(said.contains(": reached --max-time"), "{said}");
    read(&b, "time.pcapng")?;

    let said = capture("--max-size 128K -w size.pcapng")?;
    ensure!(said.contains(": reached --max-size"), "{said}");
    let length = b.user("stat -c %s size.pcapng").ok()?.trim().parse::<u64>()?;
    ensure!(length <= 128 << 10 && length > 48 << 10, "{length} bytes");
    read(&b, "size.pcapng")?;

    let said = capture("-c 20 --snaplen 60 -w short.pcapng")?;
    ensure!(said.contains("captured 20 packets"), "{said}");
    let lengths = b.user("tshark -r short.pcapng -T fields -e frame.cap_len -e frame.len").ok()?;
    let cut =
        |line: &str| line.split_once('\t').is_some_and(|(cap, len)| cap == "60" && len != "60");
    ensure!(lengths.lines().any(cut), "{lengths}");

    // A live view: the reader has seen enough after three packets.
    let live = "rootlessctl --socket /tmp/s/api.sock capture --port 7000 -w - 2>said |
        tshark -c 3 -r - -T fields -e ip.dst; cat said";
    let text = b.user(live).ok()?;
    ensure!(
        text.lines().filter(|line| *line == PEER || *line == "10.0.2.100").count() == 3,
        "{text}"
    );
    ensure!(text.contains("to standard output") && !text.contains("error"), "{text}");

    // A reader that does not read does not hold up the end.
    let stuck = b
        .user("mkfifo fifo; exec 3<>fifo; exec rootlessctl --socket /tmp/s/api.sock capture >fifo")
        .spawn()?;
    // poll(2) calls a pipe writable that has room for 4096 bytes.
    let room =
        "open F, '+<', 'fifo'; vec($f, fileno F, 1) = 1; print scalar select undef, $f, undef, 0";
    wait::until_true("the pipe is full", PATIENCE, || {
        Ok(b.argv(As::User, &["perl", "-e", room]).ok()? == "0")
    })?;
    stuck.signal("TERM")?;
    let out = stuck.wait(PATIENCE)?;
    ensure!(out.code == 1 && out.stderr.contains("has stopped reading"), "{out}");
    drop((traffic, server));

    // No space for more.
    let out = net.ctl("capture -c 1 >/dev/full").run()?;
    ensure!(out.code == 1 && out.stderr.contains("No space left on device"), "{out}");

    // The daemon ends.
    let capture = start(&b, "/tmp/s/api.sock", "-w last.pcapng")?;
    net.kit.signal("TERM")?;
    let out = capture.wait(PATIENCE)?;
    ensure!(out.code == 0 && out.stderr.contains("RootlessKit has ended"), "{out}");
    read(&b, "last.pcapng")?;
    Ok(())
}

#[test]
fn what_a_capture_cannot_do_is_refused() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let refuses = |who: As, line: &str, parts: &[&str]| -> Result<()> {
        let text = b.argv(who, &["sh", "-c", line]).fails_with(1)?;
        ensure!(parts.iter().all(|part| text.contains(part)), "{line}: {text}");
        Ok(())
    };
    let ctl = "rootlessctl --socket /tmp/s/api.sock capture";
    refuses(
        As::User,
        &format!("{ctl} -w x"),
        &["/tmp/s/api.sock", "hint: check that RootlessKit"],
    )?;
    let net = Net::start(&b)?;
    b.user("echo mine > x; ln -s y link").ok()?;
    for name in ["x", "link"] {
        let text = format!("cannot write {name}: the file exists");
        refuses(As::User, &format!("{ctl} -w {name}"), &[&text, "hint: remove it"])?;
    }
    ensure!(b.read("/home/tester/x")? == "mine\n" && !b.exists("/home/tester/y"), "a file changed");
    refuses(As::User, &format!("{ctl} -w /nowhere/x"), &["/nowhere/x", "No such file"])?;
    refuses(As::User, &format!("{ctl} --port 0 -w y"), &["\"0\"", "--port"])?;
    // Another user, with and without a look into the state directory.
    let other = format!("setpriv --reuid=65534 --regid=65534 --clear-groups {ctl} -w /tmp/theirs");
    let hint = "hint: run rootlessctl as the user who started RootlessKit";
    for mode in ["700", "755"] {
        b.user(&format!("chmod {mode} /tmp/s")).ok()?;
        refuses(As::Root, &other, &["Permission denied", hint])?;
    }
    ensure!(!b.exists("/tmp/theirs"), "a file was left");
    // Root may look into what belongs to others.
    let out = b.root(&format!("{ctl} --max-time 0.1 -w /root/x.pcapng")).run()?;
    ensure!(out.code == 0 && out.stderr.contains("reached --max-time"), "{out}");
    b.user("rm x link").ok()?;
    net.stop()?;
    let alone = Net::with(&b, "--net=none")?;
    refuses(As::User, &format!("{ctl} -w y"), &["no default route", "hint: use --container"])?;
    ensure!(!b.exists("/home/tester/y"), "a file was left");
    alone.stop()
}

/// Whoever is root in the namespace gives the names, and can put anything into them except spaces and slashes.
#[test]
fn names_of_interfaces_give_the_terminal_no_orders() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let net = Net::start(&b)?;
    net.inside(
        r"name=$(printf 'x\033[1m'); ip link add name $name type bridge
         ip addr add 192.0.2.1/24 dev $name && ip link set $name up",
    )
    .ok()?;
    let out = net.ctl("capture --container 192.0.2.7 --max-time 100ms -w evil.pcapng").run()?;
    ensure!(out.code == 0 && out.stderr.contains(r"capturing on x\u{1b}[1m (container"), "{out}");
    ensure!(!out.stderr.contains('\u{1b}'), "{out}");
    b.user("rm evil.pcapng").ok()?;
    net.stop()
}
