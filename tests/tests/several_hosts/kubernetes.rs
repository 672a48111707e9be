//! What a distribution of Kubernetes needs of the network: flannel's VXLAN between pods, node ports, and the ports of the
//! API server and of kubelet.
//!
//! No distribution runs here. `ip`, `bridge` and `nft` make what flannel's VXLAN backend and kube-proxy make
//! (<https://github.com/flannel-io/flannel/blob/master/pkg/backend/vxlan/vxlan.go>), and pods are network namespaces.

use tests::kit::{self, Net, number};
use tests::{Cmd, Lan, Result, Running, TestBox, ensure};

/// As much as each stream carries.
const BYTES: u64 = 100_000_000;

/// One node inside its namespace, as UID 0 there: `$N` is its number, `$OTHERS` are those of the other nodes.
///
/// The address of the VXLAN link is one that the other nodes cannot reach. They know the host's instead, as with
/// flannel's annotation `public-ip-overwrite`.
const NODE: &str = r"set -eu
mac() { printf 02:42:0a:2a:00:%02x $1; }
sysctl -qw net.ipv4.ip_forward=1
device=$(ip -o route show default | sed 's/.* dev \([^ ]*\).*/\1/')
ip link add flannel.1 address $(mac $N) mtu 1450 type vxlan id 1 dev $device local 10.0.2.100 dstport 8472 nolearning
ip address add 10.42.$N.0/32 dev flannel.1
ip link set flannel.1 up
for other in $OTHERS; do
	bridge fdb append $(mac $other) dev flannel.1 dst 10.78.0.$other
	ip neigh replace 10.42.$other.0 lladdr $(mac $other) dev flannel.1 nud permanent
	ip route replace 10.42.$other.0/24 via 10.42.$other.0 dev flannel.1 onlink
done
ip link add cni0 mtu 1450 type bridge
ip address add 10.42.$N.1/24 dev cni0
ip link set cni0 up
# The names that the host's root gave to namespaces stay the host's.
rm -f /run/netns
ip netns add pod
ip link add veth0 mtu 1450 type veth peer name eth0 mtu 1450 netns pod
ip link set veth0 master cni0 up
ip -n pod link set lo up
ip -n pod address add 10.42.$N.2/24 dev eth0
ip -n pod link set eth0 up
ip -n pod route add default via 10.42.$N.1
nft -f - <<RULES
table ip node {
	chain in {
		type nat hook prerouting priority dstnat
		ip daddr 10.0.2.100 tcp dport 30080 dnat to 10.42.$N.2:80
		ip daddr 10.0.2.100 udp dport 30080 dnat to 10.42.$N.2:80
	}
	chain out {
		type nat hook postrouting priority srcnat
		ip saddr 10.42.0.0/16 ip daddr != 10.42.0.0/16 masquerade
	}
}
RULES";

/// A host, its rootlesskit, and one pod in it.
struct Node<'b> {
    number: u8,
    b: &'b TestBox,
    net: Net<'b>,
}

impl<'b> Node<'b> {
    fn start(b: &'b TestBox, number: u8, others: &str) -> Result<Self> {
        let ports = [
            "8472:8472/udp",
            "6443:6443/tcp",
            "10250:10250/tcp",
            "30080:30080/tcp",
            "30080:30080/udp",
        ];
        let ports = ports.map(|port| format!(" -p 10.78.0.{number}:{port}"));
        let net = Net::with(b, &format!("{}{}", kit::FLAGS, ports.concat()))?;
        net.inside(NODE).env("N", &number.to_string()).env("OTHERS", others).ok()?;
        Ok(Self { number, b, net })
    }

    /// The host's address.
    fn host(&self) -> String {
        format!("10.78.0.{}", self.number)
    }

    /// The pod's.
    fn pod(&self) -> String {
        format!("10.42.{}.2", self.number)
    }

    /// A command in the pod.
    fn inside(&self, command: &str) -> Cmd<'b> {
        self.net.inside(&format!("exec ip netns exec pod {command}"))
    }

    /// Servers in the pod and, of the node itself, in the namespace.
    fn serve(&self) -> Result<Vec<Running<'b>>> {
        let pod = self.pod();
        let in_pod = [
            format!("streams {pod}:81"),
            format!("udp-echo {pod}:81"),
            format!("http {pod}:80 pod"),
            format!("udp-echo {pod}:80"),
        ];
        let in_pod = in_pod.iter().map(|verb| self.inside(&format!("fixture {verb}")));
        let own = ["http 0.0.0.0:6443 api", "http 0.0.0.0:10250 kubelet"];
        let own = own.iter().map(|verb| self.net.inside(&format!("exec fixture {verb}")));
        in_pod.chain(own).map(kit::ready).collect()
    }

    /// Pods reach each other, and this one sees its address.
    fn reaches(&self, other: &Self) -> Result<()> {
        let pod = other.pod();
        for kind in ["sink", "source"] {
            let out = self.inside(&format!("fixture stream {pod}:81 {kind} {BYTES}"));
            ensure!(out.limit(120).ok()?.starts_with(&format!("{BYTES} ok")), "{kind}");
        }
        // Larger than the network's packets, too.
        for text in ["x", &"x".repeat(8000)] {
            let answer = self.inside(&format!("fixture udp-ask {pod}:81 {text}")).ok()?;
            let from = format!("{}:", self.pod());
            ensure!(
                answer.starts_with(&from) && answer.ends_with(&format!(" {text}\n")),
                "{answer}"
            );
        }
        let lost = self.inside(&format!("fixture churn {pod}:81 2000 16")).ok()?;
        ensure!(lost == "0 lost\n", "datagrams: {lost}");
        Ok(())
    }

    /// The pod, the namespace and the host reach the ports of another host, where this host is seen.
    fn reaches_ports_of(&self, other: &Self) -> Result<()> {
        let (host, own) = (other.host(), self.host());
        let ways: [&dyn Fn(&str) -> Cmd<'b>; 3] = [
            &|command| self.inside(command),
            &|command| self.net.inside(&format!("exec {command}")),
            &|command| self.b.root(&format!("exec {command}")),
        ];
        for way in ways {
            for (port, name) in [(6443, "api"), (10250, "kubelet"), (30080, "pod")] {
                let said = way(&format!("fixture get {host}:{port}")).ok()?;
                ensure!(said == format!("{name} from {own}\n"), "{port}: {said}");
            }
            let said = way(&format!("fixture who udp {host}:30080")).ok()?;
            let seen = said.split_whitespace().last().unwrap_or_default();
            ensure!(seen.starts_with(&format!("{own}:")), "UDP: {said}");
        }
        Ok(())
    }

    /// Every checksum was right, and no flow had to go.
    fn nothing_went_wrong(&self) -> Result<()> {
        const COUNTERS: &str = "cat /proc/net/snmp";
        let places = [self.inside(COUNTERS), self.net.inside(COUNTERS), self.b.root(COUNTERS)];
        for place in places {
            let text = place.ok()?;
            ensure!(kit::wrong_checksums(&text) == 0, "{text}");
        }
        let stats = self.net.stats()?;
        ensure!(number(&stats, &["events", "evicted"]) == 0, "{stats}");
        let overlay = &stats["ports"][0];
        ensure!(number(overlay, &["bytesIn"]) > BYTES, "{stats}");
        Ok(())
    }
}

#[test]
fn pods_of_two_hosts_reach_each_other_and_the_ports_of_the_nodes() -> Result<()> {
    let (one, two) = (kit::boot()?, kit::boot()?);
    let lan = Lan::new()?;
    lan.join(&one, &["10.78.0.1/24"])?;
    lan.join(&two, &["10.78.0.2/24"])?;
    let nodes = [Node::start(&one, 1, "2")?, Node::start(&two, 2, "1")?];
    let servers = [nodes[0].serve()?, nodes[1].serve()?];
    let [one, two] = &nodes;
    for (from, to) in [(one, two), (two, one)] {
        from.reaches(to)?;
        from.reaches_ports_of(to)?;
        from.reaches_ports_of(from)?;
    }
    for node in &nodes {
        node.nothing_went_wrong()?;
    }
    drop(servers);
    for node in nodes {
        node.net.stop()?;
    }
    Ok(())
}
