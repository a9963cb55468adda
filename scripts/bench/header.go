package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// header writes what the figures depend on: the commit, the machine, and each variant with its
// version and defaults.
func header(w io.Writer, o *options, there, absent []variant) {
	fmt.Fprintf(w, "# %s\n\n", o)
	fmt.Fprintf(w, "- commit %s, %s, %s/%s, %d CPUs (%s)\n", o.commit, runtime.Version(), runtime.GOOS,
		runtime.GOARCH, runtime.NumCPU(), model())
	fmt.Fprintf(w, "- %s; load generator: built in, a goroutine for each connection\n",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	for _, v := range there {
		name := v.name
		if len(v.needs) > 0 {
			name += " " + version(v.needs[0])
		}
		fmt.Fprintf(w, "- %s: %s\n", name, v.about)
	}
	for _, v := range absent {
		fmt.Fprintf(w, "- not measured: %s, as %s is not on PATH\n", v.name, strings.Join(v.needs, " or "))
	}
}

// version is what a program says when it is asked for its version.
func version(program string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, program, "--version").CombinedOutput()
	if v := regexp.MustCompile(`v?\d+\.\d+\.\d+[-+.\w]*`).Find(out); v != nil {
		return string(v)
	}
	return "of unknown version"
}

// model is the processor's name.
func model() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	_, after, _ := strings.Cut(string(text), "model name")
	line, _, _ := strings.Cut(after, "\n")
	return strings.TrimLeft(line, "\t :")
}
