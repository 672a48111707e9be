//! The gateway process is killed while a container runs.

use std::time::{Duration, Instant};

use tests::{As, PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::support::{GATEWAY, HOST, PEER, bare, peer_serves, serve, start};

/// The program of the gateway process, as `ps` shows it.
const PROCESS: &str = "rootlesskit-gateway";

/// A way through the gateway. Each try is short: one that went to the dead process must not take up the second.
struct Way<'a> {
    name: &'a str,
    who: As,
    command: String,
    answer: &'a str,
}

impl Way<'_> {
    fn works(&self, b: &TestBox) -> Result<bool> {
        let out = b.argv(self.who, &["sh", "-c", &self.command]).run()?;
        Ok(out.code == 0 && out.stdout.contains(self.answer))
    }
}

#[test]
fn a_gateway_that_was_killed_is_replaced_under_a_running_container() -> Result<()> {
    let b = bare(Suite::Sid)?;
    peer_serves(&b, "udp-echo 0.0.0.0:9000")?;
    let d = start(&b)?;
    serve(&d, "web", "-p 8080:80 -p 9999:9999/udp", "http 0.0.0.0:80 page")?;
    d.run("run -d --name udp --network=container:web -v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro bb /usr/local/bin/fixture udp-echo 0.0.0.0:9999")?;
    let pid = d.run("inspect -f '{{.State.Pid}}' web")?;
    // Programs of the box in the container's network, without the time that `docker exec` takes.
    let enter = format!("nsenter -t {} -n", pid.trim());
    let curl = "curl -gsS -m2";
    let user_page = format!("page from {GATEWAY}\n");
    let peer_page = format!("page from {PEER}\n");
    let way = |name, who, command, answer| Way { name, who, command, answer };
    let ways = [
        way(
            "TCP out",
            As::Root,
            format!("{enter} {curl} http://{PEER}:7000/"),
            "peer from 10.77.0.1\n",
        ),
        way("UDP out", As::Root, format!("{enter} fixture who udp {PEER}:9000"), HOST),
        way(
            "DNS",
            As::Root,
            format!("{enter} dig +short +tries=1 +timeout=1 @10.0.2.3 foo.test"),
            "10.9.8.7",
        ),
        way("port, TCP, loopback", As::User, format!("{curl} http://127.0.0.1:8080/"), &user_page),
        way(
            "port, TCP, other machine",
            As::Peer,
            format!("{curl} http://{HOST}:8080/"),
            &peer_page,
        ),
        way("port, UDP, loopback", As::User, "fixture who udp 127.0.0.1:9999".to_owned(), GATEWAY),
        way("port, UDP, other machine", As::Peer, format!("fixture who udp {HOST}:9999"), PEER),
    ];
    for way in &ways {
        wait::until_true(way.name, PATIENCE, || way.works(&b))?;
    }
    let daemon = b.process("dockerd")?;
    let (mut dead, mut slowest) = (Vec::new(), Vec::new());
    for round in 1..=3 {
        let gateway = b.process(PROCESS)?;
        dead.push(gateway.pid);
        let killed = Instant::now();
        b.signal(gateway.pid, "KILL")?;
        slowest.push(std::thread::scope(|scope| -> Result<Duration> {
            let tries: Vec<_> = ways
                .iter()
                .map(|way| {
                    let b = &b;
                    let again = move || -> Result<Duration> {
                        wait::until_true(way.name, PATIENCE, || way.works(b))?;
                        Ok(killed.elapsed())
                    };
                    (way.name, scope.spawn(again))
                })
                .collect();
            let mut slowest = Duration::ZERO;
            for (name, thread) in tries {
                let took = thread.join().map_err(|_| tests::Error::msg("a probe panicked"))??;
                println!("round {round}: {name} after {took:.2?}");
                slowest = slowest.max(took);
            }
            Ok(slowest)
        })?);
        ensure!(!dead.contains(&b.process(PROCESS)?.pid), "it was not killed");
    }
    println!("everything works again after {slowest:.2?}");
    assert_eq!(b.process("dockerd")?.pid, daemon.pid, "another dockerd");
    ensure!(d.log()?.contains("gateway"), "no word about the death in the log:\n{}", d.log()?);
    d.run("rm -f web udp")?;
    d.stop()?;
    b.assert_no_processes()
}
