#!/usr/bin/env bash
# Makes the pictures of the inspector in docs/img/ anew, from the real thing: it builds both commands, exposes a
# small shop through a server on this machine, sends it requests, and has a headless Chromium look at the page.
#
#   scripts/screenshots.sh [DIR]
#
# Go and Chromium are all it needs. Nothing but the pictures remains.
set -euo pipefail
case ${1:-} in
  -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$(realpath -m "${1:-$root/docs/img}")
bin=$(mktemp -d "${TMPDIR:-/tmp}/screenshots.XXXXXX")
trap 'rm -rf "$bin"' EXIT
mkdir -p "$out"
go -C "$root" build -o "$bin/" ./cmd/tunnel-server ./cmd/tunnel-client ./scripts/screenshots
"$bin/screenshots" --bin "$bin" --out "$out"
