#!/bin/sh
# Installs rootless Docker into the home directory of the user who runs it. It needs no root, and writes only to
# DOCKER_BIN, apart from the files that dockerd-rootless-setuptool.sh creates. It is written in POSIX sh and needs tar,
# gzip and sha256sum, and curl or wget for a remote directory.
#
# All code is in functions, and only the last line calls one: a script that was truncated during download does nothing.
set -eu

usage() {
	cat <<-'END'
		Usage: install.sh [OPTIONS OF dockerd-rootless-setuptool.sh install]
		       install.sh uninstall [--purge]

		Environment variables:

		DOCKER_ROOTLESS_URL     release directory: http(s)://..., file://... or a path; {arch} is replaced by the
		                        architecture (x86_64, aarch64, armhf, ...). Default: the directory of this script
		VERSION                 version of docker-rootless-extras-VERSION.tgz. Default: the one in SHA256SUMS
		DOCKER_BIN              directory for the programs. Default: ~/bin
		DOCKER_VERSION          version of docker-VERSION.tgz, which contains the daemon and the client. Default: the
		                        one in SHA256SUMS; if there is none, the installed dockerd and docker are used
		DOCKER_DOWNLOAD_URL     mirror of https://download.docker.com for docker-VERSION.tgz
		CHANNEL                 stable (default) or test: directory of docker-VERSION.tgz on that site
		DOCKER_SHA256           checksum of docker-VERSION.tgz, which that site does not publish; `none` trusts HTTPS
		REPLACE                 non-empty: replace programs in DOCKER_BIN that this script did not install
		SKIP_IPTABLES           non-empty: same as --skip-iptables
		FORCE_ROOTLESS_INSTALL  non-empty: same as --force; install even if a rootful Docker is running
		http_proxy, https_proxy, no_proxy: passed on to curl or wget
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

# fail MESSAGE [HINT]: prints the error and how to fix it, and exits.
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
	[ -d "${HOME-}" ] || fail "HOME is ${HOME:-not set}, which is not a directory" "run: export HOME=/path/of/your/home"
	bin=${DOCKER_BIN:-$HOME/bin}
	case $bin in
	/*) ;;
	*) bin=$(pwd)/$bin ;;
	esac
	channel=${CHANNEL:-stable}
	case $channel in
	stable | test) ;;
	*) fail "CHANNEL is $channel, but must be stable or test" ;;
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
		"run this as the user who will use Docker; to install system-wide, use the packages"
	for tool in tar gzip sha256sum; do
		has "$tool" || fail "$tool is not in PATH" "ask an administrator to install it"
	done
}

# Finds what would make the setup fail at the end, before anything is downloaded. The setup tool checks much more.
check_session() {
	if [ -w /var/run/docker.sock ] && [ -z "${FORCE_ROOTLESS_INSTALL-}" ]; then
		fail "a rootful Docker is running and accessible (/var/run/docker.sock)" \
			"set FORCE_ROOTLESS_INSTALL=1 to install alongside it"
	fi
	if [ -n "${XDG_RUNTIME_DIR-}" ] && [ ! -w "$XDG_RUNTIME_DIR" ] && has systemctl &&
		systemctl --user show-environment >/dev/null 2>&1; then
		fail "XDG_RUNTIME_DIR is $XDG_RUNTIME_DIR, which is not writable" \
			"su and sudo do not set XDG_RUNTIME_DIR; open a login session: ssh $(id -un)@localhost, or sudo machinectl shell $(id -un)@"
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
		"The installation is incomplete (exit status $status). Fix the cause, then run this script again." >&2
}

# The release directory: the requested one, or else the directory of this script.
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
	[ -n "$folder" ] || fail "DOCKER_ROOTLESS_URL is not set, and there is no SHA256SUMS next to this script" \
		"set DOCKER_ROOTLESS_URL=https://HOST/FOLDER, the address of the directory that this script came from"
	while case $folder in *'{arch}'*) true ;; *) false ;; esac do
		folder=${folder%%'{arch}'*}$arch${folder#*'{arch}'}
	done
	folder=${folder%/}
	case $folder in
	http://*) warn "the connection to $folder is not encrypted: programs and checksums are only as trustworthy as the network" ;;
	esac
}

make_bin() {
	if [ ! -d "$bin" ]; then
		mkdir -p "$bin" || fail "cannot create $bin" "set DOCKER_BIN to a directory that you can write to"
		made_bin=yes
	fi
	[ -w "$bin" ] || fail "$bin is not writable" "set DOCKER_BIN to a directory that you can write to"
}

# Locks DOCKER_BIN and creates the staging directory in it, from which files are renamed into place. The lock is taken
# with flock(1) and ends with its holder. Without flock(1), it is a symbolic link whose target is the holder's pid. The
# link is created atomically, but cannot be taken over without a race, so an interrupted run is only reported.
lock_bin() {
	lock=$bin/.$extras.lock
	new=$bin/.$extras.new
	if has flock && [ ! -h "$lock" ]; then
		while true; do
			# A run without flock(1) may have created its link in the meantime. Create the file only if nothing exists,
			# because ">>" would follow the link.
			[ -e "$lock" ] || (set -C && : >"$lock") 2>/dev/null || true
			[ ! -h "$lock" ] || busy "$(readlink "$lock" || true)"
			exec 9>>"$lock"
			flock -n 9 || busy "$(cat "$lock" 2>/dev/null || true)"
			# The previous holder may have removed the file after it was opened here. -ef is not in POSIX, but every
			# sh on a system with flock(1) (dash, bash, busybox) supports it.
			# shellcheck disable=SC3013
			if [ ! -h "$lock" ] && [ "$lock" -ef /proc/self/fd/9 ]; then break; fi
		done
		echo $$ >"$lock"
	else
		ln -s $$ "$lock" 2>/dev/null || busy "$(readlink "$lock" || true)"
	fi
	locked=yes
	if [ -e "$new" ]; then
		say "Cleaning up after an interrupted run"
		[ ! -e "$new/made" ] || made_bin=yes
		rm -rf "$new"
	fi
	staging=$new
	mkdir -m 700 "$staging"
	[ -z "$made_bin" ] || : >"$staging/made"
}

# busy PID: reports the lock's holder. The directory now belongs to that run, no matter which run created it.
busy() {
	made_bin=
	if [ -h "$lock" ] && ! kill -0 "$1" 2>/dev/null; then
		fail "a run of this script (pid $1) was interrupted in $bin" "run: rm -rf '$lock' '$new'; then run this script again"
	fi
	fail "another run of this script${1:+ (pid $1)} is using $bin" \
		"wait until it ends; if no run of this script is left, run: rm -rf '$lock' '$new'"
}

clean_up() {
	[ -z "$staging" ] || rm -rf "$staging"
	staging=
	if [ -n "$locked" ]; then
		rm -f "$lock"
		exec 9>&-
	fi
	locked=
	# Only if this run created it and it is empty.
	[ -z "$made_bin" ] || rmdir "$bin" 2>/dev/null || true
}

# fetch ADDRESS FILE: FILE appears only once it is complete.
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
		# A server that does not answer or stops sending is an error. A redirect must not drop encryption.
		curl -fsSL --proto-redir "$next" --retry 3 --connect-timeout 30 --speed-limit 1 --speed-time 60 -o "$2" "$1" && return 0
		got="curl exited with status $?"
	elif has wget; then
		wget -q -t 3 -T 60 -O "$2" "$1" && return 0
		got="wget exited with status $?"
	else
		fail "neither curl nor wget is in PATH" "install one of them, or set DOCKER_ROOTLESS_URL to a local directory"
	fi
	fail "cannot download $1: $got" "check the address; behind a proxy, run: export https_proxy=http://PROXY:PORT"
}

get_sums() {
	fetch "$folder/SHA256SUMS" "$staging/SHA256SUMS"
	grep -Eq '^[0-9a-f]{64} [ *][^/]+$' "$staging/SHA256SUMS" || fail "$folder/SHA256SUMS is not a checksum list" \
		"check whether a proxy or a login page answered instead"
}

# sum_of FILE: its checksum in SHA256SUMS, or nothing.
sum_of() {
	sed -n 's/^\([0-9a-f]\{64\}\) [ *]\([^/]*\)$/\1 \2/p' "$staging/SHA256SUMS" |
		while read -r sum name; do
			[ "$name" != "$1" ] || printf '%s\n' "$sum"
		done
}

# versions_of NAME: the versions of NAME-VERSION.tgz in SHA256SUMS, one per line.
versions_of() {
	sed -n "s/^[0-9a-f]\{64\} [ *]$1-\([0-9][0-9A-Za-z.+~-]*\)\.tgz\$/\1/p" "$staging/SHA256SUMS"
}

# one_version NAME VARIABLE: the only version, or an error that asks for VARIABLE.
one_version() {
	found=$(versions_of "$1")
	case $found in
	*"
"*) fail "$folder has more than one version of $1: $(echo "$found" | tr '\n' ' ')" "set $2 to one of these versions" ;;
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
		"set VERSION to one of these: $(versions_of "$extras" | tr '\n' ' ')"
}

# The daemon and the client: from the release directory, from Docker's site, or the installed ones.
choose_engine() {
	engine=${DOCKER_VERSION-}
	if [ -z "$engine" ]; then
		one_version docker DOCKER_VERSION
		engine=$found
	fi
	if [ -z "$engine" ]; then
		PATH=$bin:$PATH:/usr/sbin:/sbin
		if has dockerd && has docker; then
			say "Using the installed Docker: $(command -v dockerd), $(command -v docker)"
			return 0
		fi
		no_static_engine
		fail "dockerd and docker are not installed, and DOCKER_VERSION is not set" \
			"set DOCKER_VERSION to one of the versions at $site/linux/static/$channel/$arch/"
	fi
	engine_folder=$folder
	engine_sum=$(sum_of "docker-$engine.tgz")
	[ -z "$engine_sum" ] || return 0
	no_static_engine
	engine_folder=$site/linux/static/$channel/$arch
	engine_sum=${DOCKER_SHA256-}
	[ -n "$engine_sum" ] || fail "the checksum of docker-$engine.tgz is unknown: Docker's site publishes no checksums" \
		"set DOCKER_SHA256 to the checksum of a copy you trust, or to none to trust the HTTPS connection to $site"
	case $engine_sum,$site in
	none,http://*) fail "DOCKER_SHA256=none requires HTTPS, but the address is $site" ;;
	esac
}

no_static_engine() {
	case $arch in
	s390x | riscv64 | armel)
		fail "Docker publishes no static programs for $arch that run rootless" \
			"install dockerd and docker from your distribution's packages, then run this script again"
		;;
	esac
}

checksum() {
	sha256sum <"$1" | cut -d ' ' -f 1
}

# fetch_archive NAME VERSION FOLDER SUM: gets, verifies and unpacks NAME-VERSION.tgz, unless that same archive is installed.
fetch_archive() {
	file=$1-$2.tgz
	top=$1
	list=$bin/.$1.manifest
	if [ -f "$list" ] && grep -qx "# archive $4" "$list" && intact "$list"; then
		say "$1 $2 is already installed in $bin"
		return 0
	fi
	say "Fetching $3/$file"
	fetch "$3/$file" "$staging/$file"
	found=$(checksum "$staging/$file")
	if [ "$4" != none ] && [ "$found" != "$4" ]; then
		fail "$file has the checksum $found instead of $4; discarding it" "try again, or use another mirror"
	fi
	# Accept only plain program names in one directory: uninstall can remove only what the manifest lists.
	gzip -dc "$staging/$file" | tar -tf - >"$staging/members" || fail "$file is not a gzip-compressed tar archive"
	if grep -Evqx "$top/([A-Za-z0-9][A-Za-z0-9._-]*)?" "$staging/members"; then
		fail "$file contains more than programs in $top/"
	fi
	gzip -dc "$staging/$file" | (cd "$staging" && tar -xof -) || fail "cannot unpack $file" "check whether the disk is full"
	for path in "$staging/$top"/*; do
		case $(readlink "$path" || true) in
		*/*) fail "$file contains a link that points outside its directory: ${path##*/}" ;;
		esac
	done
	echo "$found" >"$staging/$1.sum"
	if [ "$1" = "$extras" ] && ! "$staging/$top/rootlesskit" --version >/dev/null 2>&1; then
		fail "the rootlesskit in $file does not run on this machine ($machine)" \
			"check that the archive is for this architecture, and that $bin is not mounted noexec"
	fi
	check_foreign "$1"
}

# intact LIST: whether all files in a manifest are unmodified.
intact() {
	while read -r sum name link; do
		case $sum in
		'#') continue ;;
		link) [ "$(readlink "$bin/$name" || true)" = "$link" ] || return 1 ;;
		*) [ -f "$bin/$name" ] && [ "$(checksum "$bin/$name")" = "$sum" ] || return 1 ;;
		esac
	done <"$1"
}

# listed FILE LIST...: whether a manifest lists the file.
listed() {
	wanted=$1
	shift
	cat "$@" 2>/dev/null | grep -v '^#' | cut -d ' ' -f 2 | grep -Fqx -e "$wanted"
}

# check_foreign NAME: fails if it would replace a program that this script did not install, unless REPLACE is set.
check_foreign() {
	for path in "$staging/$1"/*; do
		name=${path##*/}
		[ -e "$bin/$name" ] || [ -h "$bin/$name" ] || continue
		if [ -z "${REPLACE-}" ] && ! listed "$name" "$bin/.$extras.manifest" "$bin/.docker.manifest"; then
			fail "$bin/$name exists and was not installed by this script" \
				"remove it (systemctl --user stop docker; rm -f '$bin/$name'), set REPLACE=1, or set DOCKER_BIN to another directory"
		fi
	done
}

# place_archive NAME VERSION: moves the unpacked files into DOCKER_BIN. Each file is replaced by a rename, so running
# programs are not affected. The manifest is written before the first file is moved.
place_archive() {
	[ -d "$staging/$1" ] || return 0
	list=$bin/.$1.manifest
	{
		echo "# $1 $2: files that install.sh installed here; install.sh uninstall removes them"
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
	# Remove files of an older version that this version no longer has.
	grep -v '^#' "$list" | while read -r sum name link; do
		listed "$name" "$staging/list" || remove_entry "$sum" "$name" "$link" >/dev/null
	done
	echo "# archive $(cat "$staging/$1.sum")" >>"$staging/list"
	mv -f "$staging/list" "$list"
	say "Installed $1 $2 in $bin"
}

# remove_entry SUM NAME LINK: removes a file if it is unmodified, otherwise prints its name.
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

# The setup tool does the rest: it checks the host and reports what an administrator has to do.
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
	[ -n "$lists" ] || fail "$bin contains nothing that this script installed" "set DOCKER_BIN to the directory that you chose for the installation"
	lock_bin
	tool=$bin/dockerd-rootless-setuptool.sh
	if [ -x "$tool" ]; then
		PATH=$bin:$PATH
		export PATH
		traced "$tool" uninstall "$@" 9>&- || fail "$tool uninstall failed, so the programs were kept" "fix the error above, then run this script again"
	fi
	made=
	# Remove the setup tool's archive last, so that an interrupted removal can be repeated.
	for list in "$bin/.docker.manifest" "$bin/.$extras.manifest"; do
		[ -f "$list" ] || continue
		! grep -qx '# made the folder' "$list" || made=yes
		changed=$(grep -v '^#' "$list" | sort -u | while read -r sum name link; do
			remove_entry "$sum" "$name" "$link"
		done | sort -u)
		for name in $changed; do
			[ ! -e "$bin/$name" ] || warn "$bin/$name was modified, so it was kept"
		done
		rm -f "$list"
	done
	clean_up
	[ -z "$made" ] || rmdir "$bin" 2>/dev/null || true
	say "Removed the installed programs from $bin"
}

main "$@"
