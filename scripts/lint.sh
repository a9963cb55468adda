#!/usr/bin/env bash
# Checks what a test cannot: form, common mistakes, known vulnerabilities, the layering, and that all that is
# released builds for each system it is for. Runs every check, then exits with 1 if one failed. Go is all
# it needs; the tools come at the versions pinned here and leave go.mod alone.
set -euo pipefail
case ${1:-} in
  -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2
govulncheck=golang.org/x/vuln/cmd/govulncheck@v1.8.0
released=(./cmd/... ./pkg/...)

failed=()

# check NAME COMMAND... runs one check and remembers whether it failed.
check() {
  local name=$1
  shift
  echo "lint: $name"
  if ! "$@"; then
    echo "lint: $name: FAILED" >&2
    failed+=("$name")
  fi
}

formatted() {
  local files
  files=$(gofmt -l -s .) || return 1
  if [ -n "$files" ]; then
    echo "gofmt -s -w would change:"
    echo "$files"
    return 1
  fi
}

# vulnerabilities passes where the database cannot be reached: that says nothing about our code.
vulnerabilities() {
  local out
  if out=$(go run "$govulncheck" ./... 2>&1); then
    echo "$out"
    return 0
  fi
  echo "$out"
  case $out in
    "govulncheck: fetching vulnerabilities: "* | *$'\n'"govulncheck: fetching vulnerabilities: "*)
      echo "lint: the vulnerability database cannot be reached from here: NOT CHECKED"
      return 0
      ;;
  esac
  return 1
}

# build OS ARCH PACKAGE... and vet OS ARCH PACKAGE... compile for another system, without cgo. -trimpath as
# scripts/release.sh has it: its test finds in Go's cache what was built here.
build() { CGO_ENABLED=0 GOOS=$1 GOARCH=$2 go build -trimpath -o /dev/null "${@:3}"; }
vet() { CGO_ENABLED=0 GOOS=$1 GOARCH=$2 go vet "${@:3}"; }

check "gofmt" formatted
check "layers, sizes, package comments" go run ./scripts/layers
check "go vet" go vet ./...
check "staticcheck" go run "$staticcheck" ./...
check "govulncheck" vulnerabilities
for os in darwin windows; do
  check "what is released vets for $os" vet "$os" amd64 "${released[@]}"
  for arch in amd64 arm64; do
    check "what is released builds for $os/$arch" build "$os" "$arch" "${released[@]}"
  done
done
check "all builds for linux/arm64" build linux arm64 ./...

if [ ${#failed[@]} -gt 0 ]; then
  printf 'lint: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "lint: all passed"
