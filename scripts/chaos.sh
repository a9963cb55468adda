#!/usr/bin/env bash
# Runs the real binaries under mixed load with a random fault every few seconds, and judges each
# request: see scripts/chaos.sh --help. The exit code is 1 if anything was lost, duplicated or
# truncated unseen.
#
# Go and Linux are all it needs. It builds into a temporary folder; nothing remains afterwards but, when
# something failed, the processes' logs in a folder that the last lines name.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

bin=$(mktemp -d "${TMPDIR:-/tmp}/chaos-bin.XXXXXX")
chaos=
trap 'rm -rf "$bin"' EXIT
# The run ends what it started, and then itself; wait for that.
trap '[ -z "$chaos" ] || { kill -TERM "$chaos" 2>/dev/null; wait "$chaos" || true; }; exit 130' INT TERM HUP

go build -C "$root" -o "$bin/" ./cmd/... ./scripts/chaos

"$bin/chaos" --bin "$bin" "$@" &
chaos=$!
status=0
wait "$chaos" || status=$?
exit "$status"
