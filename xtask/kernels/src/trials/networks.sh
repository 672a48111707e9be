# A namespace with the gateway beside a program on the host, and the network around both. Each function below `both`
# tries the same thing with both, and prints a row for each: `inside LABEL` and `host LABEL`.
state=/run/user/1001/trial
kept=/tmp/kept

# Servers of the host's own, beside those that are published, and what is beyond the cable: another machine, which is
# the internet (192.0.2.0/24), two name servers, and the far end of a tunnel. What the packages started is stopped.
network() {
	systemctl -q disable --now NetworkManager.service firewalld.service systemd-resolved.service ufw.service 2>/dev/null
	ip link set lo up
	ip netns add peer
	peer ip link set lo up
	cable
	peer ip address add 192.0.2.1/32 dev lo
	peer ip address add 192.0.2.2/32 dev lo
	peer sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
	peer ip link add vpn0 mtu 1280 type ipip local 10.77.0.2 remote 10.77.0.1
	peer ip address add 10.99.0.2/24 dev vpn0
	peer ip link set vpn0 up
	printf '%s\n' 'who.test 192.0.2.1' >/tmp/zone.one
	printf '%s\n' 'who.test 192.0.2.2' >/tmp/zone.two
	printf '%s\n' 'who.test 192.0.2.2' 'inner.vpn.test 10.99.0.2' >/tmp/zone.vpn
	printf '%s\n' 'who.test fd77:64::c000:201' >/tmp/zone.six
	for server in 'zone [fd77::2]:53 /tmp/zone.six' 'zone 10.77.0.2:53 /tmp/zone.one' \
		'zone 10.77.0.3:53 /tmp/zone.two' 'zone 10.99.0.2:53 /tmp/zone.vpn' \
		'http [::]:7000 peer' 'streams [::]:7001' 'tcp-echo [::]:7002' 'udp-echo 192.0.2.1:5000' \
		'udp-echo 10.99.0.2:5000'; do
		background peer fixture $server
	done
	for server in 'http [::]:8082 host' 'udp-echo [::]:8082' 'tcp-echo [::]:8084'; do
		background user fixture $server
	done
	wait_for peer :53 8
	wait_for peer '[57]00[0-2]' 5
	wait_for '' :808 3
}

# The cable and its addresses.
cable() {
	ip link add eth0 type veth peer name eth1 netns peer
	ip address add 10.77.0.1/24 dev eth0
	ip address add fd77::1/64 dev eth0 nodad
	ip link set eth0 up
	peer ip address add 10.77.0.2/24 dev eth1
	peer ip address add 10.77.0.3/24 dev eth1
	peer ip address add fd77::2/64 dev eth1 nodad
	peer ip link set eth1 up
	routes
}

routes() {
	ip route replace default via 10.77.0.2
	ip route replace default via fd77::2
}

# The tunnel to the other machine, on this side.
vpn() {
	ip link add vpn0 mtu 1280 type ipip local 10.77.0.1 remote 10.77.0.2
	ip address add 10.99.0.1/24 dev vpn0
	ip link set vpn0 up
}

# Another machine behind the other one, and the MTU between the two.
router() {
	ip netns add far
	peer ip link add far0 type veth peer name far1 netns far
	peer ip address add 198.51.100.1/24 dev far0
	peer ip link set far0 up
	ip -n far address add 198.51.100.2/24 dev far1
	ip -n far link set lo up
	ip -n far link set far1 up
	ip -n far route add default via 198.51.100.1
	for server in 'streams [::]:7001' 'udp-echo 198.51.100.2:5000'; do
		background ip netns exec far fixture $server
	done
	wait_for 'ip netns exec far' '[57]00[01]' 2
}

far_mtu() {
	peer ip link set far0 mtu "$1"
	ip -n far link set far1 mtu "$1"
}

# The other machine translates what is sent to IPv4 addresses in IPv6 addresses.
nat64() {
	mkdir -p /tmp/tayga
	printf '%s\n' 'tun-device nat64' 'ipv4-addr 192.168.255.1' 'prefix fd77:64::/96' \
		'dynamic-pool 192.168.255.0/24' 'data-dir /tmp/tayga' >/tmp/tayga.conf
	modprobe tun
	peer tayga --mktun -c /tmp/tayga.conf
	peer ip link set nat64 up
	peer ip route add 192.168.255.0/24 dev nat64
	peer ip route add fd77:64::/96 dev nat64
	peer tayga -c /tmp/tayga.conf </dev/null >/dev/null 2>&1
}

nameserver() {
	rm -f /etc/resolv.conf
	echo "nameserver $1" >/etc/resolv.conf
}

# Runs a command that goes on.
background() {
	LIMIT=0
	"$@" </dev/null >/dev/null 2>&1 &
	LIMIT=
}

# Waits until COUNT sockets with a port like PORT listen: `wait_for WHERE PORT COUNT`.
wait_for() {
	until [ "$($1 ss -Hltun | grep -c "$2")" -ge "$3" ]; do
		sleep 0.1
	done
}

# Starts the namespace with these options, and publishes ports of its servers.
start() {
	: >/tmp/trial.log
	chmod 666 /tmp/trial.log
	LIMIT=0
	user rootlesskit --state-dir="$state" --net=gateway --port-driver=gateway "$@" --copy-up=/etc --copy-up=/run \
		--disable-host-loopback fixture http '[::]:8080' inside </dev/null >/tmp/trial.log 2>&1 &
	kit=$!
	until grep -qx ready /tmp/trial.log; do
		if ! kill -0 "$kit" 2>/dev/null; then
			cat /tmp/trial.log >&2
			exit 1
		fi
		sleep 0.1
	done
	inside fixture udp-echo 0.0.0.0:8080 </dev/null >/dev/null 2>&1 &
	inside fixture tcp-echo 0.0.0.0:8085 </dev/null >/dev/null 2>&1 &
	LIMIT=
	user rootlessctl --socket="$state/api.sock" add-ports 0.0.0.0:8081:8080/tcp 0.0.0.0:8081:8080/udp \
		0.0.0.0:8083:8085/tcp >/dev/null
	wait_for inside ':80' 3
}

# Ends the namespace and everything that was held.
stop() {
	pkill -f 'fixture keep|echo 0.0.0.0:808' || :
	pkill -o -u tester -x rootlesskit || :
	while pgrep -u tester -x rootlesskit >/dev/null; do
		sleep 0.1
	done
	rm -f "$kept".*
}

inside() {
	user nsenter --preserve-credentials -U -n -m -t "$(cat "$state/child_pid")" "$@"
}

# The same command in the namespace and on the host: `both LABEL EXPECTED COMMAND...`.
both() {
	label=$1
	wanted=$2
	shift 2
	row "inside $label" "$wanted" inside "$@"
	row "host $label" "$wanted" user "$@"
}

# Looks a name up, as programs do: `name LABEL NAME ADDRESS`.
name() {
	both "$1" "$3" sh -c 'getent ahostsv4 "$1" | sed "s/ .*//; q" | grep .' - "$2"
}

name6() {
	both "$1" "$3" sh -c 'getent ahostsv6 "$1" | sed "s/ .*//; q" | grep .' - "$2"
}

tcp() {
	both "$1" connected sh -c 'fixture probe 5 "tcp/$1" | cut -d " " -f 2' - "$2"
}

udp() {
	both "$1" answered sh -c 'fixture probe 5 "udp/$1" | cut -d " " -f 2' - "$2"
}

# What everything needs.
outbound() {
	name DNS who.test "${1:-192.0.2.1}"
	tcp TCP 192.0.2.1:7000
	udp UDP 192.0.2.1:5000
}

# A transfer in each direction.
bulk() {
	both 'TCP upload' '2000000 ok' sh -c 'fixture stream "$1" sink 2000000 2>&1 | sed "s/ ok .*/ ok/"' - "$1"
	both 'TCP download' '2000000 ok' sh -c 'fixture stream "$1" source 2000000 2>&1 | sed "s/ ok .*/ ok/"' - "$1"
}

# A datagram of 1400 bytes that may be cut.
large() {
	both 'UDP of 1400 bytes' whole sh -c \
		'fixture udp-ask "$1" "$(printf %1400s x)" 2>&1 | awk "length > 1400 { print \"whole\" } length < 1400"' - "$1"
}

# What is too large is refused, then cut: `sizes ADDRESS MTU`.
sizes() {
	both 'size of UDP' "$2 cut" sh -c 'fixture sizes "$1" 0 2>&1 | tr "\n" " " | sed "s/ $//"' - "$1"
}

# A port that is published, and a port of a server on the host.
published() {
	for who in inside:8081 host:8082; do
		address=${1:-10.77.0.1}:${who#*:}
		row "${who%:*} published TCP" connected outcome "tcp/$address"
		row "${who%:*} published UDP" answered outcome "udp/$address"
	done
}

# What the other machine meets.
outcome() {
	peer fixture probe 5 "$1" | cut -d ' ' -f 2
}

# Begins exchanges that go on, in both directions.
hold() {
	LIMIT=0
	for way in inside user; do
		for how in tcp/192.0.2.1:7002 udp/192.0.2.1:5000; do
			$way fixture keep "${how%%/*}" "${how#*/}" </dev/null >"$kept.$way.${how%%/*}" 2>&1 &
		done
	done
	peer fixture keep tcp 10.77.0.1:8083 </dev/null >"$kept.inside.published" 2>&1 &
	peer fixture keep tcp 10.77.0.1:8084 </dev/null >"$kept.user.published" 2>&1 &
	LIMIT=
	held 60
}

# What became of them, waiting at most so many seconds for a sign of life.
held() {
	seconds=$1
	for file in "$kept".*; do
		wc -l <"$file" >"/tmp/before.${file##*/}"
	done
	for i in $(seq $((seconds * 5))); do
		settled=yes
		for file in "$kept".*; do
			case $(became "$file") in stalls) settled=no ;; esac
		done
		[ $settled = no ] || break
		sleep 0.2
	done
	while read -r how what; do
		row "inside $what" 'goes on' became "$kept.inside.$how"
		row "host $what" 'goes on' became "$kept.user.$how"
	done <<-'END'
		tcp open TCP
		udp open UDP
		published open published TCP
	END
}

became() {
	case $(tail -n 1 "$1") in
	ended*) tail -n 1 "$1" ;;
	*) if [ "$(wc -l <"$1")" -gt $(($(cat "/tmp/before.${1##*/}") + 1)) ]; then echo goes on; else echo stalls; fi ;;
	esac
}
