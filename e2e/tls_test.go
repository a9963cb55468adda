//go:build unix

package e2e

import (
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
)

// With the real programs: the visitor's TLS ends at the client, or at the app, and
// curl and openssl, which have the one certificate for their authority, see no other.
func TestTLSThroughTheServer(t *testing.T) {
	curl, openssl := need(t, "curl", "curl"), need(t, "openssl", "openssl")
	own, sealed := rig.NewCertificate(t, "tunnel.example.com", "*.tunnel.example.com"), rig.NewCertificate(t, "demo.tunnel.example.com")
	server := startServer(t, "--domain", "tunnel.example.com", "--tls-listen", "127.0.0.1:0", "--cert", own.Cert, "--key", own.Key)
	target := app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "sealed "+r.URL.Path) }))
	cmd := exec.Command(filepath.Join(bin, "tunnel-client"), "tls", target, "--json", "--server", server.url,
		"--name", "demo", "--terminate", "--cert", sealed.Cert, "--key", sealed.Key)
	cmd.Env = environment("HOME="+home, "XDG_STATE_HOME="+t.TempDir())
	client := readyClient(t, cmd)
	public, err := url.Parse(client.url)
	if err != nil || public.Scheme != "tls" || public.Hostname() != "demo.tunnel.example.com" {
		t.Fatalf("the URL is %q, %v", client.url, err)
	}
	out := mustRun(t, exec.Command(curl, "-sS", "--noproxy", "*", "--max-time", "20", "--cacert", sealed.Cert,
		"--resolve", public.Host+":127.0.0.1", "https://"+public.Host+"/secret-path"))
	if out != "sealed /secret-path" {
		t.Errorf("curl got %q", out)
	}
	show := exec.Command(openssl, "s_client", "-connect", "127.0.0.1:"+public.Port(), "-servername", public.Hostname(),
		"-CAfile", sealed.Cert, "-verify_return_error", "-verify_hostname", public.Hostname(), "-quiet", "-no_ign_eof")
	show.Stdin = strings.NewReader("GET /openssl HTTP/1.0\r\n\r\n")
	if code, _, stderr := run(t, show); code != 0 {
		t.Errorf("openssl s_client: exit %d\n%s", code, stderr)
	}
	if log := server.errors.String(); strings.Contains(log, "secret-path") || strings.Contains(log, "/openssl") {
		t.Error("the server's log shows what was asked")
	}
	// The same name by plain HTTP leads nowhere.
	code := mustRun(t, exec.Command(curl, "-sS", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: demo.tunnel.example.com", server.url+"/healthz"))
	if code == "200" {
		t.Error("the name of a TLS tunnel is answered without TLS")
	}
}
