package main

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// noticeLimit is how long an end may take to notice that the other one is silent.
const noticeLimit = 45 * time.Second

// halfOpen loses the packets of one direction, of the other, and of both, each with a server, a client
// and a path of its own.
func (t *trial) halfOpen() error {
	long := pick(t, 47*time.Second, time.Minute)
	kinds := []struct {
		name string
		dirs []rig.Direction
	}{
		{"to the server", []rig.Direction{rig.There}},
		{"to the client", []rig.Direction{rig.Back}},
		{"both ways", []rig.Direction{rig.There, rig.Back}},
	}
	var all sync.WaitGroup
	trials, errs := make([]*trial, len(kinds)), make([]error, len(kinds))
	for i, kind := range kinds {
		one := &trial{site: t.newSite(), row: t.row}
		one.app = t.app
		trials[i] = one
		all.Go(func() { errs[i] = one.lose(kind.name, kind.dirs, long) })
	}
	all.Wait()
	for _, one := range trials {
		one.Clear()
		t.checks = append(t.checks, one.checks...)
	}
	return errors.Join(errs...)
}

// lose makes the directions silent for a while.
func (t *trial) lose(kind string, dirs []rig.Direction, long time.Duration) error {
	if err := t.serve(); err != nil {
		return err
	}
	p, at, end, err := t.path(t.addr, time.Millisecond, wide)
	if err != nil {
		return err
	}
	defer end()
	client, err := t.client(at, "lost")
	if err != nil {
		return err
	}
	c := visitors()
	defer c.CloseIdleConnections()
	if err := t.get(c, "lost", "/small", rig.Patience); err != nil {
		return err
	}
	start := time.Now()
	for _, d := range dirs {
		p.Silence(d, true)
	}
	byServer, byClient := time.Duration(0), time.Duration(0)
	for time.Since(start) < long && t.Context.Err() == nil {
		if byServer == 0 && strings.Contains(t.server.Log(), `msg="session ended"`) {
			byServer = time.Since(start)
		}
		if byClient == 0 && disconnects(client) > 0 {
			byClient = time.Since(start)
		}
		t.Sleep(20 * time.Millisecond)
	}
	done := fmt.Sprintf("packets lost for %v, %s: noticed by ", long, kind)
	for who, took := range map[string]time.Duration{"the server": byServer, "the client": byClient} {
		figure := seconds(took)
		if took == 0 {
			figure = "never"
		}
		t.check(took > 0 && took <= noticeLimit, done+who, figure, "<= "+seconds(noticeLimit))
	}
	return t.heal("packets lost, "+kind, "lost", 5*time.Second, func() error {
		for _, d := range dirs {
			p.Silence(d, false)
		}
		return nil
	})
}

// heal ends a fault and checks how long it takes until a visitor gets the app's answer.
func (t *trial) heal(fault, name string, limit time.Duration, end func() error) error {
	start := time.Now()
	if err := end(); err != nil {
		return err
	}
	c := visitors()
	defer c.CloseIdleConnections()
	// Requests that wait for the client are answered when it is back: one of a second at most tells
	// when, to within that.
	err := t.Until(rig.Patience+limit, 5*time.Millisecond, func() error { return t.get(c, name, "/small", time.Second) })
	took := time.Since(start)
	if err != nil {
		return fmt.Errorf("after %s: %w", fault, err)
	}
	t.check(took <= limit, fault+": from its end to an answer", seconds(took), "<= "+seconds(limit))
	return nil
}

// sleep stops two clients, as the lid of a laptop does. A stranger waits for the name of one of them.
func (t *trial) sleep() error {
	long, hold := pick(t, 62*time.Second, 5*time.Minute), pick(t, 15*time.Second, time.Minute)
	tokens, err := t.tokens("owner-of-the-names", "a-stranger-to-them")
	if err != nil {
		return err
	}
	if err := t.serve("--token-file", filepath.Join(t.Dir, "tokens"), "--hold", hold.String()); err != nil {
		return err
	}
	sleeper, err := t.client(t.addr, "sleeper", "--token-file", tokens[0])
	if err != nil {
		return err
	}
	second, err := t.client(t.addr, "second", "--token-file", tokens[0])
	if err != nil {
		return err
	}
	start := time.Now()
	for _, p := range []*rig.Proc{sleeper, second} {
		if err := p.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
	}
	second.End() // on waking up it learns that its name is another's
	w := t.watchSleep(tokens[1], start, long)
	t.checkSleep(w, long, hold)
	if err := second.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	if err := t.heal("a sleep of "+long.String(), "sleeper", 10*time.Second, func() error { return sleeper.Signal(syscall.SIGCONT) }); err != nil {
		return err
	}
	select {
	case <-second.Done():
		t.check(second.ExitCode() == 4, "the client whose name is another's by then: its exit code", fmt.Sprint(second.ExitCode()), "4, name taken")
	case <-time.After(rig.Patience):
		t.check(false, "the client whose name is another's by then", "it goes on: "+second.LastWords(), "exit code 4, name taken")
	}
	return nil
}

// tokens writes the server's file of them, and a client's for each.
func (t *trial) tokens(all ...string) (files []string, err error) {
	text := strings.Join(all, "\n") + "\n"
	err = os.WriteFile(filepath.Join(t.Dir, "tokens"), []byte(text), 0o600)
	for i, one := range all {
		files = append(files, filepath.Join(t.Dir, fmt.Sprintf("token-%d", i)))
		err = errors.Join(err, os.WriteFile(files[i], []byte(one+"\n"), 0o600))
	}
	return files, err
}

// slept is what was seen while the clients slept; 0 is never.
type slept struct {
	first   map[int]time.Duration // the first answer of each status; 0 is none
	ended   time.Duration         // the server gave the session up
	claimed time.Duration         // the stranger got the name
}

// watchSleep asks for a sleeping name again and again, and lets a stranger try to claim the other one.
func (t *trial) watchSleep(token string, start time.Time, long time.Duration) (w slept) {
	var both sync.WaitGroup
	defer both.Wait()
	both.Go(func() {
		for time.Since(start) < long && t.Context.Err() == nil {
			p, err := t.startClient(t.addr, "second", "--token-file", token)
			if err != nil {
				return
			}
			p.End()
			for !p.Exited() {
				if p.Printed(`"ready"`) == nil {
					w.claimed = time.Since(start)
					return
				}
				t.Sleep(5 * time.Millisecond)
			}
			t.Sleep(500 * time.Millisecond)
		}
	})
	w.first = map[int]time.Duration{}
	var visits sync.WaitGroup
	defer visits.Wait()
	var mu sync.Mutex
	for time.Since(start) < long && t.Context.Err() == nil {
		visits.Go(func() {
			c := visitors()
			defer c.CloseIdleConnections()
			err := t.get(c, "sleeper", "/small", time.Until(start.Add(long)))
			mu.Lock()
			defer mu.Unlock()
			if _, ok := w.first[status(err)]; !ok {
				w.first[status(err)] = time.Since(start)
			}
		})
		if w.ended == 0 && gaveUp(t.server.Log(), "second") {
			w.ended = time.Since(start)
		}
		t.Sleep(250 * time.Millisecond)
	}
	return w
}

// gaveUp reports whether a server's log says that the first session with a name has ended.
func gaveUp(log, name string) bool {
	session := ""
	for line := range strings.Lines(log) {
		_, rest, _ := strings.Cut(line, " session=")
		id, _, _ := strings.Cut(rest, " ")
		switch {
		case session == "" && strings.Contains(line, `msg="name bound"`) && strings.Contains(line, " name="+name+" "):
			session = id
		case id == session && id != "" && strings.Contains(line, `msg="session ended"`):
			return true
		}
	}
	return false
}

func (t *trial) checkSleep(w slept, long, hold time.Duration) {
	done := fmt.Sprintf("clients stopped for %v: ", long)
	var seen []string
	for _, status := range slices.Sorted(maps.Keys(w.first)) {
		seen = append(seen, fmt.Sprintf("%d after %s", status, seconds(w.first[status])))
	}
	refused := w.first[http.StatusServiceUnavailable]
	t.check(refused > 0 && refused <= noticeLimit, done+"the first 503 of a visitor; all first answers",
		strings.Join(seen, ", "), "<= "+seconds(noticeLimit))
	// The stranger tries every half second, and the log is read as often as that.
	least := w.ended + hold - time.Second
	t.check(w.ended > 0 && w.claimed >= least, done+fmt.Sprintf("a stranger gets a name, hold %v, after", hold),
		seconds(w.claimed), fmt.Sprintf(">= %s, and ever", seconds(least)))
}
