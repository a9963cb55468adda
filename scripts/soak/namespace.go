package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// The addresses of the two hosts, and of the app beside the client.
const (
	serverHost = "10.99.0.1"
	clientHost = "10.99.0.2"
	hostPort   = "8080"
	hostApp    = "127.0.0.1:3000"
)

// A host is a network namespace, which is a machine as far as its network goes.
type host struct {
	name, addr string
	peer       string // the other one's address
}

// ip runs ip(8).
func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// hosts makes two that are joined by a cable. Call the function in the end.
func hosts() (server, client host, remove func(), err error) {
	id := strconv.Itoa(os.Getpid())
	server = host{"soak-s-" + id, serverHost, clientHost}
	client = host{"soak-c-" + id, clientHost, serverHost}
	remove = func() {
		_ = ip("netns", "del", server.name) // its end of the cable goes, and so the other
		_ = ip("netns", "del", client.name)
	}
	for _, h := range []host{server, client} {
		if err = ip("netns", "add", h.name); err != nil {
			remove()
			return server, client, remove, err
		}
	}
	err = ip("-n", server.name, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", client.name)
	for _, h := range []host{server, client} {
		for _, args := range [][]string{
			{"addr", "add", h.addr + "/24", "dev", "wire"}, {"link", "set", "wire", "up"}, {"link", "set", "lo", "up"},
		} {
			if err == nil {
				err = ip(append([]string{"-n", h.name}, args...)...)
			}
		}
	}
	if err != nil {
		remove()
	}
	return server, client, remove, err
}

// drop makes the host's packets to the other one go nowhere, or on their way again.
func (h host) drop(on bool) error {
	verb := "del"
	if on {
		verb = "add"
	}
	return ip("-n", h.name, "route", verb, "blackhole", h.peer+"/32")
}

// startOn starts a program on h.
func (s *site) startOn(h host, path string, args ...string) (*rig.Proc, error) {
	p, err := s.Start(rig.Command{Path: "ip", Args: append([]string{"netns", "exec", h.name, path}, args...)})
	if err == nil {
		p.Name = filepath.Base(path) // ip has become it
	}
	return p, err
}

// dropped is half-open on a real link, with the kernel's own patience: packets are dropped one way, and
// then the other.
func (t *trial) dropped() error {
	server, client, remove, err := hosts()
	if err != nil {
		t.checks = append(t.checks, check{t.row.name, t.row.promise, "packets dropped between two network namespaces", err.Error(), "-", skipped})
		return nil
	}
	defer remove()
	at := net.JoinHostPort(serverHost, hostPort)
	if t.server, err = t.startOn(server, filepath.Join(t.bin, "tunnel-server"), "--listen", at, "--anonymous"); err != nil {
		return err
	}
	if _, err = t.startOn(client, t.self, "role", "app", hostApp); err != nil {
		return err
	}
	c, err := t.startOn(client, filepath.Join(t.bin, "tunnel-client"), "http", "http://"+hostApp, "--server", "http://"+at, "--name", "far", "--json", "--retry")
	if err != nil {
		return err
	}
	visitor, err := t.startOn(server, t.self, "role", "watch", at, "far.localhost")
	if err != nil {
		return err
	}
	for name, h := range map[string]host{"the server's": server, "the client's": client} {
		if err := t.dropOn(h, name, c, visitor); err != nil {
			return err
		}
	}
	return nil
}

// dropOn has one host's packets dropped until both ends have noticed, and a while longer.
func (t *trial) dropOn(h host, name string, client, visitor *rig.Proc) error {
	if err := t.Until(rig.Patience, 10*time.Millisecond, func() error { return answeredSince(visitor, time.Time{}) }); err != nil {
		return err
	}
	ends, losses := strings.Count(t.server.Log(), `msg="session ended"`), disconnects(client)
	start := time.Now()
	if err := h.drop(true); err != nil {
		return err
	}
	for who, noticed := range map[string]func() bool{
		"the server": func() bool { return strings.Count(t.server.Log(), `msg="session ended"`) > ends },
		"the client": func() bool { return disconnects(client) > losses },
	} {
		for !noticed() && time.Since(start) < 2*noticeLimit && t.Context.Err() == nil {
			t.Sleep(20 * time.Millisecond)
		}
		took := time.Since(start)
		t.check(took <= noticeLimit, name+" packets dropped by the kernel: noticed by "+who+" after at most", seconds(took), "<= "+seconds(noticeLimit))
	}
	t.Sleep(pick(t, 5*time.Second, 30*time.Second)) // so that attempts fail, too
	healed := time.Now()
	if err := h.drop(false); err != nil {
		return err
	}
	if err := t.Until(time.Minute, 5*time.Millisecond, func() error { return answeredSince(visitor, healed) }); err != nil {
		return err
	}
	took := time.Since(healed)
	t.check(took <= 5*time.Second, name+" packets pass again: until an answer", seconds(took), "<= "+seconds(5*time.Second))
	return nil
}

// answeredSince fails unless a watch has seen a 200 after a moment.
func answeredSince(watch *rig.Proc, moment time.Time) error {
	lines := strings.Fields(watch.Log())
	if len(lines) > 0 {
		last := lines[len(lines)-1]
		at, status, _ := strings.Cut(last, "=")
		milli, err := strconv.ParseInt(at, 10, 64)
		if err == nil && status == "200" && time.UnixMilli(milli).After(moment) {
			return nil
		}
	}
	return fmt.Errorf("no answer yet: %s", watch.LastWords())
}

// watch is a role: it asks for host at addr again and again, and prints when each answer came, and its
// status.
func watch(addr, host string) error {
	c := &http.Client{Transport: &http.Transport{Proxy: nil}, Timeout: time.Second}
	for {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+addr+"/small", nil)
		if err != nil {
			return err
		}
		req.Host = host
		status := 0
		if res, err := c.Do(req); err == nil {
			status = res.StatusCode
			res.Body.Close()
		}
		fmt.Printf("%d=%d\n", time.Now().UnixMilli(), status)
		time.Sleep(20 * time.Millisecond)
	}
}
