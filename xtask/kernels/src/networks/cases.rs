//! What happens to networks, and what is tried then.

use super::Change::{Pause, Root};
use super::{Case, Change, Phase};

const fn phase(change: Change, tries: &'static str) -> Phase {
    Phase { change, tries }
}

const fn case(id: &'static str, title: &'static str, phases: [Phase; 3]) -> Case {
    Case { id, title, begin: "", options: "", phases, why: None, end: "" }
}

/// What people have in nftables.conf(5) on a host that offers SSH only.
const RULES: &str = "nft 'table inet filter {
    chain input {
        type filter hook input priority 0; policy drop;
        iif lo accept
        ct state established,related accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport 22 accept
    }
    chain forward { type filter hook forward priority 0; policy drop; }
    chain output { type filter hook output priority 0; policy accept; }
    }'";

/// What is tried with NAT64.
const SIX: &str = "name6 DNS who.test fd77:64::c000:201
    tcp 'TCP over IPv6' '[fd77:64::c000:201]:7000'; udp 'UDP over IPv6' '[fd77:64::c000:201]:5000'
    tcp 'TCP over IPv4' 192.0.2.1:7000; udp 'UDP over IPv4' 192.0.2.1:5000";
const NO_IPV4: &str = "ip address delete 10.77.0.1/24 dev eth0";
const IPV4: &str = "ip address add 10.77.0.1/24 dev eth0; routes";

/// In this order.
pub(crate) const CASES: &[Case] = &[
    Case {
        end: "nft delete table inet filter",
        ..case(
            "nftables",
            "rules of nftables that admit SSH only, and then the ports, too",
            [
                phase(Root(""), "outbound; published"),
                phase(Root(RULES), "outbound; published"),
                phase(
                    Root(
                        "nft add rule inet filter input tcp dport '{ 8081, 8082 }' accept
                        nft add rule inet filter input udp dport '{ 8081, 8082 }' accept",
                    ),
                    "outbound; published",
                ),
            ],
        )
    },
    Case {
        end: "systemctl stop firewalld.service",
        ..case(
            "firewalld",
            "firewalld starts with its defaults, and then opens the ports",
            [
                phase(Root(""), "outbound; published"),
                phase(Root("systemctl start firewalld.service"), "outbound; published"),
                phase(
                    Root("firewall-cmd -q --add-port=8081-8082/tcp --add-port=8081-8082/udp"),
                    "outbound; published",
                ),
            ],
        )
    },
    Case {
        end: "ufw --force reset >/dev/null",
        ..case(
            "ufw",
            "ufw is enabled with its defaults, and then opens the ports",
            [
                phase(Root(""), "outbound; published"),
                phase(Root("ufw --force enable >/dev/null"), "outbound; published"),
                phase(
                    Root("ufw allow 8081 >/dev/null; ufw allow 8082 >/dev/null"),
                    "outbound; published",
                ),
            ],
        )
    },
    Case {
        begin: "nat64; ip address delete 10.77.0.1/24 dev eth0; nameserver fd77::2",
        options: "--ipv6",
        end: "nameserver 10.77.0.2; ip address replace 10.77.0.1/24 dev eth0; routes",
        ..case(
            "ipv6-only",
            "a host with IPv6 only, NAT64 and DNS64, where IPv4 comes and goes; rootlesskit has `--ipv6`",
            [phase(Root(""), SIX), phase(Root(IPV4), SIX), phase(Root(NO_IPV4), SIX)],
        )
    },
    Case {
        begin: "ip address delete 10.77.0.1/24 dev eth0; nameserver fd77::2",
        why: Some("ipv6-only"),
        end: "nameserver 10.77.0.2; ip address replace 10.77.0.1/24 dev eth0; routes",
        ..case(
            "ipv6-only-without",
            "the same without `--ipv6`, which the launcher adds on such hosts",
            [
                phase(Root(""), SIX),
                phase(
                    Root("ip address add 10.77.0.1/24 dev eth0; routes; nameserver 10.77.0.2"),
                    "outbound",
                ),
                phase(Root("nameserver fd77::2; ip address delete 10.77.0.1/24 dev eth0"), SIX),
            ],
        )
    },
    Case {
        end: "date -s '+1 hour' >/dev/null",
        ..case(
            "clock",
            "the clock jumps an hour ahead, and two hours back",
            [
                phase(Root("hold"), "outbound; held 60; published"),
                phase(Root("date -s '+1 hour' >/dev/null"), "outbound; held 60; published"),
                phase(Root("date -s '-2 hours' >/dev/null"), "outbound; held 60; published"),
            ],
        )
    },
    case(
        "pause",
        "the whole machine stands still for a minute, twice",
        [
            phase(Root("hold"), "outbound; held 60; published"),
            phase(Pause, "outbound; held 60; published"),
            phase(Pause, "outbound; held 60; published"),
        ],
    ),
];
