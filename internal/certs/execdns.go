package certs

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/libdns/libdns"
)

const (
	defaultExecTimeout = time.Minute
	maxStderr          = 2 << 10 // bytes of it in an error, the last
)

// ExecDNS is a provider that calls a command, which sets and removes TXT
// records:
//
//	COMMAND present FQDN VALUE
//	COMMAND cleanup FQDN VALUE
//
// FQDN has its final dot, as in "_acme-challenge.tunnel.example.com."; VALUE is
// to be one of the name's TXT records, which may have others: two names of one
// order are proven at the same time. The exit status 0 means done. What the
// command writes to standard error becomes part of the error. Calls never
// overlap, get an empty standard input, and the environment of this process.
type ExecDNS struct {
	// Command is a program and its first arguments, apart by blanks. There is no
	// shell: quotes and variables mean nothing.
	Command string
	// Timeout is for each call, 1 minute if 0. What then still runs is killed.
	Timeout time.Duration

	calling sync.Mutex
}

func (d *ExecDNS) check() error {
	words := strings.Fields(d.Command)
	if len(words) == 0 {
		return errors.New("exec: needs a command: exec:/path/to/script")
	}
	if _, err := exec.LookPath(words[0]); err != nil {
		return fmt.Errorf("the command for DNS records cannot be run: %w", err)
	}
	return nil
}

// AppendRecords calls the command with present, for each record. Where a call
// fails, the records before it are cleaned up.
func (d *ExecDNS) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	for i, r := range records {
		if err := d.call(ctx, "present", zone, r); err != nil {
			_, undo := d.DeleteRecords(context.WithoutCancel(ctx), zone, records[:i])
			return nil, errors.Join(err, undo)
		}
	}
	return records, nil
}

// DeleteRecords calls the command with cleanup, for each record; all are tried.
func (d *ExecDNS) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	var gone []libdns.Record
	var errs []error
	for _, r := range records {
		if err := d.call(ctx, "cleanup", zone, r); err != nil {
			errs = append(errs, err)
			continue
		}
		gone = append(gone, r)
	}
	return gone, errors.Join(errs...)
}

func (d *ExecDNS) call(ctx context.Context, verb, zone string, r libdns.Record) error {
	rr := r.RR()
	if rr.Type != "TXT" {
		return fmt.Errorf("the command for DNS records sets TXT, not %s", rr.Type)
	}
	if err := d.check(); err != nil {
		return err
	}
	fqdn := strings.TrimSuffix(libdns.AbsoluteName(rr.Name, zone), ".") + "."
	d.calling.Lock()
	defer d.calling.Unlock()
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = defaultExecTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	words := append(strings.Fields(d.Command), verb, fqdn, rr.Data)
	var stderr tail
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second // for what it started and left behind, which holds stderr
	killAll(cmd)
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("not done after %s", timeout)
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	if said := strings.TrimSpace(string(stderr)); said != "" {
		return fmt.Errorf("%s %s: %w: %q", words[0], verb, err, said)
	}
	return fmt.Errorf("%s %s: %w", words[0], verb, err)
}

// tail keeps the last bytes written to it. (It is no bytes.Buffer: that would
// read a pipe by itself, to its end.)
type tail []byte

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if over := len(*t) - maxStderr; over > 0 {
		*t = append((*t)[:0], (*t)[over:]...)
	}
	return len(p), nil
}
