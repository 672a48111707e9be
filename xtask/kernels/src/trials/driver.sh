# A namespace of rootlesskit. In: NET and PORTS (drivers), PORT (the published port of the host).
state=/run/user/1001/trial
: >/tmp/trial.log
user rootlesskit --state-dir="$state" --net="$NET" --port-driver="$PORTS" --ipv6 --copy-up=/etc --copy-up=/run \
	--disable-host-loopback fixture http '[::]:8080' inside >/tmp/trial.log 2>&1 &
kit=$!
until grep -qx ready /tmp/trial.log || ! kill -0 "$kit" 2>/dev/null; do
	sleep 0.1
done
if ! kill -0 "$kit" 2>/dev/null; then
	row start ready cat /tmp/trial.log
	exit
fi
row start ready cat /tmp/trial.log

inside() {
	user nsenter --preserve-credentials -U -n -m -t "$(cat "$state/child_pid")" "$@"
}
row tcp4 'peer from 10.77.0.1' inside fixture get 10.77.0.2:7000
row tcp6 'peer from fd77::1' inside fixture get '[fd77::2]:7000'
row udp4 ' hello' inside fixture udp-ask 10.77.0.2:5000 hello
row udp6 ' hello' inside fixture udp-ask '[fd77::2]:5000' hello
row ping4 ' 0% packet loss' inside ping -c 1 -W 10 10.77.0.2
row ping6 ' 0% packet loss' inside ping -c 1 -W 10 fd77::2
row name 'peer from 10.77.0.1' inside fixture get peer.test:7000
if [ "$PORTS" = implicit ]; then
	# pasta looks once a second for what listens.
	patience=patiently
else
	patience=
	user rootlessctl --socket="$state/api.sock" add-ports "0.0.0.0:$PORT:8080/tcp4" "[::]:$PORT:8080/tcp6" >/dev/null
fi
row published4 'inside from 10.77.0.2' $patience peer fixture get "10.77.0.1:$PORT"
row published6 'inside from fd77::2' $patience peer fixture get "[fd77::1]:$PORT"
if [ "$PORTS" = gateway ]; then
	inside fixture http 127.0.0.1:9080 inside >/dev/null &
	servers=$!
	inside fixture udp-echo 0.0.0.0:9080 >/dev/null &
	servers="$servers $!"
	user rootlessctl --socket="$state/api.sock" add-ports 0.0.0.0:9080:127.0.0.1:9080/tcp 0.0.0.0:9080:9080/udp >/dev/null
	row loopback4 'inside from 10.77.0.2' peer fixture get 10.77.0.1:9080
	row datagrams4 '10.77.0.2:' peer fixture udp-ask 10.77.0.1:9080 hello
	kill $servers
fi
# The first of that name is the parent, which leaves nothing behind.
pkill -o -u tester -x rootlesskit
wait "$kit"
row end '' [ ! -e "$state" ]
