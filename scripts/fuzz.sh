#!/usr/bin/env bash
# Fuzzes every parser of remote bytes, one target after the other, each for a minute:
#
#   scripts/fuzz.sh                   all targets that go test -list finds
#   scripts/fuzz.sh --time 10s        as long each
#   scripts/fuzz.sh --only FuzzVisit  that target alone
#
# Go is all it needs. A target fails on an input that breaks what it promises. That input is kept in
# testdata/fuzz/TARGET of its package, where go test runs it from then on: mend the code, and commit the
# input beside it. The last line sums up; the exit code is 1 where a target failed. What is new but breaks
# nothing stays in Go's build cache, from where the next run goes on; go clean -fuzzcache forgets it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

time=60s
only=

# usage MESSAGE ends the script over a wrong argument.
usage() {
  echo "fuzz: $1; usage: fuzz.sh [--time DURATION] [--only TARGET]" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
    --time | --only)
      [ $# -ge 2 ] || usage "$1 needs a value"
      if [ "$1" = --time ]; then time=$2; else only=$2; fi
      shift 2
      ;;
    -h | --help)
      sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) usage "unknown option $1" ;;
  esac
done
[[ $time =~ ^[0-9]+(ms|s|m|h|x)([0-9]+(ms|s|m))*$ ]] || usage "--time $time is not a duration such as 60s"

[[ $only =~ ^(Fuzz[A-Za-z0-9_]*)?$ ]] || usage "$only is not the name of a target, such as FuzzVisit"

command -v go >/dev/null || {
  echo "fuzz: go is not in the PATH: install Go 1.26 or newer from https://go.dev/dl/" >&2
  exit 1
}
log=$(mktemp "${TMPDIR:-/tmp}/fuzz.XXXXXX")
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# fuzzed prints the packages in whose tests a target may be: the others are not worth compiling.
fuzzed() {
  local package dir
  while read -r package dir; do
    if grep -qs "^func ${only:-Fuzz}" "$dir"/*_test.go; then
      echo "$package"
    fi
  done < <(go list -f '{{.ImportPath}} {{.Dir}}' ./...)
}

# found NUMBER prints the number that stands behind the label NUMBER in the log's last line of progress.
found() {
  local n
  n=$(sed -n "s/^fuzz: elapsed: .*$1: \([0-9]*\).*/\1/p" "$log" | tail -n 1)
  echo "${n:-0}"
}

# broken says whether what go test reports is more than that the end of the time interrupted an input,
# which it may call a failure: "context deadline exceeded", and nothing else.
broken() {
  ! grep -qx ' *context deadline exceeded' "$log" || grep -q '_test\.go:\|Failing input\|panic\|terminated' "$log"
}

# keep PACKAGE DIR prints where the input that failed is kept, if it was not in the code. One that an
# earlier run found harmless is in Go's cache alone, and is copied from there.
keep() {
  local input cached
  input=$(sed -n 's/^ *Failing input written to //p' "$log")
  if [ -z "$input" ]; then
    input=$(sed -n 's/^failure while testing seed corpus entry: //p' "$log" | head -n 1)
    cached=$(go env GOCACHE)/fuzz/$1/$input
    input=testdata/fuzz/$input
    if [ -f "$cached" ] && [ ! -f "$2/$input" ]; then
      mkdir -p "$2/${input%/*}"
      cp "$cached" "$2/$input"
    fi
    [ -f "$2/$input" ] || return 0
  fi
  echo "$input"
}

module=$(go list -m)
packages=() kept=()
while read -r package; do
  packages+=("$package")
done < <(fuzzed)
targets=0 executions=0 failures=0
printf '%-36s %12s %8s  %s\n' target executions new verdict
for package in ${packages[@]+"${packages[@]}"}; do
  dir=${package#"$module"/}
  if ! list=$(go test -list '^Fuzz' "$package" 2>"$log"); then
    printf '%s\n' "$list" >&2
    cat "$log" >&2
    echo "fuzz: the tests of $dir do not compile" >&2
    exit 1
  fi
  for target in $list; do
    [[ $target == Fuzz* ]] || continue # what follows the targets is "ok", and so on
    [ -z "$only" ] || [ "$only" = "$target" ] || continue
    # Minimizing may take a minute of its own for each input that is new; a few tries will do.
    status=0
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 5x "$package" >"$log" 2>&1 || status=$?
    targets=$((targets + 1))
    n=$(found execs)
    executions=$((executions + n))
    verdict=ok
    if [ "$n" -eq 0 ] || { [ "$status" -ne 0 ] && broken; }; then # none at all says nothing
      verdict=FAILED
      failures=$((failures + 1))
    fi
    printf '%-36s %12s %8s  %s\n' "$dir $target" "$n" "$(found 'new interesting')" "$verdict"
    if [ "$verdict" = FAILED ]; then
      grep -v '^fuzz: elapsed' "$log" | cut -c1-2000 | sed 's/^/    /'
      input=$(keep "$package" "$dir")
      [ -z "$input" ] || kept+=("$dir/$input")
    fi
  done
done
if [ "$targets" -eq 0 ]; then
  usage "there is no target $only"
fi
if [ ${#kept[@]} -gt 0 ]; then
  printf 'kept: %s\n' "${kept[@]}"
fi
echo "$targets targets, $executions executions, $failures failed"
[ "$failures" -eq 0 ]
