package main

import (
	"io"
	"sync"
)

// outlet is standard error, which a screen takes in while it is shown: what anyone else
// writes to the terminal tears it.
type outlet struct {
	w io.Writer

	mu sync.Mutex   // guards the following
	to func(string) // nil: w
}

// Write writes, mostly a line.
func (o *outlet) Write(p []byte) (int, error) {
	o.mu.Lock()
	to := o.to
	o.mu.Unlock()
	if to == nil {
		return o.w.Write(p)
	}
	to(string(p))
	return len(p), nil
}

// divert has to get what is written from now on; nil takes that back.
func (o *outlet) divert(to func(string)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to = to
}
