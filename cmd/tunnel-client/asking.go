package main

import (
	"os"
	"time"
)

// asking tells a second signal that asks for an end from the first one that came twice:
// timeout(1) sends its own to the command and to the command's group.
type asking struct {
	first os.Signal // nil: none came yet
	since time.Time
}

// twice is how soon the same signal is none of its own.
const twice = 50 * time.Millisecond

// What a signal is.
type asks int

const (
	asksFirst asks = iota
	asksTwice
	asksAgain
)

// next is called for each signal.
func (a *asking) next(s os.Signal) asks {
	switch {
	case a.first == nil:
		a.first, a.since = s, time.Now()
		return asksFirst
	case s == a.first && time.Since(a.since) < twice:
		return asksTwice
	}
	return asksAgain
}
