# Docker on a file system of its own, which is the user's home. The variables: STEP is what is tried; MAKE_IMAGE is the
# script that makes the image (tests/src/docker.rs).

# A new file system becomes the home: `home KIND MOUNT-OPTIONS SIZE MKFS-OPTIONS...`.
home() {
	truncate -s "$3" /home.img
	kind=$1
	options=$2
	shift 3
	"mkfs.$kind" -q "$@" /home.img
	mount -o "loop,$options" /home.img /home/tester
	chown tester: /home/tester
}

# Takes all the room that there is, except for what is taken anew by what is running.
fill() {
	user sh -c 'for size in 1M 4k 512; do dd if=/dev/zero of=$HOME/fill.$size bs=$size 2>/dev/null; done; :'
}

# Starts a daemon that failed, as the tool tells people to do.
start() {
	user systemctl --user reset-failed docker.service
	user systemctl --user start docker.service
}

# Restarts it, or says what it said when it ended.
restart() {
	! user systemctl --user restart docker.service || return 0
	user journalctl --user -u docker.service -o cat -n 100 | grep 'failed to start daemon' | tail -n 1
	return 1
}

# Imports what is larger than what is left, which has to fail.
import_much() {
	user sh -c 'mkdir /tmp/much && head -c 150M /dev/zero >/tmp/much/file'
	! user sh -c 'tar -C /tmp/much -c . | docker import -'
	code=$?
	rm -r /tmp/much
	return $code
}

# Removes containers and images; nothing may be left.
remove() {
	user docker rm writer reader && user docker rmi built bb && [ -z "$(user docker images -aq)" ]
}

case $STEP in
whole | quota)
	row install 'Installed docker.service successfully.' user dockerd-rootless-setuptool.sh install
	row driver '' user docker info --format '{{.Driver}}'
	row image sha256: user sh -c "$MAKE_IMAGE"
	row written done user docker run --pull never --name writer bb sh -c \
		'mkdir -p /made/below && echo x >/made/below/file && chown -R 500:500 /made && rm -r /www && echo done'
	folder=$(user mktemp -d)
	printf 'FROM bb\nRUN echo built >/built\n' | user tee "$folder/Dockerfile" >/dev/null
	row build '' user docker build -q -t built "$folder"
	row built built user docker run --pull never --name reader built cat /built
	row volume '' user docker run --pull never --rm -v kept:/kept bb sh -c 'echo x >/kept/file && chown 500 /kept/file'
	if [ "$STEP" = quota ]; then
		row much 'disk quota exceeded' import_much
		# Then there is room again, without anybody's help.
		row after done user docker run --pull never --rm bb echo done
	fi
	row removed '' remove
	purge
	;;
install)
	row install 'Installed docker.service successfully.' user dockerd-rootless-setuptool.sh install
	row driver '' user docker info --format '{{.Driver}}'
	row image sha256: user sh -c "$MAKE_IMAGE"
	;;
restart)
	row restart '' restart
	row run done user docker run --pull never --rm bb echo done
	;;
purge)
	purge
	;;
esac
