//! A container as dockerd would make it: a namespace behind a bridge, with its rules and an MTU of 1500.
//!
//! The rules are dockerd's for its default network, in the tables where it puts them; the programs are the ones that
//! it runs. Nothing here is ours to forward: it is the same for every side.

use std::process::Command;

use anyhow::Result;

use crate::process::Process;
use crate::procs::TARGET;
use crate::script;

/// The container's address.
pub(super) const ADDRESS: &str = "172.17.0.2";

/// The network of its bridge.
pub(super) const SUBNET: &str = "172.17.0.0/16";

/// In the namespace around the container; `$1` is the container's process.
const OUTER: &str = "
ip link add docker0 type bridge
ip address add 172.17.0.1/16 dev docker0
ip link set docker0 up
ip link add vethc mtu 1500 type veth peer name eth0 mtu 1500 netns $1
ip link set vethc master docker0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
iptables -P FORWARD DROP
iptables -N DOCKER
iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -o docker0 -j DOCKER
iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
iptables -A FORWARD -i docker0 -o docker0 -j ACCEPT
";

/// Another one in there; `$1` is its process.
const ANOTHER: &str = "
ip link add vethd mtu 1500 type veth peer name eth0 mtu 1500 netns $1
ip link set vethd master docker0 up
";

/// In the container; `$1` is its address.
const INNER: &str = "
ip link set lo up
ip address add $1/16 dev eth0
ip link set eth0 up
ip route add default via 172.17.0.1
echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
";

/// Around the container; the arguments are ports.
const PUBLISH: &str = "
for port; do
    iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport $port -j DNAT --to-destination 172.17.0.2:$port
    iptables -A DOCKER -d 172.17.0.2 ! -i docker0 -o docker0 -p tcp --dport $port -j ACCEPT
done
";

/// On the machine; `$1` is a process in the namespace that gets the veth. The bridge stays for the next one.
const BRIDGE: &str = "
if [ ! -e /proc/sys/net/ipv4/conf/kernel0 ]; then
    ip link add kernel0 type bridge
    ip address add 10.0.3.1/24 dev kernel0
    ip link set kernel0 up
fi
ip link add kernel1 type veth peer name eth0 netns $1
ip link set kernel1 master kernel0 up
";

const BRIDGED: &str = "
ip address add 10.0.3.100/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.3.1
";

/// Makes a container in a network namespace; it lives as long as the process that this returns.
pub(super) fn make(outer: &str) -> Result<Process> {
    make_with(outer, OUTER, ADDRESS)
}

/// Makes another container behind the same bridge.
pub(super) fn make_another(outer: &str) -> Result<Process> {
    make_with(outer, ANOTHER, "172.17.0.3")
}

fn make_with(outer: &str, connect: &str, address: &str) -> Result<Process> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={outer}")).args(["unshare", "--net", TARGET]);
    let mut holder = Process::start(&mut command)?;
    holder.echo()?;
    script::run(Some(outer), connect, &[holder.pid().to_string()])?;
    script::run(Some(&script::netns_of(holder.pid())), INNER, &[address.to_owned()])?;
    Ok(holder)
}

/// Sends what arrives at these ports around the container into it.
pub(super) fn publish(outer: &str, ports: &[u16]) -> Result<()> {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    script::run(Some(outer), PUBLISH, &ports)
}

/// Connects the network namespace of a process to a bridge of the machine.
pub(super) fn connect_kernel(pid: i32) -> Result<()> {
    script::run(None, BRIDGE, &[pid.to_string()])?;
    script::run(Some(&script::netns_of(pid)), BRIDGED, &[])
}
