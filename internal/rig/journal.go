package rig

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// What the app saw of a request's body.
const (
	bodyWhole  = "whole"  // ended cleanly, and was what the header announced
	bodyBroken = "broken" // ended with an error
	bodyWrong  = "wrong"  // ended cleanly, and was not: the app was deceived
)

// Ran is what the app knows of one id.
type Ran struct {
	Method string
	Begun  int            // how many times
	Bodies map[string]int // "whole", "broken", "wrong": how many times a request's body ended so
}

// A Journal is the app's log of the ids. What is in it was written before the app did anything else,
// and outlives it: kill -9 loses nothing.
type Journal struct {
	mu sync.Mutex
	to io.Writer // guarded by mu
}

// OpenJournal appends to the file at path.
func OpenJournal(path string) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &Journal{to: f}, nil
}

// MemoryJournal is one for an app in this process. read gives what is in it.
func MemoryJournal() (j *Journal, read func() map[string]*Ran) {
	var b bytes.Buffer
	j = &Journal{to: &b}
	return j, func() map[string]*Ran {
		j.mu.Lock()
		defer j.mu.Unlock()
		return parseJournal(bytes.NewReader(b.Bytes()))
	}
}

// note writes one line with one system call, so that it is there whole or not at all.
func (j *Journal) note(id, what, detail string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := fmt.Fprintf(j.to, "%s %s %s\n", id, what, detail); err != nil {
		panic(err) // an app that cannot keep its journal must not go on
	}
}

// ReadJournal reads what was written to path, by how many apps whatever.
func ReadJournal(path string) (map[string]*Ran, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseJournal(f), nil
}

func parseJournal(r io.Reader) map[string]*Ran {
	ran := make(map[string]*Ran)
	for lines := bufio.NewScanner(r); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 {
			continue
		}
		one := ran[fields[0]]
		if one == nil {
			one = &Ran{Bodies: make(map[string]int)}
			ran[fields[0]] = one
		}
		switch fields[1] {
		case "began":
			one.Begun++
			one.Method = fields[2]
		case "body":
			one.Bodies[fields[2]]++
		}
	}
	return ran
}
