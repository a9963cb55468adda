#!/usr/bin/env bash
# Builds what a release is made of, from the commit that is checked out: both commands for each system,
# an archive each, and SHA256SUMS.
#
#   scripts/release.sh                              all systems, into dist/
#   scripts/release.sh --only linux/arm64           that one alone; may be given several times
#   scripts/release.sh --out DIR                    elsewhere
#
# Go and git are all it needs. The binaries are static and their version is the commit's: its tag, such as
# v1.2.3, or a pseudo-version. What is not committed is left out. The same commit and the same version of
# Go give the same bytes, on whatever machine, so that anyone can check an archive by making it again.
set -euo pipefail
case ${1:-} in
  -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command -v go >/dev/null || {
  echo "release: go is not in the PATH: install Go 1.26 or newer from https://go.dev/dl/" >&2
  exit 1
}

bin=$(mktemp -d "${TMPDIR:-/tmp}/release-bin.XXXXXX")
trap 'rm -rf "$bin"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
go build -C "$root" -o "$bin/release" ./scripts/release
status=0
"$bin/release" --root "$root" "$@" || status=$?
exit "$status"
