//go:build unix

package certs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libdns/libdns"

	"github.com/revtun/tunnel/internal/rig/poll"
)

// command writes a script of sh.
func command(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dns.sh")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func record(name, value string) []libdns.Record {
	return []libdns.Record{libdns.TXT{Name: name, Text: value}}
}

func TestExecDNSArguments(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	d := &ExecDNS{Command: command(t, `printf '%s\n' "$@" >>`+out+"\n") + "  first  second"}
	if _, err := d.AppendRecords(t.Context(), "example.org.", record("_acme-challenge.tunnel", "-v$(id)'\"")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.DeleteRecords(t.Context(), "example.org", record("_acme-challenge", "v")); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	want := []string{
		"first", "second", "present", "_acme-challenge.tunnel.example.org.", "-v$(id)'\"",
		"first", "second", "cleanup", "_acme-challenge.example.org.", "v",
	}
	if have := strings.Split(strings.TrimSpace(string(b)), "\n"); err != nil || !slices.Equal(have, want) {
		t.Errorf("%q, want %q (%v)", have, want, err)
	}
}

func TestExecDNSFails(t *testing.T) {
	d := &ExecDNS{Command: command(t, "head -c 100000 /dev/zero | tr '\\0' x >&2; echo the zone is locked >&2; exit 3\n")}
	_, err := d.AppendRecords(t.Context(), "example.org.", record("_acme-challenge", "v"))
	if err == nil || !strings.Contains(err.Error(), "the zone is locked") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v", err)
	}
	if len(err.Error()) > maxStderr+1000 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
	for _, flag := range []string{"exec:", "exec: ", "exec:/no/such/script", "route53"} {
		if _, err := ParseDNS(flag, "example.org"); err == nil {
			t.Errorf("%q is taken", flag)
		}
	}
	if p, err := ParseDNS("", "example.org"); p != nil || err != nil {
		t.Errorf("%v, %v", p, err)
	}
}

// TestExecDNSHangs says that a script that does not end is ended, with what it
// has started.
func TestExecDNSHangs(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	script := command(t, "echo waiting for the zone >&2; sleep 1000 & echo $! >"+pid+"; wait\n")
	var b []byte
	for timeout := 100 * time.Millisecond; len(b) == 0; timeout *= 2 { // until the script has begun before it ends
		if timeout > time.Minute {
			t.Fatal("the script does not begin")
		}
		d := &ExecDNS{Command: script, Timeout: timeout}
		_, err := d.AppendRecords(t.Context(), "example.org.", record("_acme-challenge", "v"))
		b, _ = os.ReadFile(pid)
		if err == nil || !strings.Contains(err.Error(), "not done after "+timeout.String()) || len(b) > 0 && !strings.Contains(err.Error(), "waiting for the zone") {
			t.Fatalf("%v", err)
		}
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the script's child is gone", func() bool {
		return errors.Is(syscall.Kill(child, 0), syscall.ESRCH) || zombie(child)
	})
}

// zombie says that a process has ended and nobody has asked for its status: in a
// container there may be nobody who does.
func zombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, after, _ := strings.Cut(string(b), ") ")
	return err == nil && strings.HasPrefix(after, "Z")
}
