#!/usr/bin/env bash
# Holds the real binaries against the promises that show in numbers and over time: see
# scripts/soak.sh --help. The last line is "N passed, N failed"; the exit code is 1 where a promise does
# not hold.
#
# Go and Linux are all it needs, and 20,000 descriptors for each process. It builds into a temporary
# folder; nothing remains afterwards.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

bin=$(mktemp -d "${TMPDIR:-/tmp}/soak-bin.XXXXXX")
soak=
trap 'rm -rf "$bin"' EXIT
# The soak ends what it started, and then itself; wait for that.
trap '[ -z "$soak" ] || { kill -TERM "$soak" 2>/dev/null; wait "$soak" || true; }; exit 130' INT TERM HUP

go build -C "$root" -o "$bin/" ./cmd/... ./scripts/soak

# Ten thousand tunnels are as many descriptors on each side.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true

"$bin/soak" --bin "$bin" "$@" &
soak=$!
status=0
wait "$soak" || status=$?
exit "$status"
