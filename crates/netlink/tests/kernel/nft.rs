//! nftables transactions against the kernel.

use std::io::ErrorKind;

use caps::{CapSet, Capability};
use netlink::{
    Family, Rt,
    nft::{Batch, Hook, PRIORITY_MANGLE, Statement},
};

use crate::netns::{Netns, run};

fn batch(rules_in: &str) -> Batch {
    let mut batch = Batch::new();
    batch.replace_table("t");
    batch.add_chain("t", "pre", Hook::Prerouting, PRIORITY_MANGLE);
    batch.add_rule(
        "t",
        rules_in,
        &[
            Statement::MatchL4Proto(6),
            Statement::MatchMark(0x0102_0304),
            Statement::MatchCtMark(5),
            Statement::SetCtMark(0xa0b0_c0d0),
            Statement::SetMark(9),
        ],
    );
    batch
}

#[test]
fn the_kernel_understands_each_statement() {
    let _netns = Netns::enter_new();
    batch("pre").commit().unwrap();
    let listed = run("nft -nn list table inet t", "");
    let words: Vec<_> = listed.split_whitespace().collect();
    assert_eq!(
        words.join(" "),
        "table inet t { chain pre { type filter hook prerouting priority -150; policy accept; \
         meta l4proto 6 meta mark 0x01020304 ct mark 0x00000005 ct mark set 0xa0b0c0d0 \
         meta mark set 0x00000009 } }"
    );
}

#[test]
fn fields_of_packets_and_verdicts_are_understood() {
    let _netns = Netns::enter_new();
    let lo = Rt::open().unwrap().link_index("lo").unwrap();
    let rules: &[(&[Statement], &str)] = &[
        (
            &[
                Statement::MatchInput(lo),
                Statement::MatchL4Proto(6),
                Statement::MatchTcpFlags { mask: 0x17, set: 0x02 },
                Statement::Accept,
            ],
            "iif \"lo\" tcp flags 0x2 / 0x1,0x2,0x4,0x10 accept",
        ),
        (
            &[Statement::MatchL4Proto(6), Statement::Tproxy(1), Statement::SetMark(3)],
            "meta l4proto 6 tproxy to :1 meta mark set 0x00000003",
        ),
        (
            &[
                Statement::MatchDestination("10.0.2.3".parse().unwrap()),
                Statement::MatchL4Proto(17),
                Statement::MatchDestinationPort(53),
            ],
            "ip daddr 10.0.2.3 udp dport 53",
        ),
        (
            &[
                Statement::MatchDestination("fd00::3".parse().unwrap()),
                Statement::MatchL4Proto(17),
                Statement::MatchDestinationPort(53),
            ],
            "ip6 daddr fd00::3 udp dport 53",
        ),
        (
            &[
                Statement::MatchL4Proto(17),
                Statement::MatchDatagram {
                    mask: [0xff, 0xff, 0, 0, 0, 0, 0, 0xff],
                    value: [0x08, 0, 0, 0, 0, 0, 0, 0],
                },
            ],
            "meta l4proto 17 @th,64,64 & 0xffff0000000000ff == 0x800000000000000",
        ),
        (&[Statement::MatchDontFragment], "ip frag-off & 16384 != 0"),
        (
            &[
                Statement::MatchDestinationNotIn("10.0.2.2".parse().unwrap(), 32),
                Statement::MatchIcmpType(Family::V4, 8),
            ],
            "ip daddr != 10.0.2.2 icmp type 8",
        ),
        (
            &[
                Statement::MatchDestinationNotIn("fe80::".parse().unwrap(), 10),
                Statement::MatchIcmpType(Family::V6, 128),
            ],
            "ip6 daddr != fe80::/10 icmpv6 type 128",
        ),
    ];
    for (statements, expected) in rules {
        let mut batch = Batch::new();
        batch.replace_table("t");
        batch.add_chain("t", "pre", Hook::Prerouting, PRIORITY_MANGLE);
        batch.add_rule("t", "pre", statements);
        batch.commit().unwrap();
        let listed = run("nft -nn list chain inet t pre", "");
        let rule = listed.lines().nth(3).unwrap_or_default().trim();
        assert_eq!(rule, *expected);
        // What we call the rule in an error is what nft(8) makes the same rule of.
        let shown: Vec<_> = statements.iter().map(ToString::to_string).collect();
        run(&format!("nft flush chain inet t pre; add rule inet t pre {}", shown.join(" ")), "");
        assert_eq!(run("nft -nn list chain inet t pre", ""), listed);
    }
}

#[test]
fn a_refused_change_is_named_and_nothing_is_applied() {
    let _netns = Netns::enter_new();
    let error = batch("no-such-chain").commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(text.starts_with("nftables: add rule inet t no-such-chain meta l4proto 6"), "{text}");
    assert_eq!(run("nft list tables", ""), "");
}

#[test]
fn replacing_a_table_leaves_others_alone() {
    let _netns = Netns::enter_new();
    run("nft add table inet other", "");
    run("nft add table ip t", "");
    batch("pre").commit().unwrap();
    batch("pre").commit().unwrap();
    let listed = run("nft list ruleset", "");
    assert_eq!(listed.matches("meta l4proto").count(), 1, "{listed}");
    assert!(listed.contains("table inet other") && listed.contains("table ip t "), "{listed}");
}

#[test]
fn a_refusal_of_the_whole_transaction_is_reported() {
    let _netns = Netns::enter_new();
    // The capabilities of this thread, which runs nothing but this test.
    caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap();
    let error = batch("pre").commit().unwrap_err();
    assert_eq!(error.to_string(), "nftables: transaction: Operation not permitted (os error 1)");
}
