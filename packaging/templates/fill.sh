#!/bin/sh
# Copies the templates and fills in their placeholders: fill.sh VERSION SOURCE-URL DIRECTORY
#
# The maintainer comes from DEBFULLNAME and DEBEMAIL, and the date from SOURCE_DATE_EPOCH (default: now). SOURCE_ARCHIVE
# names the source archive, from which the checksums are computed (default: SKIP as the checksum, for testing only).
set -eu

main() {
	if [ $# != 3 ]; then
		echo 'usage: fill.sh VERSION SOURCE-URL DIRECTORY' >&2
		exit 1
	fi
	here=$(cd "$(dirname "$0")" && pwd)
	to=$3
	maintainer="${DEBFULLNAME:-A local build} <${DEBEMAIL:-nobody@local-build.invalid}>"
	epoch=${SOURCE_DATE_EPOCH:-$(date +%s)}
	sha256=SKIP
	sha512=SKIP
	if [ -n "${SOURCE_ARCHIVE-}" ]; then
		sha256=$(sha256sum <"$SOURCE_ARCHIVE" | cut -d ' ' -f 1)
		sha512=$(sha512sum <"$SOURCE_ARCHIVE" | cut -d ' ' -f 1)
	fi
	for template in debian fedora arch alpine nix; do
		(cd "$here" && find "$template" -type f) | while read -r file; do
			mkdir -p "$to/$(dirname "$file")"
			sed -e "s|@VERSION@|$1|g" -e "s|@SOURCE@|$2|g" -e "s|@MAINTAINER@|$maintainer|g" \
				-e "s|@SHA256@|$sha256|g" -e "s|@SHA512@|$sha512|g" \
				-e "s|@DATE@|$(date -u -R -d "@$epoch")|g" \
				-e "s|@RPMDATE@|$(LC_ALL=C date -u -d "@$epoch" '+%a %b %d %Y')|g" "$here/$file" >"$to/$file"
		done
	done
	chmod 755 "$to/debian/rules"
}

main "$@"
