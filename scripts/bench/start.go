package main

import "time"

// The metrics of start and recover.
const (
	firstAnswer = "first answer ms"
	back        = "back after ms"
)

// The cases of recover.
const (
	serverKilled = "server killed"
	clientKilled = "client killed"
)

func startRow() row {
	return row{
		name:    "start",
		about:   "from the start of the client, the server running, to the first answer of the app at the public address",
		metrics: []metric{{firstAnswer, 1, ""}},
		measure: func(r *run, row row) {
			r.each(row, pick(r, 2, 7), tunnels, func(s *site, v variant) error { return r.startup(row, s, v) })
		},
	}
}

func (r *run) startup(row row, s *site, v variant) error {
	p, err := v.plan(s, s.app)
	if err != nil {
		return err
	}
	t := &tunnel{plan: p, site: s}
	if err := t.startServer(); err != nil {
		return err
	}
	start := time.Now()
	if err := t.startClient(); err != nil {
		return err
	}
	if err := t.answers(time.Millisecond, patience); err != nil {
		return err
	}
	took := time.Since(start)
	if err := t.isMeant(); err != nil {
		return err
	}
	r.store.add(row.name, "", v.name, firstAnswer, milli(took))
	return nil
}

func recoverRow() row {
	return row{
		name: "recover",
		about: "kill -9 of the server, or of the client, and its start again at once: from the server listening, " +
			"or the client starting, to the first answer",
		metrics: []metric{{back, 0, ""}},
		measure: func(r *run, row row) {
			r.each(row, pick(r, 1, 5), tunnels, func(s *site, v variant) error { return r.recovery(row, s, v) })
		},
	}
}

// recovery kills the client first, as some clients do not outlive their server.
func (r *run) recovery(row row, s *site, v variant) error {
	t, err := s.open(v, nil)
	if err != nil {
		return err
	}
	t.client.Kill()
	start := time.Now()
	err = t.startClient()
	if err == nil {
		err = t.answers(time.Millisecond, patience)
	}
	if err != nil {
		return &caseError{clientKilled, err}
	}
	r.store.add(row.name, clientKilled, v.name, back, milli(time.Since(start)))

	t.server.Kill()
	err = t.startServer()
	start = time.Now()
	if err == nil {
		err = t.answers(time.Millisecond, patience)
	}
	if err != nil {
		return &caseError{serverKilled, err}
	}
	r.store.add(row.name, serverKilled, v.name, back, milli(time.Since(start)))
	return nil
}
