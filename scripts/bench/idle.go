package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/revtun/tunnel/internal/rig"
	sdk "github.com/revtun/tunnel/pkg/tunnel"
)

// The metrics of idle.
const (
	idleRSS         = "server kB/tunnel"
	idleDescriptors = "server descriptors/tunnel"
	idleServerCPU   = "server CPU ms/s"
	idleClientRSS   = "clients kB/tunnel"
	idleClientCPU   = "clients CPU ms/s"
)

func idleRow() row {
	return row{
		name: "idle",
		about: "idle tunnels, each with a client of its own in one process (quick: 200; else 1,000 and 10,000): " +
			"growth of resident memory and descriptors, CPU time when nothing happens",
		metrics: []metric{
			{idleRSS, 1, ""}, {idleDescriptors, 2, ""}, {idleServerCPU, 1, ""},
			{idleClientRSS, 1, ""}, {idleClientCPU, 1, ""},
		},
		measure: func(r *run, row row) {
			fits := func(v variant) bool { return v.name == ours }
			r.each(row, pick(r, 1, 2), fits, func(s *site, _ variant) error { return r.idle(row, s) })
		},
	}
}

func (r *run) idle(row row, s *site) error {
	for _, n := range pick(r, []int{200}, []int{1000, 10000}) {
		if err := r.idleTunnels(row, s, n); err != nil {
			return &caseError{tunnelCount(n), err}
		}
		s.Clear()
	}
	return nil
}

// idleTunnels measures a server of its own with n tunnels.
func (r *run) idleTunnels(row row, s *site, n int) error {
	at, err := s.FreePort()
	if err != nil {
		return err
	}
	server, err := s.Start(s.ours("tunnel-server", "serve", "--listen", at, "--max-sessions", strconv.Itoa(2*n)))
	if err != nil {
		return err
	}
	if err := s.Listening(at); err != nil {
		return err
	}
	rss, descriptors := server.RSS(), server.Descriptors()
	clients, err := s.Start(s.role("idle", "http://"+at, strconv.Itoa(n)))
	if err != nil {
		return err
	}
	if err := s.Until(2*time.Minute, 20*time.Millisecond, func() error { return clients.Printed(ready) }); err != nil {
		return err
	}
	for _, i := range []int{0, n / 2, n - 1} {
		t := &tunnel{plan: &plan{visit: at, host: idleName(i) + ".localhost"}, site: s}
		if err := t.answers(5*time.Millisecond, patience); err != nil {
			return fmt.Errorf("tunnel %d: %w", i, err)
		}
	}
	r.home.Sleep(pick(r, time.Second, 5*time.Second)) // until starting up is over
	serverCPU, clientCPU, start := server.CPU(), clients.CPU(), time.Now()
	r.home.Sleep(pick(r, 2*time.Second, 10*time.Second))
	seconds := time.Since(start).Seconds()
	add := func(metric string, value float64) { r.store.add(row.name, tunnelCount(n), ours, metric, value) }
	add(idleServerCPU, milli(server.CPU()-serverCPU)/seconds)
	add(idleClientCPU, milli(clients.CPU()-clientCPU)/seconds)
	add(idleRSS, (server.RSS()-rss)/float64(n)/1e3)
	add(idleDescriptors, (server.Descriptors()-descriptors)/float64(n))
	add(idleClientRSS, clients.RSS()/float64(n)/1e3)
	return nil
}

func tunnelCount(n int) string { return number(float64(n), 0) }

func idleName(i int) string { return "idle-" + strconv.Itoa(i) }

// ready is what the role prints when all its tunnels are up.
const ready = "ready"

// holdIdle is the role: args are the server's URL and the number of tunnels to hold open.
func holdIdle(args []string) error {
	if len(args) != 2 {
		return errors.New("want SERVER COUNT")
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	app := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, rig.Hello) })
	errs := make(chan error)
	listening := make(chan error)
	slots := make(chan struct{}, 64) // clients that connect at the same time
	for i := range count {
		go func() {
			slots <- struct{}{}
			c := &sdk.Client{Server: args[0]}
			l, err := c.Listen(context.Background(), sdk.Options{Name: idleName(i)})
			<-slots
			listening <- err
			if err == nil {
				errs <- http.Serve(l, app)
			}
		}()
	}
	for range count {
		if err := <-listening; err != nil {
			return err
		}
	}
	fmt.Println(ready)
	return fmt.Errorf("a tunnel ended: %w", <-errs)
}
