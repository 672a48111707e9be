//! What happens to networks, and what is tried then.

use super::Change::{Pause, Root};
use super::{Case, Change, Phase};

const fn phase(change: Change, tries: &'static str) -> Phase {
    Phase { change, tries }
}

const fn case(id: &'static str, title: &'static str, phases: [Phase; 3]) -> Case {
    Case { id, title, begin: "", options: "", phases, why: None, end: "" }
}

/// What starts systemd-resolved with a name server for everything.
const RESOLVED: &str = "systemctl start systemd-resolved.service
    rm -f /etc/resolv.conf; ln -s /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
    resolvectl dns eth0 10.77.0.2; resolvectl domain eth0 '~.'";
const RESOLVED_END: &str = "systemctl stop systemd-resolved.service; nameserver 10.77.0.2";

/// What has NetworkManager manage the cable. It waits for udev, which the machine does not have, unless `/sys` is
/// read-only as in a container. It would leave the file to systemd-resolved, whose package has a `resolvconf`.
const MANAGED: &str = "printf '%s\\n' '[main]' rc-manager=symlink >/etc/NetworkManager/conf.d/cable.conf
    mkdir -p /etc/systemd/system/NetworkManager.service.d
    printf '%s\\n' '[Service]' ReadOnlyPaths=/sys >/etc/systemd/system/NetworkManager.service.d/cable.conf
    systemctl daemon-reload; systemctl start NetworkManager.service
    nmcli -w 60 connection add type ethernet ifname eth0 con-name lan ipv4.method manual \
        ipv4.addresses 10.77.0.1/24 ipv4.gateway 10.77.0.2 ipv4.dns 10.77.0.2 ipv6.method disabled
    nmcli -w 60 connection up lan || { nmcli device; journalctl -u NetworkManager -o cat | tail -n 30; exit 1; }";
const MANAGED_END: &str = "nmcli connection delete lan; systemctl stop NetworkManager.service
    ip link delete eth0; cable; nameserver 10.77.0.2";

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
        begin: RESOLVED,
        end: RESOLVED_END,
        ..case(
            "resolved-dns",
            "systemd-resolved: switch to another name server (`resolvectl dns`), then back",
            [
                phase(Root(""), "outbound"),
                phase(Root("resolvectl dns eth0 10.77.0.3"), "outbound 192.0.2.2"),
                phase(Root("resolvectl dns eth0 10.77.0.2"), "outbound"),
            ],
        )
    },
    Case {
        begin: RESOLVED,
        end: RESOLVED_END,
        ..case(
            "resolved-vpn",
            "systemd-resolved: a VPN with a name server for its own domain comes and goes",
            [
                phase(Root(""), "outbound; name 'DNS of the VPN' inner.vpn.test 10.99.0.2"),
                phase(
                    Root("vpn; resolvectl dns vpn0 10.99.0.2; resolvectl domain vpn0 '~vpn.test'"),
                    "outbound; name 'DNS of the VPN' inner.vpn.test 10.99.0.2
                    tcp 'TCP into the VPN' 10.99.0.2:7000; udp 'UDP into the VPN' 10.99.0.2:5000",
                ),
                phase(
                    Root("ip link delete vpn0"),
                    "outbound; name 'DNS of the VPN' inner.vpn.test 10.99.0.2",
                ),
            ],
        )
    },
    Case {
        begin: MANAGED,
        end: MANAGED_END,
        ..case(
            "manager-dns",
            "NetworkManager writes `/etc/resolv.conf`: switch to another name server, then back",
            [
                phase(Root(""), "outbound"),
                phase(
                    Root(
                        "nmcli connection modify lan ipv4.dns 10.77.0.3; nmcli -w 60 connection up lan",
                    ),
                    "outbound 192.0.2.2",
                ),
                phase(
                    Root(
                        "nmcli connection modify lan ipv4.dns 10.77.0.2; nmcli -w 60 connection up lan",
                    ),
                    "outbound",
                ),
            ],
        )
    },
    Case {
        begin: MANAGED,
        end: MANAGED_END,
        ..case(
            "manager-down",
            "NetworkManager: the connection goes down, then up again",
            [
                phase(Root("hold"), "outbound; held 60; published"),
                phase(Root("nmcli -w 60 connection down lan"), "outbound; held 8"),
                phase(Root("nmcli -w 60 connection up lan"), "outbound; held 120; published"),
            ],
        )
    },
    case(
        "replaced",
        "`/etc/resolv.conf` is replaced (rename), then written in place",
        [
            phase(Root(""), "outbound"),
            phase(
                Root("echo nameserver 10.77.0.3 >/etc/new; mv /etc/new /etc/resolv.conf"),
                "outbound 192.0.2.2",
            ),
            phase(Root("echo nameserver 10.77.0.2 >/etc/resolv.conf"), "outbound"),
        ],
    ),
    Case {
        begin: "ip link delete eth0; rm -f /etc/resolv.conf",
        end: "routes; nameserver 10.77.0.2",
        ..case(
            "boot",
            "rootlesskit starts before the network and before `/etc/resolv.conf` exists; the network comes up, then goes down",
            [
                phase(Root(""), "outbound"),
                phase(Root("cable; nameserver 10.77.0.2"), "outbound; published"),
                phase(
                    Root(
                        "ip route delete default; ip -6 route delete default; rm /etc/resolv.conf",
                    ),
                    "outbound",
                ),
            ],
        )
    },
    Case {
        end: "ip address replace 10.77.0.1/24 dev eth0; routes",
        ..case(
            "roaming",
            "the host's address is replaced with another one, then the old address comes back",
            [
                phase(Root("hold"), "outbound; held 60; published"),
                phase(
                    Root(
                        "ip address add 10.77.0.50/24 dev eth0
                        ip address delete 10.77.0.1/24 dev eth0
                        ip address replace 10.77.0.50/24 dev eth0; routes",
                    ),
                    "outbound; held 8; published 10.77.0.50",
                ),
                phase(
                    Root(
                        "ip address add 10.77.0.1/24 dev eth0
                        ip address delete 10.77.0.50/24 dev eth0
                        ip address replace 10.77.0.1/24 dev eth0; routes",
                    ),
                    "outbound; held 120; published",
                ),
            ],
        )
    },
    case(
        "mtu-tunnel",
        "the route to another network leads into a tunnel with an MTU of 1280, then no longer",
        [
            phase(Root(""), "bulk 192.0.2.1:7001; large 192.0.2.1:5000"),
            phase(
                Root("vpn; ip route replace 192.0.2.0/24 dev vpn0"),
                "bulk 192.0.2.1:7001; large 192.0.2.1:5000; sizes 192.0.2.1:5000 1280",
            ),
            phase(Root("ip link delete vpn0"), "bulk 192.0.2.1:7001; large 192.0.2.1:5000"),
        ],
    ),
    Case {
        begin: "router",
        end: "ip netns delete far",
        ..case(
            "mtu-router",
            "the MTU behind a router on the path drops to 1280, then returns to 1500",
            [
                phase(Root(""), "bulk 198.51.100.2:7001; large 198.51.100.2:5000"),
                phase(
                    Root("far_mtu 1280"),
                    "bulk 198.51.100.2:7001; sizes 198.51.100.2:5000 1280; large 198.51.100.2:5000",
                ),
                phase(Root("far_mtu 1500"), "bulk 198.51.100.2:7001; large 198.51.100.2:5000"),
            ],
        )
    },
    Case {
        end: "nft delete table inet filter",
        ..case(
            "nftables",
            "nftables rules allow only SSH, then also the ports",
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
            "firewalld starts with its defaults, then opens the ports",
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
            "ufw is enabled with its defaults, then opens the ports",
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
            "the clock jumps an hour ahead, then two hours back",
            [
                phase(Root("hold"), "outbound; held 60; published"),
                phase(Root("date -s '+1 hour' >/dev/null"), "outbound; held 60; published"),
                phase(Root("date -s '-2 hours' >/dev/null"), "outbound; held 60; published"),
            ],
        )
    },
    case(
        "pause",
        "the whole machine is paused for a minute, twice",
        [
            phase(Root("hold"), "outbound; held 60; published"),
            phase(Pause, "outbound; held 60; published"),
            phase(Pause, "outbound; held 60; published"),
        ],
    ),
];
