package main

import (
	"testing"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/poll"
)

// A flood that did not take place, or hardly, is an error: it would have tried nothing.
func TestFloodSent(t *testing.T) {
	site := &rig.Site{Context: t.Context(), Dir: t.TempDir()}
	defer site.Clear()
	const flood = "; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
	for script, want := range map[string]int64{
		"trap 'echo 5000" + flood: 5000, "trap 'echo 5" + flood: 0, "trap 'echo no number" + flood: 0, "echo ready; exit 1": 0,
	} {
		p, err := site.Start(rig.Command{Path: "sh", Args: []string{"-c", script}})
		if err != nil {
			t.Fatal(err)
		}
		poll.Until(t, script+" is ready", func() bool { return p.Printed("ready") == nil })
		if got, err := floodSent(p); got != want || (err == nil) != (want > 0) {
			t.Errorf("%s: %d frames, %v", script, got, err)
		}
	}
}
