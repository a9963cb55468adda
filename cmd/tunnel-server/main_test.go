package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/poll"
)

// loopbacks are addresses that need no token.
const loopbacks = "--listen 127.0.0.1:0 --tls-listen 127.0.0.1:0"

// TestRefusesToStart: what would open the door, or serve nobody, is exit code 2
// with the cause and the way out (S12).
func TestRefusesToStart(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) (file string) {
		file = filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	empty, good := write("empty", "# nothing\n\n"), write("good", "a-good-token\n")
	rights := write("rights", "a-good-token domain=app.example.org\nanother-token domains=app.example.org\n")
	for name, test := range map[string]struct {
		args string
		want string // in the message
	}{
		"unknown right":         {"--token-file " + rights, "rights: line 2: after the token comes something"},
		"public without tokens": {"serve --listen 0.0.0.0:0", "--token-file FILE, or --anonymous"},
		"all without tokens":    {"--listen :0", "--token-file FILE, or --anonymous"},
		"name without tokens":   {"--listen example.com:0", "--token-file FILE, or --anonymous"},
		"listen without port":   {"--listen 127.0.0.1", `"127.0.0.1" is not HOST:PORT`},
		"listen on no port":     {"--listen 127.0.0.1:", "is not HOST:PORT"},
		"listen on 99999":       {"--listen 127.0.0.1:99999", `no port "99999"`},
		"TLS without tokens":    {"--listen 127.0.0.1:0 --acme-email a@example.com --domain example.com", "--tls-listen :443 is not a loopback address"},
		"plain without tokens":  {"--tls-listen 127.0.0.1:0 --acme-email a@example.com --domain example.com", "--listen :80 is not a loopback address"},
		"TLS without a way":     {"--tls-listen :443", "give --acme-email ADDRESS, or --cert FILE and --key FILE"},
		"HSTS without TLS":      {"--hsts 1h", "of no use without certificates"},
		"storage without ACME":  {"--acme-storage x", "of no use without --acme-email"},
		"cert without key":      {"--domain x.test --cert x.pem", "--cert needs --key"},
		"key without cert":      {"--domain x.test --key x.key", "--key needs --cert"},
		"two certs, one key":    {"--cert x.pem --cert y.pem --key x.key " + loopbacks, "2 --cert and 1 --key"},
		"ACME address":          {"--acme-email you --domain example.com " + loopbacks, `"you" is not an address`},
		"cert and ACME":         {"--cert x.pem --key x.key --acme-email a@example.com " + loopbacks, "exclude each other"},
		"missing cert":          {"--cert none.pem --key none.key " + loopbacks, "none.pem"},
		"TLS listen":            {"--acme-ca https://ca.test/ --listen 127.0.0.1:0 --tls-listen 127.0.0.1", `"127.0.0.1" is not HOST:PORT`},
		"DNS provider":          {"--acme-dns other --domain example.com " + loopbacks, "self and exec:COMMAND"},
		"missing root":          {"--acme-ca https://ca.test/ --acme-ca-root none.pem " + loopbacks, "none.pem"},
		"empty root":            {"--acme-ca https://ca.test/ --acme-ca-root " + empty + " " + loopbacks, "no certificate in"},
		"allow-plain":           {"--allow-plain a_b --acme-ca https://ca.test/ " + loopbacks, `"a_b" is not a name`},
		"negative HSTS":         {"--hsts -1h --acme-ca https://ca.test/ " + loopbacks, "negative"},
		"no public domain":      {"--acme-email a@example.com --acme-storage " + filepath.Join(dir, "certs") + " " + loopbacks, "localhost"},
		"missing token file":    {"--token-file " + filepath.Join(dir, "none"), "none"},
		"empty token file":      {"--token-file " + empty, "token"},
		"no token file named":   {"--token-file= --anonymous=false", "--token-file names no file"},
		"both":                  {"--anonymous --token-file " + good, "exclude each other"},
		"unknown flag":          {"--lissten x", "defined: --lissten (did you mean --listen? see tunnel-server serve --help)"},
		"half a flag":           {"serve --tokn x", "defined: --tokn (did you mean --token-file? see"},
		"unlike any flag":       {"--xyzzy x", "defined: --xyzzy (see tunnel-server serve --help)"},
		"unknown command":       {"sreve", `"sreve" (did you mean serve?)`},
		"unlike any command":    {"xyzzy", `"xyzzy" (see tunnel-server --help)`},
		"unknown argument":      {"serve now", `"now"`},
		"duration":              {"--park 10", "flag --park: give a time such as 30s, 5m or 48h (see"},
		"number":                {"--max-sessions many", "flag --max-sessions: give a whole number (see"},
		"negative":              {"--grace -1s", "negative"},
		"no sessions":           {"--max-sessions 0", "above 0"},
		"udp ports":             {"--udp-ports 2-1", `--udp-ports "2-1" is not a range`},
		"no udp visitors":       {"--udp-visitors 0", "above 0"},
		"no time for visitors":  {"--udp-idle 999ms", "less than a second"},
		"domain with scheme":    {"--domain https://example.com", "without scheme"},
		"domain is an address":  {"--domain 127.0.0.1", "is an address"},
		"public url":            {"--public-url example.com", "http://HOST"},
		"proxies":               {"--trusted-proxies 10.0.0.0/8,home", `"home"`},
		"memory":                {"--memory-limit lots", `--memory-limit "lots": give a size such as 512MiB`},
		"too little memory":     {"--memory-limit 63MiB", "too little to serve with: give --memory-limit 64MiB at least, or off"},
		"more than all memory":  {"--memory-limit 101%", "at most 100%"},
		"log format":            {"--log-format xml", "text or json"},
		"log level":             {"--log-level loud", "debug, info"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // should it start, it ends at once
			code := run(ctx, append([]string{"tunnel-server"}, strings.Fields(test.args)...), &stdout, &stderr)
			if code != exitUsage || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("exit %d, want 2 and %q in:\n%s%s", code, test.want, stderr.String(), stdout.String())
			}
		})
	}
}

// TestEnvironment: each flag has a variable of its name, and shows its default.
func TestEnvironment(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"tunnel-server", "serve", "--help"}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	for _, f := range flags() {
		name := f.Names()[0]
		if name == "help" {
			continue
		}
		variable := "TUNNEL_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if !regexp.MustCompile(`--` + name + `\b.*\[\$` + variable + `\]`).Match(stdout.Bytes()) {
			t.Errorf("--help does not show --%s with %s:\n%s", name, variable, stdout.String())
		}
	}
	for _, text := range []string{"127.0.0.1:8080", "30s", "1m0s", "10s", "65536", "16384", "10000"} {
		if !strings.Contains(stdout.String(), "default: "+text) && !strings.Contains(stdout.String(), `default: "`+text+`"`) {
			t.Errorf("--help does not show the default %s", text)
		}
	}
	t.Setenv("TUNNEL_LOG_FORMAT", "xml")
	if code := run(t.Context(), []string{"tunnel-server"}, io.Discard, &stderr); code != exitUsage || !strings.Contains(stderr.String(), "xml") {
		t.Errorf("TUNNEL_LOG_FORMAT is not read: exit %d: %s", code, stderr.String())
	}
	t.Setenv("TUNNEL_GRACE", "x")
	if code := run(t.Context(), []string{"tunnel-server"}, io.Discard, &stderr); code != exitUsage || !strings.Contains(stderr.String(), `"TUNNEL_GRACE" for flag grace: give a time such as`) {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
}

// TestEmptyVariables: one that was not filled in is the flag's default, but for
// the token file's, which would leave the door open.
func TestEmptyVariables(t *testing.T) {
	for _, f := range flags() {
		t.Setenv(env(f.Names()[0])[0], "")
	}
	var stderr bytes.Buffer // the token file is looked at last
	if code := run(t.Context(), []string{"tunnel-server"}, io.Discard, &stderr); code != exitUsage || stderr.String() != "tunnel-server: --token-file names no file\n" {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
}

// TestServes: tunnel-server alone is tunnel-server serve, says that the door is
// open, and ends with 0.
func TestServes(t *testing.T) {
	for _, command := range []string{"--listen 127.0.0.1:0", "serve --listen 127.0.0.1:0 --log-format json"} {
		ctx, cancel := context.WithCancel(t.Context())
		stderr := &rig.Buffer{}
		done := make(chan int, 1)
		go func() {
			done <- run(ctx, append([]string{"tunnel-server"}, strings.Fields(command)...), io.Discard, stderr)
		}()
		var url string
		poll.Until(t, "the log has an address", func() bool {
			m := regexp.MustCompile(`addr"?[=:]"?(127\.0\.0\.1:\d+)`).FindStringSubmatch(stderr.String())
			if m != nil {
				url = "http://" + m[1]
			}
			return m != nil
		})
		res, err := http.Get(url + "/healthz")
		if err != nil {
			t.Fatalf("%v: %s", err, stderr.String())
		}
		res.Body.Close()
		if res.StatusCode != 200 || !strings.Contains(stderr.String(), "no --token-file") {
			t.Errorf("%s: status %d, log %s", command, res.StatusCode, stderr.String())
		}
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("%s: exit %d", command, code)
		}
	}
}

func TestAddressInUse(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var stderr bytes.Buffer
	if code := run(ctx, []string{"tunnel-server", "--listen", l.Addr().String()}, io.Discard, &stderr); code != exitRuntime || !strings.Contains(stderr.String(), "another program uses it: stop that, or choose another address with --listen, which clients then need as --server") {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
}

func TestVersion(t *testing.T) {
	for _, command := range []string{"version", "--version"} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{"tunnel-server", command}, &stdout, &stderr); code != 0 || stdout.String() != "tunnel-server version "+version()+"\n" {
			t.Errorf("%s: exit %d: %s%s", command, code, stdout.String(), stderr.String())
		}
	}
}
