//go:build unix

package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
)

// identities is where GitHub gives jobs their tokens.
type identities struct {
	*httptest.Server
	issuer *rig.Issuer
	asked  atomic.Int32
}

func startIdentities(t *testing.T) *identities {
	d := &identities{issuer: rig.StartIssuer(t)}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret-of-the-identity" || r.FormValue("api-version") != "2.0" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		d.asked.Add(1)
		if r.URL.Path == "/empty" {
			w.Write([]byte(`{"count": 0}`))
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"count": 1, "value": d.issuer.Token(map[string]any{
			"aud": r.FormValue("audience"), "repository": "ann/shop", "sub": "repo:ann/shop:pull_request",
		})})
	}))
	t.Cleanup(d.Close)
	return d
}

// allow gives the job the permission.
func (d *identities) allow(j *job) {
	delete(j.inputs, "token")
	j.inputs["oidc"] = "true"
	j.vars["ACTIONS_ID_TOKEN_REQUEST_URL"] = d.URL + "/token?api-version=2.0"
	j.vars["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = "secret-of-the-identity"
}

// TestActionOIDC: a job without a secret has its preview, also when the server comes back later
// on, and a newer run takes it over; the app sees nothing of what that takes.
func TestActionOIDC(t *testing.T) {
	d, g := startIdentities(t), startGitHub(t)
	file := filepath.Join(t.TempDir(), "tokens")
	at := rig.FreePort(t)
	writeFile(t, file, "oidc="+d.issuer.URL+" aud=http://"+at+" claim:repository=ann/shop name=shop-pr-*\n")
	s := startServer(t, "--listen", at, "--token-file", file)
	older := newJob(t, s, g, 41)
	d.allow(older)
	older.app("older")
	older.must("main.js")
	url := older.values("output")["url"]
	if _, body := fetch(t, visitor(t), url); body != "older at "+url {
		t.Errorf("the preview says %q", body)
	}
	s.kill()
	before := d.asked.Load()
	eventually(t, "the client asks for another token", func() bool { return d.asked.Load() > before })
	s = startServer(t, "--listen", at, "--token-file", file)
	eventually(t, "the preview is back", func() bool {
		_, body := fetch(t, visitor(t), url)
		return body == "older at "+url
	})
	newer := newJob(t, s, g, 42)
	d.allow(newer)
	newer.app("newer")
	newer.must("main.js")
	if _, body := fetch(t, visitor(t), url); body != "newer at "+url {
		t.Errorf("the preview says %q", body)
	}
	eventually(t, "the older client ends", older.gone)
	newer.must("post.js")
	if printed := older.must("post.js"); !strings.Contains(printed, "TUNNEL_URL="+url) || strings.Contains(printed, "TUNNEL_TOKEN") || strings.Contains(printed, "ID_TOKEN") {
		t.Errorf("the command's environment is not shown, or not what it should be:\n%s", printed)
	}
	if printed := s.out.String() + s.errors.String(); strings.Contains(printed, "eyJ") {
		t.Errorf("the server prints a token:\n%s", printed)
	}
}

// TestExecTokenCommand: exec waits for all that ends, and yet knows how its token's command did.
func TestExecTokenCommand(t *testing.T) {
	file, runs := filepath.Join(t.TempDir(), "tokens"), filepath.Join(t.TempDir(), "runs")
	writeFile(t, file, "token-of-ci\n")
	s := startServer(t, "--token-file", file)
	p := start(t, execCommand("exec sleep 60", "--server", s.url, "--target", rig.FreePort(t), "--token-command", "echo run >>"+runs+"; echo token-of-ci"))
	p.event(t, "ready")
	s.kill()
	eventually(t, "the command is run again and again", func() bool {
		content, _ := os.ReadFile(runs)
		return strings.Count(string(content), "\n") >= 4
	})
	startServer(t, "--listen", s.addr, "--token-file", file)
	p.event(t, "disconnected")
	p.event(t, "reconnected")
	if printed := p.errors.String(); strings.Contains(printed, "there is no token") {
		t.Errorf("it says:\n%s", printed)
	}
}

// TestActionOIDCFails: the step says what is missing.
func TestActionOIDCFails(t *testing.T) {
	d, g := startIdentities(t), startGitHub(t)
	file := filepath.Join(t.TempDir(), "tokens")
	writeFile(t, file, "oidc="+d.issuer.URL+" aud=https://tunnel.example.com claim:repository=ann/web\n")
	s := startServer(t, "--token-file", file)
	for name, tt := range map[string]struct {
		change func(j *job)
		says   string
	}{
		"no permission":    {func(j *job) { delete(j.vars, "ACTIONS_ID_TOKEN_REQUEST_URL") }, `"permissions: id-token: write"`},
		"GitHub says no":   {func(j *job) { j.vars["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = "secret-of-another" }, "there is no token of the job's identity: GitHub answers 403"},
		"GitHub has none":  {func(j *job) { j.vars["ACTIONS_ID_TOKEN_REQUEST_URL"] = d.URL + "/empty?api-version=2.0" }, "there is no token of the job's identity: GitHub's answer has none"},
		"both":             {func(j *job) { j.inputs["token"] = "secret-of-the-job" }, "exclude each other"},
		"neither":          {func(j *job) { j.inputs["oidc"] = "perhaps" }, "neither true nor false"},
		"another audience": {func(j *job) {}, "(aud)"},
		"another claim":    {func(j *job) { j.inputs["audience"] = "https://tunnel.example.com" }, `its claim repository is "ann/shop"`},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJob(t, s, g, 41)
			d.allow(j)
			j.inputs["command"] = "true"
			tt.change(j)
			code, out, _ := run(t, j.step("main.js"))
			if code != 1 || !strings.Contains(out, "::error::") || !strings.Contains(out, tt.says) || strings.Contains(out, "secret-of") {
				t.Errorf("exit code %d\n%s", code, out)
			}
			j.must("post.js")
		})
	}
	t.Run("of a fork", func(t *testing.T) {
		j := newJob(t, s, g, 41)
		d.allow(j)
		delete(j.vars, "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
		j.event(`{"pull_request":{"number":7,"head":{"sha":"01","repo":{"full_name":"bob/shop"}}}}`)
		if out := j.must("main.js"); !strings.Contains(out, "::notice::") || len(j.values("output")) != 0 {
			t.Errorf("outputs %q\n%s", j.values("output"), out)
		}
		j.must("post.js")
	})
}
