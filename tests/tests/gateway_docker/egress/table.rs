//! The policy, the containers, and what each of them may do.

/// The policy of the scenario.
pub(super) const POLICY: &str = r#"
metadata = "deny"

[[rule]]
name = "shop"
action = "allow"
from = { container = "shop*" }
to = "shop.test"

[[rule]]
name = "nothing else"
action = "deny"
from = { container = "shop*" }

[[rule]]
name = "back"
action = "deny"
from = { label = "tier=back" }
to = ["10.77.0.11", "fd77::11"]

[[rule]]
name = "datagrams of one"
action = "deny"
from = { network = "one" }
to = "10.77.0.12"
protocol = "udp"

[[rule]]
name = "back in one"
action = "deny"
from = { network = "one", label = ["tier=back", "tier=front"] }
to = "10.77.0.13"

[[rule]]
name = "daemon"
action = "deny"
from = { daemon = true }
to = "10.77.0.12"
"#;

/// A name, its options, and what it may not do; everything else of [`TARGETS`] is open to it.
pub(super) type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const METADATA: (&str, &str) = ("tcp/169.254.169.254:7000", "metadata");

/// The containers.
pub(super) const ROWS: &[Row] = &[
    ("free", "", &[METADATA]),
    (
        "back",
        "--label tier=back --restart=always",
        &[METADATA, ("tcp/10.77.0.11:7000", "back"), ("udp/10.77.0.11:7011", "back")],
    ),
    (
        "inner",
        "--network=one --ip 172.28.0.10 --label tier=none",
        &[METADATA, ("udp/10.77.0.12:7011", "datagrams of one")],
    ),
    (
        "both",
        "--network=one --ip 172.28.0.11 --label tier=back",
        &[
            METADATA,
            ("tcp/10.77.0.11:7000", "back"),
            ("udp/10.77.0.11:7011", "back"),
            ("udp/10.77.0.12:7011", "datagrams of one"),
            ("tcp/10.77.0.13:7000", "back in one"),
            ("udp/10.77.0.13:7011", "back in one"),
        ],
    ),
    (
        "outer",
        "--network=six --label tier=back",
        &[METADATA, ("tcp/10.77.0.11:7000", "back"), ("udp/10.77.0.11:7011", "back")],
    ),
    (
        "shop1",
        "--network=one",
        &[
            METADATA,
            ("tcp/10.77.0.11:7000", "nothing else"),
            ("udp/10.77.0.11:7011", "nothing else"),
            ("tcp/10.77.0.12:7000", "nothing else"),
            ("udp/10.77.0.12:7011", "nothing else"),
            ("tcp/10.77.0.13:7000", "nothing else"),
            ("udp/10.77.0.13:7011", "nothing else"),
        ],
    ),
];

/// What each of them tries.
pub(super) const TARGETS: [&str; 7] = [
    "tcp/169.254.169.254:7000",
    "tcp/10.77.0.11:7000",
    "udp/10.77.0.11:7011",
    "tcp/10.77.0.12:7000",
    "udp/10.77.0.12:7011",
    "tcp/10.77.0.13:7000",
    "udp/10.77.0.13:7011",
];
