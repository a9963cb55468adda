#!/usr/bin/env bash
# Measures the tunnel beside yardsticks and peers, on loopback: see scripts/bench.sh --help, and
# docs/performance.md for what the figures mean.
#
# Go is all it needs. It builds both commands and the bench into a temporary folder; nothing remains
# afterwards. Peers (frps and frpc, chisel, piko, sish) are measured where they are on PATH.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

bin=$(mktemp -d "${TMPDIR:-/tmp}/bench-bin.XXXXXX")
bench=
trap 'rm -rf "$bin"' EXIT
# The bench ends what it started, and then itself; wait for that.
trap '[ -z "$bench" ] || { kill -TERM "$bench" 2>/dev/null; wait "$bench" || true; }; exit 130' INT TERM HUP

go build -C "$root" -o "$bin/" ./cmd/... ./scripts/bench

# Ten thousand tunnels are as many descriptors on each side.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true

commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)
[ -z "$(git -C "$root" status --porcelain 2>/dev/null)" ] || commit="$commit with changes"

"$bin/bench" --bin "$bin" --commit "$commit" "$@" &
bench=$!
status=0
wait "$bench" || status=$?
exit "$status"
