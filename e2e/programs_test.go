//go:build unix

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
)

// publicPort serves target, HOST:PORT, by tunnel-client tcp, and returns the public port.
func publicPort(t *testing.T, target string) string {
	t.Helper()
	public := rig.FreePorts(t, 1)
	s := startServer(t, "--tcp-ports", strconv.Itoa(public))
	_, port := portClient(t, s, "tcp", target, "--name", "app")
	if port != public {
		t.Fatalf("the port is %d, want %d", port, public)
	}
	return strconv.Itoa(port)
}

// redis-cli's pipe mode sends all its commands, and takes the answers meanwhile.
func TestRedis(t *testing.T) {
	server, cli := need(t, "redis-server", "redis-server"), need(t, "redis-cli", "redis-tools")
	local := rig.FreePorts(t, 1)
	app := start(t, exec.Command(server, "--port", strconv.Itoa(local), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()))
	app.out.await(t, "Ready to accept connections")
	port := publicPort(t, fmt.Sprintf("127.0.0.1:%d", local))

	const keys = 5_000
	var commands bytes.Buffer
	for i := range keys {
		fmt.Fprintf(&commands, "SET key-%d %0200d\r\n", i, i)
	}
	pipe := exec.Command(cli, "-p", port, "--pipe")
	pipe.Stdin = &commands
	if out := mustRun(t, pipe); !strings.Contains(out, fmt.Sprintf("errors: 0, replies: %d", keys)) {
		t.Errorf("redis-cli --pipe says:\n%s", out)
	}
	if got := strings.TrimSpace(mustRun(t, exec.Command(cli, "-p", port, "DBSIZE"))); got != strconv.Itoa(keys) {
		t.Errorf("%s keys", got)
	}
	if got := strings.TrimSpace(mustRun(t, exec.Command(cli, "-p", port, "GET", "key-4711"))); got != fmt.Sprintf("%0200d", 4711) {
		t.Errorf("key-4711 is %q", got)
	}
}

// A database over its own protocol: connections that are kept, and many at once.
func TestPostgres(t *testing.T) {
	psql, pgbench := need(t, "psql", "postgresql-client"), need(t, "pgbench", "postgresql")
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		found = []string{need(t, "postgres", "postgresql")}
	}
	bins := filepath.Dir(found[len(found)-1])
	dir, err := os.MkdirTemp("", "pg-") // short enough for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data := filepath.Join(dir, "data")
	as := unprivileged(t, dir)
	mustRun(t, as(exec.Command(filepath.Join(bins, "initdb"), "-D", data, "-U", "tester", "--auth=trust", "--no-sync")))
	local := rig.FreePorts(t, 1)
	app := start(t, as(exec.Command(filepath.Join(bins, "postgres"), "-D", data, "-p", strconv.Itoa(local), "-k", dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off")))
	app.errors.await(t, "ready to accept connections")
	port := publicPort(t, fmt.Sprintf("127.0.0.1:%d", local))

	at := []string{"-h", "127.0.0.1", "-p", port, "-U", "tester"}
	query := func(sql string) string {
		return strings.TrimSpace(mustRun(t, exec.Command(psql, append(at, "-d", "postgres", "-At", "-c", sql)...)))
	}
	if got := query("select sum(x) from generate_series(1, 100000) x"); got != "5000050000" {
		t.Errorf("the sum is %q", got)
	}
	if got := query("select repeat('x', 3000000)"); len(got) != 3_000_000 {
		t.Errorf("%d bytes of 3,000,000 came", len(got))
	}
	mustRun(t, exec.Command(pgbench, append(at, "-i", "-q", "postgres")...))
	out := mustRun(t, exec.Command(pgbench, append(at, "-c", "4", "-t", "50", "postgres")...))
	if !strings.Contains(out, "transactions actually processed: 200/200") || !strings.Contains(out, "failed transactions: 0") {
		t.Errorf("pgbench says:\n%s", out)
	}
}

// unprivileged makes dir somebody else's where the test runs as root, and returns what
// makes a command run as that user: some programs refuse to run as root.
func unprivileged(t *testing.T, dir string) func(*exec.Cmd) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		return func(c *exec.Cmd) *exec.Cmd { return c }
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	setpriv := need(t, "setpriv", "util-linux")
	return func(c *exec.Cmd) *exec.Cmd {
		as := exec.Command(setpriv, append([]string{"--reuid=" + nobody.Uid, "--regid=" + nobody.Gid, "--clear-groups"}, c.Args...)...)
		as.Dir = dir
		return as
	}
}

// OpenSSH, and what goes by it: commands with their exit codes, scp, rsync.
func TestSSH(t *testing.T) {
	sshd, ssh := need(t, "sshd", "openssh-server"), need(t, "ssh", "openssh-client")
	scp, rsync, keygen := need(t, "scp", "openssh-client"), need(t, "rsync", "rsync"), need(t, "ssh-keygen", "openssh-client")
	if os.Getuid() == 0 {
		// Where root's sshd separates itself from what it does not trust yet.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for _, key := range []string{"host", "user"} {
		mustRun(t, exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)))
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	local := rig.FreePorts(t, 1)
	config := filepath.Join(dir, "sshd_config")
	text := fmt.Sprintf("HostKey %s/host\nAuthorizedKeysFile %[1]s/user.pub\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n", dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	app := start(t, exec.Command(sshd, "-D", "-e", "-f", config, "-o", "ListenAddress=127.0.0.1", "-p", strconv.Itoa(local)))
	app.errors.await(t, "Server listening")
	port := publicPort(t, fmt.Sprintf("127.0.0.1:%d", local))

	options := []string{"-i", filepath.Join(dir, "user"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=" + os.DevNull, "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes"}
	at := me.Username + "@127.0.0.1"
	call := func(command string) *exec.Cmd {
		return exec.Command(ssh, append(options, "-p", port, at, command)...)
	}
	if got := strings.TrimSpace(mustRun(t, call("echo over the tunnel"))); got != "over the tunnel" {
		t.Errorf("%q", got)
	}
	if err := call("exit 42").Run(); err == nil || err.(*exec.ExitError).ExitCode() != 42 {
		t.Errorf("the exit code of 42: %v", err)
	}

	file, copied := filepath.Join(dir, "file"), filepath.Join(dir, "copied")
	body := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{5}).Read(body)
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	same := func(what string) {
		t.Helper()
		got, err := os.ReadFile(copied)
		if err != nil || sha256.Sum256(got) != sha256.Sum256(body) {
			t.Errorf("%s: %d bytes of %d came, or others: %v", what, len(got), len(body), err)
		}
		os.Remove(copied)
	}
	mustRun(t, exec.Command(scp, append(options, "-P", port, file, at+":"+copied)...))
	same("scp there")
	mustRun(t, exec.Command(scp, append(options, "-P", port, at+":"+file, copied)...))
	same("scp back")
	mustRun(t, exec.Command(rsync, "-e", ssh+" -p "+port+" "+strings.Join(options, " "), at+":"+file, copied))
	same("rsync")
}

// iperf3 ends a test by its control connection beside the data's. What has not come by
// then nobody looks at; what has is the beginning of what was sent, without a gap.
func TestIperfTCP(t *testing.T) {
	iperf := need(t, "iperf3", "iperf3")
	dir := t.TempDir()
	sent := filepath.Join(dir, "sent")
	body := make([]byte, 32<<20)
	rand.NewChaCha8([32]byte{6}).Read(body)
	if err := os.WriteFile(sent, body, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, way := range []struct {
		flag  string
		least int // of what arrives
	}{{"--verbose", 1}, {"--reverse", 16 << 20}} {
		local, arrived := rig.FreePorts(t, 1), filepath.Join(dir, "arrived"+way.flag)
		visitors, apps := sent, arrived
		if way.flag == "--reverse" { // the app sends, and the visitor ends it
			visitors, apps = arrived, sent
		}
		app := start(t, exec.Command(iperf, "--server", "--bind", "127.0.0.1", "--port", strconv.Itoa(local), "--forceflush", "--file", apps))
		app.out.await(t, "Server listening")
		port := publicPort(t, fmt.Sprintf("127.0.0.1:%d", local))
		mustRun(t, exec.Command(iperf, "--client", "127.0.0.1", "--port", port, "--bytes", "16M", "--file", visitors, way.flag))
		got, err := os.ReadFile(arrived)
		if err != nil || len(got) < way.least || !bytes.HasPrefix(body, got) {
			t.Errorf("%s: %d bytes came, or others than were sent: %v", way.flag, len(got), err)
		}
		t.Logf("%s: %d bytes", way.flag, len(got))
	}
}
