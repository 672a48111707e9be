//! Many clients of one published port.

use tests::{As, Result, Suite, TestBox, ensure};

use crate::support::{HOST, bare, rootlessctl, serve, start};

/// Every one of `total` requests by `clients` at once gets its answer.
fn all_answered(b: &TestBox, who: As, host: &str, total: u32, clients: u32) -> Result<()> {
    let (total, clients) = (total.to_string(), clients.to_string());
    let argv = ["fixture", "load", host, &total, &clients];
    let out = b.argv(who, &argv).limit(120).run()?;
    ensure!(out.code == 0 && out.stdout.trim() == total && out.stderr.is_empty(), "{out}");
    Ok(())
}

#[test]
fn no_request_of_2000_one_after_the_other_and_of_256_clients_at_once_fails() -> Result<()> {
    let b = bare(Suite::Sid)?;
    let d = start(&b)?;
    serve(&d, "web", "-p 8080:80", "http 0.0.0.0:80 page")?;
    for (who, host) in [(As::User, "127.0.0.1:8080"), (As::Peer, &format!("{HOST}:8080"))] {
        all_answered(&b, who, host, 2000, 1)?;
        all_answered(&b, who, host, 256, 256)?;
        all_answered(&b, who, host, 2560, 256)?;
    }
    let stats: serde_json::Value = serde_json::from_str(&rootlessctl(&b, "stats --json")?)?;
    let port = &stats["ports"][0];
    ensure!(
        port["opened"] == 2 * (2000 + 256 + 2560) && port["failed"].as_u64().unwrap_or(0) == 0,
        "{port}"
    );
    d.run("rm -f web")?;
    d.stop()
}
