//go:build unix

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// github is its API, as far as the action knows it.
type github struct {
	*httptest.Server
	refuse bool // whatever is asked for

	mu          sync.Mutex // guards the following
	comments    []comment
	deployments []string            // their environments
	statuses    map[string][]string // "STATE URL" by deployment
}

type comment struct {
	ID   int    `json:"id"`
	Body string `json:"body"`
	User struct {
		Type string `json:"type"`
	} `json:"user"`
}

func newComment(id int, kind, body string) comment {
	c := comment{ID: id, Body: body}
	c.User.Type = kind
	return c
}

func startGitHub(t *testing.T) *github {
	g := &github{comments: []comment{}, statuses: make(map[string][]string)}
	mux := http.NewServeMux()
	answer := func(pattern string, f func(r *http.Request, body map[string]any) any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			var body map[string]any
			json.NewDecoder(r.Body).Decode(&body)
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.refuse || r.Header.Get("Authorization") != "Bearer job-token" || r.URL.Path == "/user" {
				w.WriteHeader(http.StatusForbidden)
				io.WriteString(w, `{"message":"Resource not accessible by integration"}`)
				return
			}
			json.NewEncoder(w).Encode(f(r, body))
		})
	}
	answer("GET /user", nil)
	answer("GET /repos/ann/shop/issues/7/comments", func(r *http.Request, _ map[string]any) any {
		page, _ := strconv.Atoi(r.FormValue("page"))
		first := min((page-1)*100, len(g.comments))
		return g.comments[first:min(first+100, len(g.comments))]
	})
	answer("POST /repos/ann/shop/issues/7/comments", func(_ *http.Request, body map[string]any) any {
		g.comments = append(g.comments, newComment(1000+len(g.comments), "Bot", body["body"].(string)))
		return g.comments[len(g.comments)-1]
	})
	answer("PATCH /repos/ann/shop/issues/comments/{id}", func(r *http.Request, body map[string]any) any {
		i := slices.IndexFunc(g.comments, func(c comment) bool { return strconv.Itoa(c.ID) == r.PathValue("id") })
		g.comments[i].Body = body["body"].(string)
		return g.comments[i]
	})
	answer("POST /repos/ann/shop/deployments", func(_ *http.Request, body map[string]any) any {
		g.deployments = append(g.deployments, fmt.Sprint(body["environment"], " ", body["ref"]))
		return map[string]int{"id": len(g.deployments)}
	})
	answer("POST /repos/ann/shop/deployments/{id}/statuses", func(r *http.Request, body map[string]any) any {
		g.statuses[r.PathValue("id")] = append(g.statuses[r.PathValue("id")], strings.TrimSuffix(fmt.Sprint(body["state"], " ", body["environment_url"]), " <nil>"))
		return map[string]int{"id": 1}
	})
	g.Server = httptest.NewServer(mux)
	t.Cleanup(g.Close)
	return g
}

// shown are the bodies of the comments.
func (g *github) shown() (all []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.comments {
		all = append(all, c.Body)
	}
	return all
}

func (g *github) states(deployment string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.statuses[deployment], ", ")
}

// pullRequest is the event of one in the repository itself.
const pullRequest = `{"pull_request":{"number":7,"head":{"sha":"0123456789abcdef","repo":{"full_name":"ann/shop"}}}}`

// job is what the runner has of one that uses the action.
type job struct {
	t      *testing.T
	node   string
	dir    string
	vars   map[string]string
	inputs map[string]string
}

func newJob(t *testing.T, s *tunnelServer, g *github, run int) *job {
	j := &job{t: t, node: need(t, "node", "nodejs"), dir: t.TempDir()}
	j.vars = map[string]string{
		"GITHUB_API_URL": g.URL, "GITHUB_SERVER_URL": "https://github.example", "GITHUB_REPOSITORY": "ann/shop",
		"GITHUB_RUN_ID": strconv.Itoa(run), "GITHUB_RUN_ATTEMPT": "1", "GITHUB_SHA": "ffff", "GITHUB_REF_NAME": "7/merge",
		"GITHUB_EVENT_PATH": j.file("event"), "GITHUB_OUTPUT": j.file("output"), "GITHUB_STATE": j.file("state"), "RUNNER_TEMP": j.dir,
		"ACTIONS_RUNTIME_TOKEN": "secret-of-the-runner",
	}
	j.inputs = map[string]string{
		"server": s.url, "token": "secret-of-the-job", "github-token": "job-token", "client": filepath.Join(bin, "tunnel-client"),
		"target": rig.FreePort(t),
	}
	j.event(pullRequest)
	t.Cleanup(func() {
		if pid, err := strconv.Atoi(j.values("state")["pid"]); err == nil {
			syscall.Kill(-pid, syscall.SIGTERM) // nothing is there, unless the test has failed
		}
	})
	return j
}

func (j *job) file(name string) string { return filepath.Join(j.dir, name) }

func (j *job) event(content string) { writeFile(j.t, j.file("event"), content) }

// app has the command run an app that says what it was given.
func (j *job) app(says string) {
	_, port, _ := strings.Cut(j.inputs["target"], ":")
	j.inputs["command"] = `env; exec ` + j.node + ` -e "require('http').createServer((q, s) => s.end('` + says +
		` at ' + process.env.TUNNEL_URL)).listen(` + port + `, '127.0.0.1')"`
}

// step is one of the action's entry points, as the runner starts it.
func (j *job) step(script string) *exec.Cmd {
	cmd := exec.Command(j.node, filepath.Join("..", "ci", "github", script))
	cmd.Env = environment("HOME=" + home)
	for name, value := range j.vars {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	for name, value := range j.inputs {
		cmd.Env = append(cmd.Env, "INPUT_"+strings.ToUpper(name)+"="+value)
	}
	for name, value := range j.values("state") {
		cmd.Env = append(cmd.Env, "STATE_"+name+"="+value)
	}
	return cmd
}

// values are those of a file that a step has written.
func (j *job) values(file string) map[string]string {
	content, _ := os.ReadFile(j.file(file))
	all := make(map[string]string)
	lines := strings.Split(string(content), "\n")
	for i := 0; i+2 < len(lines); i += 3 {
		name, end, _ := strings.Cut(lines[i], "<<")
		if lines[i+2] == end {
			all[name] = lines[i+1]
		}
	}
	return all
}

// must runs a step that has to succeed and returns what it printed.
func (j *job) must(script string) string {
	j.t.Helper()
	code, out, errors := run(j.t, j.step(script))
	if code != 0 || errors != "" {
		j.t.Fatalf("%s: exit code %d\n%s%s", script, code, out, errors)
	}
	if strings.Contains(out, "secret-of") {
		j.t.Errorf("%s prints a secret:\n%s", script, out)
	}
	return out
}

// gone reports whether the client has ended.
func (j *job) gone() bool {
	pid, err := strconv.Atoi(j.values("state")["pid"])
	if err != nil {
		j.t.Fatal("no client was started")
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	zombie := err == nil && strings.Contains(string(stat), ") Z ")
	return syscall.Kill(pid, 0) != nil || zombie
}

// TestAction: from the pull request to the end of the job.
func TestAction(t *testing.T) {
	s, g := startServer(t), startGitHub(t)
	for i := range 120 { // ours is on another page then
		g.comments = append(g.comments, newComment(i, "User", "<!-- tunnel-preview name=shop-pr-7 generation=1 -->\nme, too"))
	}
	first := newJob(t, s, g, 41)
	first.app("hello")
	first.must("main.js")
	out := first.values("output")
	if out["name"] != "shop-pr-7" || !strings.HasPrefix(out["url"], "http://shop-pr-7.") || out["expires_at"] != "" {
		t.Errorf("outputs %q", out)
	}
	if _, body := fetch(t, visitor(t), out["url"]); body != "hello at "+out["url"] {
		t.Errorf("the preview says %q", body)
	}
	if got, want := g.states("1"), "success "+out["url"]; got != want || g.deployments[0] != "preview/shop-pr-7 0123456789abcdef" {
		t.Errorf("deployment %q is %q, want %q", g.deployments, got, want)
	}
	if all := g.shown(); len(all) != 121 || !strings.Contains(all[120], "0123456: "+out["url"]) {
		t.Errorf("%d comments, the last one is %q", len(all), all[len(all)-1])
	}
	if printed := first.must("post.js"); !strings.Contains(printed, "TUNNEL_URL="+out["url"]) {
		t.Errorf("the command's environment is not shown, or not what it should be:\n%s", printed)
	}
	if !first.gone() {
		t.Error("the client is left")
	}
	if res, _ := fetch(t, visitor(t), out["url"]); res.StatusCode != 404 {
		t.Errorf("at the end: %s", res.Status)
	}
	if got, want := g.states("1"), "success "+out["url"]+", inactive"; got != want {
		t.Errorf("at the end the deployment is %q, want %q", got, want)
	}
	if all := g.shown(); len(all) != 121 || !strings.Contains(all[120], "has ended") || strings.Contains(all[0], "ended") {
		t.Errorf("at the end there are %d comments, the last one is %q", len(all), all[len(all)-1])
	}
}

// TestActionEnds: a preview with a time to live says when that is over, and has it.
func TestActionEnds(t *testing.T) {
	s, g := startServer(t), startGitHub(t)
	j := newJob(t, s, g, 41)
	j.inputs["ttl"], j.inputs["options"] = "2h", "--noindex"
	j.app("hello")
	before := time.Now()
	j.must("main.js")
	out := j.values("output")
	ends, err := time.Parse(time.RFC3339, out["expires_at"])
	if late := ends.Sub(before.Add(2 * time.Hour)); err != nil || late < -time.Second || late > patience {
		t.Errorf("expires_at is %q, %v", out["expires_at"], err)
	}
	if all := g.shown(); len(all) != 1 || !strings.Contains(all[0], out["expires_at"]) {
		t.Errorf("the comments are %q", all)
	}
	if res, _ := fetch(t, visitor(t), out["url"]); res.Header.Get("X-Robots-Tag") == "" {
		t.Errorf("no X-Robots-Tag: %s, %v", res.Status, res.Header)
	}
	if printed := j.must("post.js"); !strings.Contains(printed, "expires_at") {
		t.Errorf("the client says nothing of the end:\n%s", printed)
	}
}

// TestActionTakeover: a newer run has the name at once, and an older one touches neither
// that nor the comment any more.
func TestActionTakeover(t *testing.T) {
	s, g := startServer(t), startGitHub(t)
	older, newer := newJob(t, s, g, 41), newJob(t, s, g, 42)
	older.app("older")
	newer.app("newer")
	older.must("main.js")
	newer.must("main.js")
	url := newer.values("output")["url"]
	if _, body := fetch(t, visitor(t), url); body != "newer at "+url {
		t.Errorf("the preview says %q", body)
	}
	eventually(t, "the older client ends", older.gone)
	again := newJob(t, s, g, 41)
	again.vars["GITHUB_RUN_ATTEMPT"] = "2" // somebody runs it again
	again.app("again")
	if code, out, _ := run(t, again.step("main.js")); code != 0 || !strings.Contains(out, "::notice::A newer run has the name") || strings.Contains(out, "::error::") || len(again.values("output")) != 0 {
		t.Errorf("again: exit code %d, outputs %q\n%s", code, again.values("output"), out)
	}
	if out := again.must("post.js"); !strings.Contains(out, "a newer run has the name shop-pr-7 (name_taken): nothing to do") || strings.Contains(out, "::notice::") {
		t.Errorf("at its end it says, again:\n%s", out)
	}
	if out := older.must("post.js"); !strings.Contains(out, "::notice::A newer run has the name") {
		t.Errorf("the one that was taken over from says:\n%s", out)
	}
	if all := g.shown(); len(all) != 1 || !strings.Contains(all[0], "generation=42001") || !strings.Contains(all[0], url) {
		t.Errorf("the comments are %q", all)
	}
	if g.states("1") != "success "+url+", inactive" || g.states("2") != "success "+url {
		t.Errorf("the deployments are %q and %q", g.states("1"), g.states("2"))
	}
	if _, body := fetch(t, visitor(t), url); body != "newer at "+url {
		t.Errorf("at the end the preview says %q", body)
	}
	newer.must("post.js")
}

// TestActionCancel: a job that is cancelled while the app is being waited for leaves nothing.
func TestActionCancel(t *testing.T) {
	s, g := startServer(t), startGitHub(t)
	j := newJob(t, s, g, 41)
	started := j.file("started")
	j.inputs["command"] = "setsid sleep 60 & echo $! > " + started + "; wait"
	main := start(t, j.step("main.js"))
	var left int
	eventually(t, "the command runs", func() bool {
		content, _ := os.ReadFile(started)
		var err error
		left, err = strconv.Atoi(strings.TrimSpace(string(content)))
		return err == nil
	})
	main.signal(t, os.Interrupt)
	main.exit(t)
	main.kill() // its group: what is of the step ends with it
	if j.gone() {
		t.Error("the client is gone before the job's end")
	}
	j.must("post.js")
	if !j.gone() {
		t.Error("the client is left")
	}
	if runtime.GOOS == "linux" && syscall.Kill(left, 0) == nil {
		t.Error("what the command has started is left")
	}
	if len(g.comments)+len(g.deployments) != 0 {
		t.Errorf("there are %q and %q", g.shown(), g.deployments)
	}
}

// TestActionFails: the step says why there is no preview, and the job ends all the same.
func TestActionFails(t *testing.T) {
	s, g := startServer(t), startGitHub(t)
	closed := "http://" + rig.FreePort(t)
	for _, tt := range []struct {
		name   string
		inputs map[string]string
		says   string
	}{
		{"the command ends", map[string]string{"command": "echo no database; exit 3"}, "::error::the command ended with 3 before the app was ready%0Ano database"},
		{"the command ends well", map[string]string{"command": "true"}, "::error::the command ended with 0 before the app was ready\n"},
		{"no releases", map[string]string{"client": "", "version": "v1.2.3", "releases": closed}, "::error::" + closed + "/v1.2.3/"},
		{"the cause of that", map[string]string{"client": "", "version": "v1.2.3", "releases": closed}, "connect ECONNREFUSED " + strings.TrimPrefix(closed, "http://") + ": give releases, where they are, or client"},
		{"the app is not ready", map[string]string{"command": "sleep 60", "wait-timeout": "1s"}, "the local app is not ready"},
		{"nobody runs it", map[string]string{"wait": "http://127.0.0.1:1/", "wait-timeout": "0s"}, "the app is not ready"},
		{"no server", map[string]string{"server": ""}, "server is needed"},
		{"no client", map[string]string{"client": "/nonexistent", "command": "true"}, "ENOENT"},
		{"no version", map[string]string{"client": "", "version": "main"}, "main is no version"},
		{"bad flag", map[string]string{"comment": "perhaps"}, "neither true nor false"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := newJob(t, s, g, 41)
			maps.Copy(j.inputs, tt.inputs)
			code, out, _ := run(t, j.step("main.js"))
			if code != 1 || !strings.Contains(out, "::error::") || !strings.Contains(out, tt.says) {
				t.Errorf("exit code %d\n%s", code, out)
			}
			j.must("post.js")
		})
	}
	if len(g.comments)+len(g.deployments) != 0 {
		t.Errorf("there are %q and %q", g.shown(), g.deployments)
	}
}

// TestActionWithout: what a preview can do without.
func TestActionWithout(t *testing.T) {
	s, g := startServer(t), startGitHub(t)
	t.Run("secrets", func(t *testing.T) {
		j := newJob(t, s, g, 41)
		j.inputs["token"] = ""
		j.event(`{"pull_request":{"number":7,"head":{"sha":"01","repo":{"full_name":"bob/shop"}}}}`)
		if out := j.must("main.js"); !strings.Contains(out, "::notice::") || len(j.values("output")) != 0 {
			t.Errorf("outputs %q\n%s", j.values("output"), out)
		}
		j.must("post.js")
	})
	t.Run("a pull request or a command", func(t *testing.T) {
		j := newJob(t, s, g, 41)
		j.event(`{}`)
		j.vars["GITHUB_REF_NAME"] = "Feature/Big_Thing"
		j.inputs["target"] = says(t, "it runs already")
		j.inputs["wait"] = "http://" + strings.TrimPrefix(j.inputs["target"], "http://") + "/"
		j.must("main.js")
		out := j.values("output")
		if _, body := fetch(t, visitor(t), out["url"]); out["name"] != "shop-feature-big-thing" || body != "it runs already" {
			t.Errorf("outputs %q, the preview says %q", out, body)
		}
		j.must("post.js")
		if len(g.comments) != 0 || !j.gone() {
			t.Errorf("there are comments %q, or the client is left", g.shown())
		}
	})
	t.Run("permissions", func(t *testing.T) {
		forbids := startGitHub(t)
		forbids.refuse = true
		j := newJob(t, s, forbids, 41)
		j.inputs["target"] = says(t, "hello")
		out := j.must("main.js")
		if !strings.Contains(out, `"permissions: pull-requests: write"`) || !strings.Contains(out, `"permissions: deployments: write"`) {
			t.Errorf("it says:\n%s", out)
		}
		j.must("post.js")
	})
}

// TestActionDownload: a release is downloaded, and used if it is the one in the list of sums.
func TestActionDownload(t *testing.T) {
	s, g := startServer(t), startGitHub(t)
	arch := map[string]string{"amd64": "amd64", "arm64": "arm64"}[runtime.GOARCH]
	if arch == "" {
		t.Skip("there is no release for this machine")
	}
	folder := "tunnel_v1.2.3_" + runtime.GOOS + "_" + arch
	packed := pack(t, folder+"/tunnel-client", "#!/bin/sh\nexec "+filepath.Join(bin, "tunnel-client")+` "$@"`)
	sums := fmt.Sprintf("%x  %s.tar.gz\n", sha256.Sum256(packed), folder)
	releases := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1.2.3/" + folder + ".tar.gz", "/v1.2.4/" + strings.Replace(folder, "3", "4", 1) + ".tar.gz":
			w.Write(packed)
		case "/v1.2.3/SHA256SUMS":
			io.WriteString(w, "0000  another\n"+sums)
		case "/v1.2.4/SHA256SUMS":
			io.WriteString(w, sums)
		default:
			w.WriteHeader(404)
		}
	}))
	t.Cleanup(releases.Close)
	job := func(version string) *job {
		j := newJob(t, s, g, 41)
		j.vars["GITHUB_ACTION_REF"] = version
		j.inputs["client"], j.inputs["releases"], j.inputs["target"] = "", releases.URL, says(t, "hello")
		return j
	}
	good := job("v1.2.3")
	good.must("main.js")
	good.must("post.js")
	for version, why := range map[string]string{"v1.2.4": "is not what SHA256SUMS", "v1.2.5": "404"} {
		if code, out, _ := run(t, job(version).step("main.js")); code != 1 || !strings.Contains(out, why) {
			t.Errorf("%s: exit code %d\n%s", version, code, out)
		}
	}
}

// pack is an archive of one program.
func pack(t *testing.T, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, content)
	w.Close()
	z.Close()
	return b.Bytes()
}
