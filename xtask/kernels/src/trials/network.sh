# The network of a machine: another machine at the end of a cable, with a name server, and servers that tell clients
# their address.
ip link set lo up
ip netns add peer
ip link add eth0 type veth peer name eth1 netns peer
for line in "- eth0 10.77.0.1/24 fd77::1/64" "peer eth1 10.77.0.2/24 fd77::2/64"; do
	set -- $line
	in=
	[ "$1" = - ] || in="ip netns exec $1"
	$in ip address add "$3" dev "$2"
	$in ip address add "$4" dev "$2" nodad
	$in ip link set "$2" up
done
peer ip link set lo up
ip route add default via 10.77.0.2
ip route add default via fd77::2
for server in "dns 0.0.0.0:53" "http [::]:7000 peer" "udp-echo [::]:5000"; do
	peer setsid -f fixture $server </dev/null >/dev/null 2>&1
done
until [ "$(peer ss -Hltun 'sport = :53 or sport = :7000 or sport = :5000' | wc -l)" = 3 ]; do
	sleep 0.1
done
