#!/usr/bin/env bash
# Runs the tests under the race detector:
#
#   scripts/test.sh                     all of them
#   scripts/test.sh -run Hold -v        arguments go to go test
#   scripts/test.sh ./pkg/mux -count=5  packages instead of all of them
#
# Go is all it needs. The end-to-end tests in e2e/ use other programs too (Chromium, npm, nginx, ...);
# where one is missing its test is skipped and says so, and fails where CI=true.
set -euo pipefail
case ${1:-} in
  -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(./...)
for arg in "$@"; do
  case $arg in
    ./* | github.com/revtun/tunnel*) packages=() ;;
  esac
done

# The race detector needs a C compiler on most systems, and some have no race detector.
race=(-race)
if ! why=$(go list -race ./scripts/layers 2>&1); then
  if [ "${CI:-}" = true ]; then
    echo "test: the race detector does not work here: $why" >&2
    exit 1
  fi
  echo "test: without the race detector: $why" >&2
  race=()
fi

# The first of several -timeout loses, so one in the arguments holds. It is for each package, and only
# for what hangs: a slow machine that compiles beside the tests takes minutes for e2e.
exec go test ${race[@]+"${race[@]}"} -timeout 20m ${packages[@]+"${packages[@]}"} "$@"
