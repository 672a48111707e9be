//! A dry run: it refuses nothing, and says what it would refuse.

use tests::egress::matched;
use tests::{PATIENCE, Result, ensure, wait};

use super::{Egress, ONE, Who};
use crate::flows::follow;
use crate::kit::{self, events, number};

#[test]
fn egress_a_dry_run_refuses_nothing_and_counts() -> Result<()> {
    let b = kit::boot()?;
    let policy = "mode = 'dry-run'\ndefault = 'deny'\n[[rule]]\nname = 'page'\naction = 'allow'\nto = '10.77.0.11'\n\
                  [[rule]]\nname = 'twelve'\naction = 'deny'\nto = '10.77.0.12'\n";
    let e = Egress::start(&b, "", policy)?;
    let follower = follow(&e.net)?;
    for who in [Who::Namespace, Who::One] {
        e.expect(
            who,
            &[
                ("tcp/10.77.0.11:7000", "open"),
                ("tcp/10.77.0.12:7000", "open"),
                ("udp/10.77.0.12:7011", "open"),
                ("tcp/10.77.0.13:7000", "open"),
            ],
        )?;
    }
    let show = e.show()?;
    ensure!(matched(&show, "page")? == 2, "{show}");
    ensure!(matched(&show, "twelve")? == 4, "{show}");
    assert_eq!(number(&e.net.stats()?, &["events", "denied"]), 0);
    // The flow log says what would be denied.
    let marks = || -> Result<Vec<_>> {
        let events = events(&follower)?.into_iter();
        let events =
            events.filter(|event| event["containerIp"] == ONE && event["protocol"] == "tcp");
        let mark = |event: serde_json::Value| {
            // Closed, or reset by a client that has not read everything.
            assert_ne!(event["end"], "denied", "{event}");
            assert_eq!(event["rule"], serde_json::Value::Null, "{event}");
            (event["destination"]["ip"].clone(), event["dryRunRule"].clone())
        };
        Ok(events.map(mark).collect())
    };
    wait::until_true("three connections are logged", PATIENCE, || Ok(marks()?.len() == 3))?;
    for (to, rule) in
        [("10.77.0.11", None), ("10.77.0.12", Some("twelve")), ("10.77.0.13", Some("default"))]
    {
        ensure!(marks()?.contains(&(to.into(), rule.into())), "{to}: {:?}", marks()?);
    }
    e.stop()
}
