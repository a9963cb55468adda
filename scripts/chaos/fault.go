package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// A fault is one thing that goes wrong, and its end.
type fault struct {
	kind  string
	what  string // with its figures, for the log
	after time.Duration
	do    func(*lab) error // returns when all is as it should be again
	// within is how long the tunnels may then take to answer; 0 is backWithin.
	within time.Duration
}

// lasting is how long a fault lasts: mostly seconds, and where the run is long sometimes above the 45 s
// after which a peer is given up.
func lasting(r *rand.Rand, long bool) time.Duration {
	if d := r.IntN(100); long && d < 12 {
		return 48*time.Second + time.Duration(r.IntN(8000))*time.Millisecond
	}
	return time.Duration(300+r.IntN(6000)) * time.Millisecond
}

// longRun is from which length on a run has faults of nearly a minute, and looks for leaks: for that it
// must outwait what is kept for the next request.
const longRun = 2 * time.Minute

// schedule draws the faults of a seed, n of them.
// Each has a source of randomness of its own, so that none depends on how many numbers another draws.
func schedule(seed uint64, long bool, n int) []fault {
	var faults []fault
	for i := range n {
		r := rand.New(rand.NewPCG(seed, uint64(i)<<8|0xfa))
		after := time.Duration(500+r.IntN(2500)) * time.Millisecond
		kinds := []func(*rand.Rand, bool) fault{
			killed, killed, killed, terminated, terminated, stopped, stopped,
			cutNow, cutAtByte, cutAtByte, silent, silent, slow, front, front,
		}
		f := kinds[r.IntN(len(kinds))](r, long)
		f.after = after
		faults = append(faults, f)
	}
	return faults
}

// A victim is one of the processes.
type victim struct {
	name string
	pick func(*lab) *process
}

func anyVictim(r *rand.Rand, apps bool) victim {
	i := r.IntN(len(all()))
	client := victim{"client", func(l *lab) *process { return l.clients[i] }}
	switch all()[i].command {
	case "connect":
		client.name = "connect"
	case roleOrigin:
		client.name = "origin"
	}
	server := victim{"server", func(l *lab) *process { return l.server }}
	app := victim{"app", func(l *lab) *process { return l.apps[i%2] }}
	of := []victim{client, server, app}
	if !apps {
		of = of[:2]
	}
	return of[r.IntN(len(of))]
}

// killed is kill -9, and a start after a while.
func killed(r *rand.Rand, _ bool) fault {
	v, gone := anyVictim(r, true), time.Duration(r.IntN(2000))*time.Millisecond
	return fault{kind: v.name + " killed", what: fmt.Sprintf("for %v", gone), do: func(l *lab) error {
		p := v.pick(l)
		p.Kill()
		l.site.Sleep(gone)
		return l.start(p)
	}}
}

// terminated is SIGTERM: it drains and ends by itself, with exit code 0.
func terminated(r *rand.Rand, _ bool) fault {
	v := anyVictim(r, false)
	within := time.Duration(0)
	if v.name == "server" {
		// While it drains it refuses its clients, who ask again after up to 3 s.
		within = 6 * time.Second
	}
	return fault{kind: v.name + " terminated", within: within, do: func(l *lab) error {
		const limit = 40 * time.Second // the grace is 30 s
		p := v.pick(l)
		p.End()
		if err := p.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case <-p.Done():
		case <-time.After(limit):
			return fmt.Errorf("%s did not end %v after SIGTERM", v.name, limit)
		}
		if code := p.ExitCode(); code != 0 {
			return fmt.Errorf("%s ended with exit code %d after SIGTERM: %s", v.name, code, p.LastWords())
		}
		return l.start(p)
	}}
}

// stopped is SIGSTOP, and SIGCONT after a while.
func stopped(r *rand.Rand, long bool) fault {
	v := anyVictim(r, true)
	// Nobody answers for a server or an app that is stopped: their visitors wait, and may.
	d := lasting(r, long && v.name == "client")
	return fault{kind: v.name + " stopped" + longer(d), what: fmt.Sprintf("for %v", d), do: func(l *lab) error {
		p := v.pick(l)
		if err := p.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		l.site.Sleep(d)
		return p.Signal(syscall.SIGCONT)
	}}
}

func longer(d time.Duration) string {
	if d > 40*time.Second {
		return " above 45 s"
	}
	return ""
}

// cutNow resets a client's connections.
func cutNow(r *rand.Rand, _ bool) fault {
	i := r.IntN(len(all()))
	return fault{kind: "link reset", do: func(l *lab) error { l.links[i].Cut(); return nil }}
}

// cutAtByte ends a client's connection after a number of bytes, which may be within a frame.
func cutAtByte(r *rand.Rand, _ bool) fault {
	i, n := r.IntN(len(all())), between(r, 1, 300_000)
	how := []rig.Break{rig.Reset, rig.Finish, rig.HalfClose}[r.IntN(3)]
	d := []rig.Direction{rig.There, rig.Back}[r.IntN(2)]
	name := map[rig.Break]string{rig.Reset: "reset", rig.Finish: "finished", rig.HalfClose: "half-closed"}[how]
	return fault{kind: "link " + name + " at a byte", what: fmt.Sprintf("after %d bytes", n), do: func(l *lab) error {
		const limit = 5 * time.Second
		select {
		case <-l.links[i].CutAfter(d, n, how):
		case <-time.After(limit):
			l.links[i].CutAfter(d, 1<<60, how) // little is on the way: not this time
		case <-l.site.Context.Done():
		}
		return nil
	}}
}

// silent drops what a client's link carries.
func silent(r *rand.Rand, long bool) fault {
	i, d := r.IntN(len(all())), lasting(r, long)
	which := r.IntN(3)
	name := []string{"link silent to the server", "link silent to the client", "link silent"}[which]
	return fault{kind: name + longer(d), what: fmt.Sprintf("for %v", d), do: func(l *lab) error {
		silence(l, which, d, l.links[i])
		return nil
	}}
}

// A line is what can be made silent.
type line interface {
	Silence(d rig.Direction, on bool)
}

func silence(l *lab, which int, d time.Duration, lines ...line) {
	set := func(on bool) {
		for _, p := range lines {
			if which != 1 {
				p.Silence(rig.There, on)
			}
			if which != 0 {
				p.Silence(rig.Back, on)
			}
		}
	}
	set(true)
	l.site.Sleep(d)
	set(false)
}

// slow lets little through a client's link.
func slow(r *rand.Rand, _ bool) fault {
	i, d := r.IntN(len(all())), lasting(r, false)
	delay, rate := time.Duration(r.IntN(200))*time.Millisecond, int(between(r, 32_000, 2_000_000))
	return fault{kind: "link slow", what: fmt.Sprintf("%v and %d bytes/s for %v", delay, rate, d), do: func(l *lab) error {
		crawl(l, delay, rate, d, l.links[i])
		return nil
	}}
}

func crawl(l *lab, delay time.Duration, rate int, d time.Duration, paths ...*rig.Path) {
	for _, p := range paths {
		p.Slow(delay, rate)
	}
	l.site.Sleep(d)
	for _, p := range paths {
		p.Slow(0, plenty)
	}
}

// front is a fault between the visitors and the server. It never ends a connection in order: a visitor
// could not tell that from the end of an answer that ends with its connection.
func front(r *rand.Rand, _ bool) fault {
	d, which, n := lasting(r, false), r.IntN(3), between(r, 1, 300_000)
	delay, rate := time.Duration(r.IntN(200))*time.Millisecond, int(between(r, 50_000, 2_000_000))
	direction := []rig.Direction{rig.There, rig.Back}[r.IntN(2)]
	door := r.IntN(3)
	name := []string{"", " of TLS", " of a port"}[door]
	share := 0.05 + 0.35*r.Float64()
	switch r.IntN(5) {
	case 0:
		return fault{kind: "visitors" + name + " reset", do: func(l *lab) error { l.fronts[door].Cut(); return nil }}
	case 1:
		return fault{kind: "visitor" + name + " reset at a byte", what: fmt.Sprintf("after %d bytes", n), do: func(l *lab) error {
			return cutFront(l, door, direction, n)
		}}
	case 2:
		return fault{kind: "visitors silent", what: fmt.Sprintf("for %v", d), do: func(l *lab) error {
			var lines []line
			for _, p := range l.fronts {
				lines = append(lines, p)
			}
			for _, p := range l.packets {
				lines = append(lines, p)
			}
			silence(l, which, d, lines...)
			return nil
		}}
	case 3:
		return fault{kind: "visitors' datagrams lost", what: fmt.Sprintf("%.0f %% for %v", 100*share, d), do: func(l *lab) error {
			for _, p := range l.packets {
				p.Lose(share)
				defer p.Lose(0)
			}
			l.site.Sleep(d)
			return nil
		}}
	default:
		return fault{kind: "visitors slow", what: fmt.Sprintf("%v and %d bytes/s for %v", delay, rate, d), do: func(l *lab) error {
			crawl(l, delay, rate, d, l.fronts...)
			return nil
		}}
	}
}

// cutFront resets one connection of visitors when n bytes have passed.
func cutFront(l *lab, door int, direction rig.Direction, n int64) error {
	select {
	case <-l.fronts[door].CutAfter(direction, n, rig.Reset):
	case <-l.site.Context.Done():
	case <-time.After(10 * time.Second):
		if door == 0 {
			return errors.New("visitors send nothing")
		}
		l.fronts[door].CutAfter(direction, 1<<60, rig.Reset) // too few for so many bytes: not this time
	}
	return nil
}
