#!/usr/bin/env bash
# Exposes a local app through a server on this machine, to see the whole at work:
#
#   scripts/quickstart.sh           a small demo app of its own
#   scripts/quickstart.sh 3000      the app on port 3000 (or host:port, a URL, unix:/path)
#   scripts/quickstart.sh --check   makes one request through the tunnel and ends
#
# Go is all it needs. It builds both commands into bin/, starts them, makes a request through the
# public URL and shows the answer; then it stays until Ctrl-C and shows each further request. Nothing
# but the two binaries remains afterwards. Environment variables TUNNEL_... do not reach what it starts.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
patience=20 # seconds to wait for each part to come up
target=
check=false
for arg in "$@"; do
  case $arg in
    --check) check=true ;;
    -h | --help)
      sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    -*)
      echo "quickstart: unknown option $arg; usage: quickstart.sh [TARGET] [--check]" >&2
      exit 2
      ;;
    *)
      if [ -n "$target" ]; then
        echo "quickstart: one TARGET at a time; usage: quickstart.sh [TARGET] [--check]" >&2
        exit 2
      fi
      target=$arg
      ;;
  esac
done

for variable in ${!TUNNEL_@}; do
  unset "$variable"
done

logs=$(mktemp -d "${TMPDIR:-/tmp}/quickstart.XXXXXX")
pids=() # in the order in which they started; they are ended in the reverse order

# end PID asks a process to end, and ends it after 5 s.
end() {
  local i
  kill -TERM "$1" 2>/dev/null || return 0
  for ((i = 0; i < 50; i++)); do
    kill -0 "$1" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}

cleanup() {
  local i
  trap '' INT TERM HUP
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    end "${pids[i]}"
  done
  rm -rf "$logs"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# fail MESSAGE [LOG...] says what went wrong, with the end of each log that has something in it.
fail() {
  local log
  echo "quickstart: $1" >&2
  for log in "${@:2}"; do
    if [ -s "$log" ]; then
      echo "--- the end of ${log##*/} ---" >&2
      tail -n 30 "$log" >&2
    fi
  done
  exit 1
}

# await PID FILE PATTERN sets found to what the sed expression PATTERN prints of FILE. It fails where the
# process ends first or the wait gets too long.
found=
await() {
  local deadline=$((SECONDS + patience)) alive=true
  while :; do
    kill -0 "$1" 2>/dev/null || alive=false
    # Read after the process was looked at, so that the last words of an ended one are seen.
    found=
    if [ -e "$2" ]; then # the process makes it
      found=$(sed -n "$3" "$2" | head -n 1)
    fi
    if [ -n "$found" ]; then
      return 0
    fi
    if [ "$alive" = false ] || [ "$SECONDS" -ge "$deadline" ]; then
      return 1
    fi
    sleep 0.1
  done
}

# free PORT says whether nothing listens there.
free() { ! (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

command -v go >/dev/null || fail "go is not in the PATH: install Go 1.26 or newer from https://go.dev/dl/"
echo "Building bin/tunnel-server and bin/tunnel-client"
go -C "$root" build -o bin/ ./cmd/tunnel-server ./cmd/tunnel-client || fail "the build failed"
go -C "$root" build -o "$logs/" ./scripts/visit ./examples/demo || fail "the build failed"

name=() # the client keeps a name for each target; the demo app's port is another each time
if [ -z "$target" ]; then
  name=(--name demo)
  "$logs/demo" >"$logs/demo.out" 2>"$logs/demo.log" &
  pids+=($!)
  await $! "$logs/demo.out" '/^http:/p' || fail "the demo app did not start" "$logs/demo.log"
  target=$found
  echo "Exposing the demo app at $target; scripts/quickstart.sh 3000 exposes your own on port 3000"
fi

listen=127.0.0.1:8080
free 8080 || listen=127.0.0.1:0
"$root/bin/tunnel-server" serve --listen "$listen" --log-format json --grace 2s >"$logs/server.log" 2>&1 &
server=$!
pids+=("$server")
await "$server" "$logs/server.log" 's/.*"msg":"listening".*"addr":"\([^"]*\)".*/\1/p' ||
  fail "the server did not start on $listen" "$logs/server.log"
addr=$found
echo "The server listens on $addr"

XDG_STATE_HOME="$logs" "$root/bin/tunnel-client" http --server "http://$addr" --json --log-level debug --grace 2s ${name[@]+"${name[@]}"} "$target" \
  >"$logs/client.out" 2>"$logs/client.log" &
client=$!
pids+=("$client")
await "$client" "$logs/client.out" '/"event":"ready"/s/.*"url":"\([^"]*\)".*/\1/p' ||
  fail "the client got no public URL" "$logs/client.log" "$logs/client.out" "$logs/server.log"
url=$found
target=$(sed -n '/"event":"ready"/s/.*"target":"\([^"]*\)".*/\1/p' "$logs/client.out" | head -n 1)

echo
echo "A request through the tunnel:"
answered=true
"$logs/visit" "$url" >"$logs/visit.out" 2>&1 || answered=false
sed 's/^/    /' "$logs/visit.out"
echo
if [ "$check" = true ]; then
  [ "$answered" = true ] || fail "no answer of $target came through $url" "$logs/client.log" "$logs/server.log"
  echo "$url leads to $target: checked"
  exit 0
fi
[ "$answered" = true ] || echo "The tunnel is up, but $target did not answer: start it, then open the URL."

echo "Public URL   $url"
echo "Local app    $target"
echo "Ctrl-C ends it. Requests, as the client logs them:"
echo
tail -n +2 -f "$logs/client.out" &
pids+=($!)
tail -n +1 -f "$logs/client.log" &
pids+=($!)

trap 'echo; exit 0' INT TERM
while kill -0 "$client" 2>/dev/null && kill -0 "$server" 2>/dev/null; do
  sleep 0.5
done
kill -0 "$server" 2>/dev/null || fail "the server ended" "$logs/server.log"
fail "the client ended" "$logs/client.log"
