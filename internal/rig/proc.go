package rig

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A Command is a program to start. Environment variables TUNNEL_… do not reach it.
type Command struct {
	Path string
	Args []string
}

// A Proc is a program that runs, or has run.
type Proc struct {
	Name   string // of the program
	cmd    *exec.Cmd
	stdin  io.Closer
	log    string        // file with all it prints
	done   chan struct{} // closed when it has ended
	killed atomic.Bool   // by us
}

func startProc(dir string, c Command) (*Proc, error) {
	name := filepath.Base(c.Path)
	log, err := os.CreateTemp(dir, name+".*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &Proc{Name: name, cmd: exec.Command(c.Path, c.Args...), log: log.Name(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = log, log, dir
	p.cmd.SysProcAttr = dieWithParent()
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "TUNNEL_") {
			p.cmd.Env = append(p.cmd.Env, v)
		}
	}
	// A role ends when its standard input does, so it does not outlive this process.
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go p.wait()
	return p, nil
}

func (p *Proc) wait() {
	defer close(p.done)
	_ = p.cmd.Wait() // how it ended is in its log
}

// Kill ends p at once, as kill -9 does, and returns when it is gone.
func (p *Proc) Kill() {
	p.killed.Store(true)
	_ = p.cmd.Process.Kill() // it may be gone already
	<-p.done
	p.stdin.Close()
}

// Signal sends s to p: SIGSTOP and SIGCONT freeze and thaw it, SIGTERM lets it end.
func (p *Proc) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// End marks that p is meant to end by itself, as after a signal.
func (p *Proc) End() { p.killed.Store(true) }

// Done is closed when p has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// ExitCode is p's, once it has ended; -1 where a signal ended it.
func (p *Proc) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// Exited reports whether p has ended.
func (p *Proc) Exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Printed fails until p has printed words.
func (p *Proc) Printed(words string) error {
	text, err := os.ReadFile(p.log)
	if err == nil && !bytes.Contains(text, []byte(words)) {
		err = fmt.Errorf("%s has not said %q", p.Name, words)
	}
	return err
}

// Log is all that p has printed so far.
func (p *Proc) Log() string {
	text, _ := os.ReadFile(p.log)
	return string(text)
}

// LastWords is the last line that p printed, or the start of it.
func (p *Proc) LastWords() string {
	text, _ := os.ReadFile(p.log)
	text = bytes.TrimSpace(text)
	line := text[bytes.LastIndexByte(text, '\n')+1:]
	return strings.TrimSpace(string(line[:min(len(line), 160)]))
}

// CPU is the user and system time that p has used.
func (p *Proc) CPU() time.Duration {
	text, err := p.read("stat")
	if err != nil {
		return 0
	}
	return cpuOf(text)
}

// cpuOf reads /proc/PID/stat, see proc_pid_stat(5). The name in parentheses may hold anything.
func cpuOf(stat string) time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick
}

// PeakRSS is the largest that RSS has been.
func (p *Proc) PeakRSS() float64 { return p.memory("VmHWM:") }

// RSS is p's resident memory in bytes.
func (p *Proc) RSS() float64 { return p.memory("VmRSS:") }

// memory reads a line of /proc/PID/status, see proc_pid_status(5).
func (p *Proc) memory(line string) float64 {
	text, err := p.read("status")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(text, line)
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseFloat(fields[0], 64)
	return kib * 1024
}

// Descriptors is the number of files that p has open.
func (p *Proc) Descriptors() float64 {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	return float64(len(entries))
}

func (p *Proc) read(file string) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, file))
	return string(text), err
}

// ExitWithParent ends this process, which a [Site] started, when its standard input ends. It does not
// return.
func ExitWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}
