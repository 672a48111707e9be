#!/bin/sh
# Installs rootless Docker into the home of the user who runs it: no root, nothing outside of DOCKER_BIN but what
# dockerd-rootless-setuptool.sh makes. POSIX sh; needs tar, gzip and sha256sum, and curl or wget for a remote folder.
#
# Everything is a function, and the last line calls the first of them: a script that was cut short on its way does
# nothing at all.
set -eu

usage() {
	cat <<-'END'
		Usage: install.sh [OPTIONS OF dockerd-rootless-setuptool.sh install]
		       install.sh uninstall [--purge]

		DOCKER_ROOTLESS_URL     folder of a release: http(s)://..., file://... or a path; {arch} in it becomes the
		                        machine's name (x86_64, aarch64, armhf, ...). Default: where this script lies
		VERSION                 which docker-rootless-extras-VERSION.tgz. Default: the one in the folder's SHA256SUMS
		DOCKER_BIN              where programs go. Default: ~/bin
		DOCKER_VERSION          which docker-VERSION.tgz, the daemon and the client. Default: the one in SHA256SUMS,
		                        or else what is installed already
		DOCKER_DOWNLOAD_URL     mirror of https://download.docker.com for docker-VERSION.tgz
		CHANNEL                 stable (default) or test: folder of docker-VERSION.tgz on that site
		DOCKER_SHA256           checksum of docker-VERSION.tgz, which that site does not publish; `none` trusts https
		REPLACE                 non-empty: replaces programs in DOCKER_BIN that this script did not install
		SKIP_IPTABLES           non-empty: as --skip-iptables
		FORCE_ROOTLESS_INSTALL  non-empty: as --force; a rootful Docker is no obstacle
		http_proxy, https_proxy, no_proxy: as curl and wget understand them
	END
}

main() {
	extras=docker-rootless-extras
	staging=
	locked=
	made_bin=
	status=0
	case ${1-} in
	-h | --help)
		usage
		return 0
		;;
	esac
	settings
	check_host
	trap 'status=$?; clean_up; exit "$status"' EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	if [ "${1-}" = uninstall ]; then
		shift
		uninstall "$@"
	else
		install "$@"
	fi
}

say() {
	printf '# %s\n' "$*"
}

warn() {
	printf 'warning: %s\n' "$*" >&2
}

# fail MESSAGE [HINT]: says what is wrong and what to do, and ends the script.
fail() {
	printf 'error: %s\n' "$1" >&2
	[ -z "${2-}" ] || printf 'hint: %s\n' "$2" >&2
	exit 1
}

traced() {
	printf '+ %s\n' "$*" >&2
	"$@"
}

has() {
	command -v "$1" >/dev/null 2>&1
}

settings() {
	[ -d "${HOME-}" ] || fail "HOME is ${HOME:-not set}: not a folder" "export HOME=/path/of/your/home"
	bin=${DOCKER_BIN:-$HOME/bin}
	case $bin in
	/*) ;;
	*) bin=$(pwd)/$bin ;;
	esac
	channel=${CHANNEL:-stable}
	case $channel in
	stable | test) ;;
	*) fail "CHANNEL is $channel: not stable or test" ;;
	esac
	site=${DOCKER_DOWNLOAD_URL:-https://download.docker.com}
	site=${site%/}
	# Docker's names of architectures, which differ from the kernel's for 32-bit ARM.
	machine=$(uname -m)
	case $machine in
	amd64) arch=x86_64 ;;
	arm64) arch=aarch64 ;;
	armv7l | armv8l) arch=armhf ;;
	armv6l) arch=armel ;;
	*) arch=$machine ;;
	esac
}

check_host() {
	[ "$(uname)" = Linux ] || fail "rootless Docker runs on Linux, not on $(uname)"
	[ "$(id -u)" != 0 ] || fail "refusing to install rootless Docker as root" \
		"run this as the user who is to run Docker; root installs packages instead"
	for tool in tar gzip sha256sum; do
		has "$tool" || fail "$tool is not in PATH" "ask an administrator to install it"
	done
}

# What would stop the setup in the end, before anything is downloaded. The setup tool itself checks far more.
check_session() {
	if [ -w /var/run/docker.sock ] && [ -z "${FORCE_ROOTLESS_INSTALL-}" ]; then
		fail "a rootful Docker is running and accessible (/var/run/docker.sock)" \
			"set FORCE_ROOTLESS_INSTALL=1 to install beside it"
	fi
	if [ -n "${XDG_RUNTIME_DIR-}" ] && [ ! -w "$XDG_RUNTIME_DIR" ] && has systemctl &&
		systemctl --user show-environment >/dev/null 2>&1; then
		fail "XDG_RUNTIME_DIR is $XDG_RUNTIME_DIR: not writable" \
			"su and sudo do not set it: log in through ssh, or with: machinectl shell $(id -un)@"
	fi
}

install() {
	check_session
	find_folder
	make_bin
	lock_bin
	trap 'status=$?; clean_up; not_done; exit "$status"' EXIT
	get_sums
	choose_release
	choose_engine
	say "Installing $extras $version (channel $channel, $arch) from $folder into $bin"
	fetch_archive "$extras" "$version" "$folder" "$(sum_of "$extras-$version.tgz")"
	[ -z "$engine" ] || fetch_archive docker "$engine" "$engine_folder" "$engine_sum"
	# Nothing in DOCKER_BIN has changed so far.
	place_archive "$extras" "$version"
	[ -z "$engine" ] || place_archive docker "$engine"
	clean_up
	set_up "$@"
	trap - EXIT
}

not_done() {
	[ "$status" = 0 ] || printf '%s\n' \
		"The installation is not complete (exit status $status). When the cause is gone, run this script again." >&2
}

# The folder of the release: what is asked for, or else where this script lies.
find_folder() {
	folder=${DOCKER_ROOTLESS_URL-}
	if [ -z "$folder" ]; then
		case $0 in
		*.sh)
			folder=$(cd "$(dirname "$0")" && pwd)
			[ -f "$folder/SHA256SUMS" ] || folder=
			;;
		esac
	fi
	[ -n "$folder" ] || fail "DOCKER_ROOTLESS_URL is not set, and no SHA256SUMS lies beside this script" \
		"DOCKER_ROOTLESS_URL=https://HOST/FOLDER, the folder that this script came from"
	while case $folder in *'{arch}'*) true ;; *) false ;; esac do
		folder=${folder%%'{arch}'*}$arch${folder#*'{arch}'}
	done
	folder=${folder%/}
	case $folder in
	http://*) warn "$folder is not encrypted: programs and checksums are as trustworthy as the network" ;;
	esac
}

make_bin() {
	if [ ! -d "$bin" ]; then
		mkdir -p "$bin" || fail "cannot make $bin" "set DOCKER_BIN to a folder that you may write to"
		made_bin=yes
	fi
	[ -w "$bin" ] || fail "$bin is not writable" "set DOCKER_BIN to a folder that you may write to"
}

# Takes the lock of DOCKER_BIN, and makes the folder in it where everything is got ready, so that a rename brings it into
# place. The lock is flock's, which ends with its holder. Without flock(1) it is a link whose text is the holder's pid:
# made in one step, but nobody can take it over without a race, so an interrupted run is told and not cleared away.
lock_bin() {
	lock=$bin/.$extras.lock
	new=$bin/.$extras.new
	if has flock && [ ! -h "$lock" ]; then
		while true; do
			# A run without flock(1) may have put its link here meanwhile. The file is made only if nothing is there: ">>"
			# would follow the link.
			[ -e "$lock" ] || (set -C && : >"$lock") 2>/dev/null || true
			[ ! -h "$lock" ] || busy "$(readlink "$lock" || true)"
			exec 9>>"$lock"
			flock -n 9 || busy "$(cat "$lock" 2>/dev/null || true)"
			# The holder before may have removed the file after it was opened here. Not in POSIX, but every sh
			# that has flock(1) beside it (dash, bash, busybox) knows -ef.
			# shellcheck disable=SC3013
			if [ ! -h "$lock" ] && [ "$lock" -ef /proc/self/fd/9 ]; then break; fi
		done
		echo $$ >"$lock"
	else
		ln -s $$ "$lock" 2>/dev/null || busy "$(readlink "$lock" || true)"
	fi
	locked=yes
	if [ -e "$new" ]; then
		say "Clearing away what an interrupted run left"
		[ ! -e "$new/made" ] || made_bin=yes
		rm -rf "$new"
	fi
	staging=$new
	mkdir -m 700 "$staging"
	[ -z "$made_bin" ] || : >"$staging/made"
}

# busy PID: says who has the lock. The folder is that run's now, whoever made it.
busy() {
	made_bin=
	if [ -h "$lock" ] && ! kill -0 "$1" 2>/dev/null; then
		fail "a run of this script (pid $1) was interrupted in $bin" "rm -rf '$lock' '$new', and run this script again"
	fi
	fail "another run of this script${1:+ (pid $1)} works in $bin" "wait for it; if that is another program by now: rm -rf '$lock' '$new'"
}

clean_up() {
	[ -z "$staging" ] || rm -rf "$staging"
	staging=
	if [ -n "$locked" ]; then
		rm -f "$lock"
		exec 9>&-
	fi
	locked=
	# Only if this run made it and left it empty.
	[ -z "$made_bin" ] || rmdir "$bin" 2>/dev/null || true
}

# fetch ADDRESS FILE: FILE appears only if all of it came.
fetch() {
	rm -f "$2.part"
	case $1 in
	http://* | https://*) download "$1" "$2.part" ;;
	*) cp "${1#file://}" "$2.part" || fail "cannot read ${1#file://}" ;;
	esac
	mv -f "$2.part" "$2"
}

download() {
	case $1 in
	https://*) next='=https' ;;
	*) next='=http,https' ;;
	esac
	if has curl; then
		# No answer is an error, and so is an answer that stops coming; encryption is not given up on the way.
		curl -fsSL --proto-redir "$next" --retry 3 --connect-timeout 30 --speed-limit 1 --speed-time 60 -o "$2" "$1" && return 0
		got="curl ended with exit status $?"
	elif has wget; then
		wget -q -t 3 -T 60 -O "$2" "$1" && return 0
		got="wget ended with exit status $?"
	else
		fail "neither curl nor wget is in PATH" "install one of them, or set DOCKER_ROOTLESS_URL to a local folder"
	fi
	fail "cannot download $1: $got" "is the address right? Behind a proxy: export https_proxy=http://PROXY:PORT"
}

get_sums() {
	fetch "$folder/SHA256SUMS" "$staging/SHA256SUMS"
	grep -Eq '^[0-9a-f]{64} [ *][^/]+$' "$staging/SHA256SUMS" || fail "$folder/SHA256SUMS is no list of checksums" \
		"does a proxy or a login page answer in its place?"
}

# sum_of FILE: its line in SHA256SUMS, or nothing.
sum_of() {
	sed -n 's/^\([0-9a-f]\{64\}\) [ *]\([^/]*\)$/\1 \2/p' "$staging/SHA256SUMS" |
		while read -r sum name; do
			[ "$name" != "$1" ] || printf '%s\n' "$sum"
		done
}

# versions_of NAME: the versions of NAME-VERSION.tgz in SHA256SUMS, one a line.
versions_of() {
	sed -n "s/^[0-9a-f]\{64\} [ *]$1-\([0-9][0-9A-Za-z.+~-]*\)\.tgz\$/\1/p" "$staging/SHA256SUMS"
}

# one_version NAME VARIABLE: the only one, or a question.
one_version() {
	found=$(versions_of "$1")
	case $found in
	*"
"*) fail "$folder has more than one version of $1: $(echo "$found" | tr '\n' ' ')" "set $2 to one of them" ;;
	esac
}

choose_release() {
	version=${VERSION-}
	if [ -z "$version" ]; then
		one_version "$extras" VERSION
		version=$found
		[ -n "$version" ] || fail "$folder/SHA256SUMS lists no $extras-VERSION.tgz"
	fi
	[ -n "$(sum_of "$extras-$version.tgz")" ] || fail "$folder/SHA256SUMS has no $extras-$version.tgz" \
		"it has: $(versions_of "$extras" | tr '\n' ' ')"
}

# The daemon and the client: of the release's folder, of Docker's site, or whatever is there already.
choose_engine() {
	engine=${DOCKER_VERSION-}
	if [ -z "$engine" ]; then
		one_version docker DOCKER_VERSION
		engine=$found
	fi
	if [ -z "$engine" ]; then
		PATH=$bin:$PATH:/usr/sbin:/sbin
		if has dockerd && has docker; then
			say "Docker itself is here: $(command -v dockerd), $(command -v docker)"
			return 0
		fi
		no_static_engine
		fail "dockerd and docker are not installed, and DOCKER_VERSION does not say which to download" \
			"versions are listed at $site/linux/static/$channel/$arch/"
	fi
	engine_folder=$folder
	engine_sum=$(sum_of "docker-$engine.tgz")
	[ -z "$engine_sum" ] || return 0
	no_static_engine
	engine_folder=$site/linux/static/$channel/$arch
	engine_sum=${DOCKER_SHA256-}
	[ -n "$engine_sum" ] || fail "the checksum of docker-$engine.tgz is not known: Docker's site publishes none" \
		"set DOCKER_SHA256 to that of a copy you trust, or to none to trust the encryption of $site"
	case $engine_sum,$site in
	none,http://*) fail "DOCKER_SHA256=none needs https, not $site" ;;
	esac
}

no_static_engine() {
	case $arch in
	s390x | riscv64 | armel)
		fail "Docker publishes no static programs for $arch that run rootless" \
			"install the packages of your distribution first (dockerd and docker), then run this again"
		;;
	esac
}

checksum() {
	sha256sum <"$1" | cut -d ' ' -f 1
}

# fetch_archive NAME VERSION FOLDER SUM: gets, verifies and unpacks NAME-VERSION.tgz, unless just that is installed.
fetch_archive() {
	file=$1-$2.tgz
	top=$1
	list=$bin/.$1.manifest
	if [ -f "$list" ] && grep -qx "# archive $4" "$list" && intact "$list"; then
		say "$1 $2 is in $bin already"
		return 0
	fi
	say "Getting $3/$file"
	fetch "$3/$file" "$staging/$file"
	found=$(checksum "$staging/$file")
	if [ "$4" != none ] && [ "$found" != "$4" ]; then
		fail "$file has the checksum $found instead of $4: nothing of it is used" "try again, or another mirror"
	fi
	# Flat, and nothing but names of programs: what is not in the list of installed files cannot be removed again.
	gzip -dc "$staging/$file" | tar -tf - >"$staging/members" || fail "$file is no archive"
	if grep -Evqx "$top/([A-Za-z0-9][A-Za-z0-9._-]*)?" "$staging/members"; then
		fail "$file holds more than programs in $top/"
	fi
	gzip -dc "$staging/$file" | (cd "$staging" && tar -xof -) || fail "cannot unpack $file" "is the disk full?"
	for path in "$staging/$top"/*; do
		case $(readlink "$path" || true) in
		*/*) fail "$file holds a link that leads elsewhere: ${path##*/}" ;;
		esac
	done
	echo "$found" >"$staging/$1.sum"
	if [ "$1" = "$extras" ] && ! "$staging/$top/rootlesskit" --version >/dev/null 2>&1; then
		fail "the rootlesskit in $file does not run on this machine ($machine)" \
			"is it for another architecture, or is $bin mounted noexec?"
	fi
	check_foreign "$1"
}

# intact LIST: whether all files of a list are as they were installed.
intact() {
	while read -r sum name link; do
		case $sum in
		'#') continue ;;
		link) [ "$(readlink "$bin/$name" || true)" = "$link" ] || return 1 ;;
		*) [ -f "$bin/$name" ] && [ "$(checksum "$bin/$name")" = "$sum" ] || return 1 ;;
		esac
	done <"$1"
}

# listed FILE LIST...: whether a list of installed files has it.
listed() {
	wanted=$1
	shift
	cat "$@" 2>/dev/null | grep -v '^#' | cut -d ' ' -f 2 | grep -Fqx -e "$wanted"
}

# check_foreign NAME: programs of other origin are not touched without being asked to.
check_foreign() {
	for path in "$staging/$1"/*; do
		name=${path##*/}
		[ -e "$bin/$name" ] || [ -h "$bin/$name" ] || continue
		if [ -z "${REPLACE-}" ] && ! listed "$name" "$bin/.$extras.manifest" "$bin/.docker.manifest"; then
			fail "$bin/$name is there, and not from this script" \
				"remove it (systemctl --user stop docker; rm -f '$bin/$name'), set REPLACE=1, or set DOCKER_BIN"
		fi
	done
}

# place_archive NAME VERSION: moves what was unpacked into DOCKER_BIN. Programs that run go on: each file is replaced by
# a rename. The list of installed files is there before the first of them.
place_archive() {
	[ -d "$staging/$1" ] || return 0
	list=$bin/.$1.manifest
	{
		echo "# $1 $2: files that install.sh put here; install.sh uninstall removes them"
		if [ -n "$made_bin" ] || grep -qsx '# made the folder' "$list"; then
			echo '# made the folder'
		fi
		for path in "$staging/$1"/*; do
			if [ -h "$path" ]; then
				echo "link ${path##*/} $(readlink "$path")"
			else
				chmod 755 "$path"
				echo "$(checksum "$path") ${path##*/}"
			fi
		done
	} >"$staging/list"
	cp "$staging/list" "$staging/both"
	[ ! -f "$list" ] || grep -v '^#' "$list" >>"$staging/both" || true
	mv -f "$staging/both" "$list"
	made_bin=
	for path in "$staging/$1"/*; do
		mv -f "$path" "$bin/${path##*/}"
	done
	# What an older version had and this one has not.
	grep -v '^#' "$list" | while read -r sum name link; do
		listed "$name" "$staging/list" || remove_entry "$sum" "$name" "$link" >/dev/null
	done
	echo "# archive $(cat "$staging/$1.sum")" >>"$staging/list"
	mv -f "$staging/list" "$list"
	say "$1 $2 is in $bin"
}

# remove_entry SUM NAME LINK: removes a file if it still is what was installed, and otherwise prints its name.
remove_entry() {
	path=$bin/$2
	if [ -h "$path" ]; then
		now="link $(readlink "$path")"
	elif [ -f "$path" ]; then
		now=$(checksum "$path")
	else
		return 0
	fi
	if [ "$now" = "$1${3:+ $3}" ]; then
		rm -f "$path"
	else
		echo "$2"
	fi
}

# The rest is the setup tool's: it looks at everything, and says what an administrator has to do.
set_up() {
	tool=$bin/dockerd-rootless-setuptool.sh
	[ -z "${SKIP_IPTABLES-}" ] || set -- --skip-iptables "$@"
	[ -z "${FORCE_ROOTLESS_INSTALL-}" ] || set -- --force "$@"
	PATH=$bin:$PATH
	export PATH
	traced "$tool" install "$@" || exit
}

uninstall() {
	lists=
	for list in "$bin/.$extras.manifest" "$bin/.docker.manifest"; do
		[ ! -f "$list" ] || lists=yes
	done
	[ -n "$lists" ] || fail "$bin holds nothing that this script installed" "set DOCKER_BIN as for the installation"
	lock_bin
	tool=$bin/dockerd-rootless-setuptool.sh
	if [ -x "$tool" ]; then
		PATH=$bin:$PATH
		export PATH
		traced "$tool" uninstall "$@" 9>&- || fail "$tool uninstall failed, so the programs stay" "see above, then run this again"
	fi
	made=
	# The setup tool's archive last: an interrupted removal can be repeated.
	for list in "$bin/.docker.manifest" "$bin/.$extras.manifest"; do
		[ -f "$list" ] || continue
		! grep -qx '# made the folder' "$list" || made=yes
		changed=$(grep -v '^#' "$list" | sort -u | while read -r sum name link; do
			remove_entry "$sum" "$name" "$link"
		done | sort -u)
		for name in $changed; do
			[ ! -e "$bin/$name" ] || warn "$bin/$name is not as it was installed, and stays"
		done
		rm -f "$list"
	done
	clean_up
	[ -z "$made" ] || rmdir "$bin" 2>/dev/null || true
	say "Removed what was installed into $bin"
}

main "$@"
