// Package e2e holds the end-to-end tests: they build tunnel-server and
// tunnel-client, run them as a user would, and put real programs at both ends
// and in between, such as browsers, development servers and proxies.
//
// Everything stays on the loopback interface, but for npm, which installs what
// testdata/*/package-lock.json names. A test whose program is missing skips and
// says what to install; where CI=true it fails.
//
// GOFLAGS=-race GORACE=halt_on_error=1 go test ./e2e builds the commands with the
// race detector, too.
package e2e
