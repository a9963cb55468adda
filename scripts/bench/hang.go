package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// The metrics of hang and stalled.
const (
	serverBefore = "server MB before"
	clientBefore = "client MB before"
	serverMB     = "server MB"
	clientMB     = "client MB"
	serverGrowth = "server MB growth"
	clientGrowth = "client MB growth"
	bothGrowth   = "both"
)

func hangRow() row {
	return row{
		name:    "hang",
		about:   "1,000 requests at once that the app answers late: resident memory before, and while they hang",
		metrics: []metric{{serverBefore, 1, ""}, {clientBefore, 1, ""}, {serverMB, 1, ""}, {clientMB, 1, ""}},
		measure: func(r *run, row row) {
			r.each(row, pick(r, 1, 3), tunnels, func(s *site, v variant) error { return r.hang(row, s, v) })
		},
	}
}

// hang makes the requests, lets the app answer, and checks that all answers arrive.
func (r *run) hang(row row, s *site, v variant) error {
	const requests = 1000
	t, err := s.open(v, nil)
	if err != nil {
		return err
	}
	server, client := t.memory()
	answers := make(chan error, requests)
	for range requests {
		go func() { answers <- hanging(t) }()
	}
	err = s.Until(2*patience, 10*time.Millisecond, func() error {
		select {
		case err := <-answers: // none is due yet
			answers <- err
			return nil
		default:
		}
		n, err := ask(r.app, "/waiting")
		if err == nil && n < requests {
			err = fmt.Errorf("%d of %d requests reached the app", n, requests)
		}
		return err
	})
	r.home.Sleep(300 * time.Millisecond) // for buffers of the last ones
	serverFull, clientFull := t.memory()
	if res, ask := http.Post("http://"+r.app+"/release", "", nil); ask != nil {
		err = errors.Join(err, ask)
	} else {
		res.Body.Close()
	}
	if err != nil {
		return err
	}
	for range requests {
		if err := <-answers; err != nil {
			return fmt.Errorf("a hanging request: %w", err)
		}
	}
	for metric, mb := range map[string]float64{
		serverBefore: server, clientBefore: client, serverMB: serverFull, clientMB: clientFull,
	} {
		r.store.add(row.name, "", v.name, metric, mb)
	}
	return t.check()
}

// hanging makes one request that the app answers when it is told to.
func hanging(t *tunnel) error {
	v, err := dialVisitor(t.visit, t.host, time.Now().Add(4*patience))
	if err != nil {
		return err
	}
	defer v.close()
	v.request = []byte("GET /hang HTTP/1.1\r\nHost: " + t.host + "\r\n\r\n")
	return v.small()
}

func stalledRow() row {
	return row{
		name:    "stalled",
		about:   "10 visitors who each start a download of 1 GiB and stop reading: growth of resident memory",
		metrics: []metric{{serverGrowth, 1, ""}, {clientGrowth, 1, ""}, {bothGrowth, 1, ""}},
		measure: func(r *run, row row) {
			r.each(row, pick(r, 1, 2), tunnels, func(s *site, v variant) error { return r.stalled(row, s, v) })
		},
	}
}

// stalled starts the downloads, and measures when nothing moves any more, by a fixed time.
func (r *run) stalled(row row, s *site, v variant) error {
	t, err := s.open(v, nil)
	if err != nil {
		return err
	}
	server, client := t.memory()
	for range 10 {
		b, err := stall(t)
		if err != nil {
			return err
		}
		defer b.close()
	}
	r.home.Sleep(pick(r, time.Second, 4*time.Second))
	serverNow, clientNow := t.memory()
	r.store.add(row.name, "", v.name, serverGrowth, serverNow-server)
	r.store.add(row.name, "", v.name, clientGrowth, clientNow-client)
	r.store.add(row.name, "", v.name, bothGrowth, serverNow-server+clientNow-client)
	return t.check()
}

// stall starts a download, reads its first bytes and no more.
func stall(t *tunnel) (*transfer, error) {
	b := &transfer{addr: t.visit, host: t.host, bytes: 1 << 30, limit: time.Minute}
	if err := b.dial(); err != nil {
		return nil, err
	}
	if err := b.begin(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}
