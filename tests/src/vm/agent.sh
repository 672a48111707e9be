# The other end of vm/mod.rs in the guest. A request is a line, `WHO BYTES`, and so many bytes; an answer is a line,
# `STATUS BYTES BYTES`, and what was printed to the two streams. With `boot` for a status, it says that the machine
# has started.
set -u
exec 3<>/dev/vport0p1
mkdir -p /run/agent
case $(cat /proc/cmdline) in
*agent.prepared*)
	modprobe -qa $(cat /etc/agent.modules)
	sysctl -qw 'net.ipv4.ping_group_range=0 2147483647'
	;;
esac
# What udev would do, which the hosts do not have.
chmod 666 /dev/net/tun /dev/fuse

# The command for each WHO; it is split at spaces.
env='env -i TERM=dumb LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
files='tar -C / --no-overwrite-dir -xf /run/agent/in'
root="$env HOME=/root USER=root sh /run/agent/in"
user="setpriv --reuid=1001 --regid=1001 --init-groups $env HOME=/home/tester USER=tester
	XDG_RUNTIME_DIR=/run/user/1001 DOCKER_HOST=unix:///run/user/1001/docker.sock sh /run/agent/in"
echo boot 0 0 >&3
while read -r who bytes <&3; do
	if [ "$who" = reboot ]; then
		# It ends this script at any moment, so the answer is that of the next start.
		systemctl --no-block reboot
		continue
	fi
	head -c "$bytes" <&3 >/run/agent/in
	(cd / && exec ${!who}) </dev/null >/run/agent/out 2>/run/agent/err 3>&-
	code=$?
	echo "$code $(stat -c %s /run/agent/out) $(stat -c %s /run/agent/err)" >&3
	cat /run/agent/out /run/agent/err >&3
done
