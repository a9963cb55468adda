package main

import (
	"bytes"
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseOptions(t *testing.T) {
	o, err := parseOptions([]string{"--quick", "--only", "idle,churn", "--markdown"})
	if err != nil {
		t.Fatal(err)
	}
	if !o.quick || !o.markdown || !slices.Equal(o.only, []string{"idle", "churn"}) {
		t.Errorf("options = %+v", o)
	}
	if o.wants(row{name: "herd"}) || !o.wants(row{name: "idle"}) || !(&options{}).wants(row{name: "herd"}) {
		t.Error("the rows asked for are not the ones run")
	}
	if _, err := parseOptions([]string{"--help"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help gives %v", err)
	}
	for _, args := range [][]string{{"--only", "idel"}, {"idle"}, {"--nothing"}} {
		if _, err := parseOptions(args); err == nil {
			t.Errorf("%q gives no error", args)
		}
	}
}

func TestUsageListsRows(t *testing.T) {
	var b strings.Builder
	usage(&b)
	for _, r := range rows() {
		if !strings.Contains(b.String(), "\n  "+r.name+" ") {
			t.Errorf("usage lacks row %s", r.name)
		}
	}
}

func TestTables(t *testing.T) {
	one := &trial{row: row{name: "idle", promise: "R18"}}
	one.atMost("memory", "%.0f MB", 600, 600)
	one.atMost("memory of more", "%.0f MB", 601, 600)
	one.checks = append(one.checks, check{row: "new", verdict: skipped})
	if passed, failed := count(one.checks); passed != 1 || failed != 1 {
		t.Errorf("%d passed, %d failed, want 1 and 1", passed, failed)
	}
	var table, markdown bytes.Buffer
	printTable(&table, one.checks)
	printMarkdown(&markdown, one.checks)
	if !strings.Contains(table.String(), "601 MB") || !strings.Contains(table.String(), "FAIL") {
		t.Errorf("the table is\n%s", &table)
	}
	if !strings.Contains(markdown.String(), "| R18 | memory | 600 MB (<= 600 MB) | `scripts/soak.sh --only idle` |") {
		t.Errorf("the markdown is\n%s", &markdown)
	}
	if !strings.Contains(markdown.String(), "**601 MB**") {
		t.Errorf("what failed does not stand out in\n%s", &markdown)
	}
}

func TestGoroutines(t *testing.T) {
	const dump = "SIGQUIT: quit\nPC=0x4\n\ngoroutine 0 gp=0x1 m=0 mp=0x2 [idle]:\nruntime.futex()\n\n" +
		"goroutine 1 gp=0x3 m=nil [IO wait, 2 minutes]:\nmain.main()\n\ncreated by x in goroutine 1\n\ngoroutine 52 [running]:\nf()\n"
	if n := goroutines(dump); n != 2 {
		t.Errorf("%d goroutines, want 2", n)
	}
}

func TestLiveHeap(t *testing.T) {
	const line = "gc 7 @2.1s 0%: 0.01+0.6+0.003 ms clock, 0.02+0.1/0.5/0+0.006 ms cpu, 30->31->12 MB, 24 MB goal, 0 MB stacks, 0 MB globals, 2 P\n"
	trace := "time=now level=INFO msg=started\n" + strings.Replace(line, "->12 ", "->3 ", 1) + line + strings.Replace(line, "->12 ", "->14 ", 1)
	if got := liveHeap(trace, 2); got != 12 {
		t.Errorf("live heap = %d, want 12: the least of the last two", got)
	}
	if got := liveHeap(trace, 4); got != -1 {
		t.Errorf("of too few collections = %d, want -1", got)
	}
	if got := collections(trace); got != 3 {
		t.Errorf("%d collections, want 3", got)
	}
}

func TestP99(t *testing.T) {
	l := &latencies{}
	for i := range l.thirds {
		for j := range 100 {
			l.thirds[i] = append(l.thirds[i], time.Duration(1000-10*i-j))
		}
	}
	if got := l.p99(); got != 990 {
		t.Errorf("p99 = %d, want that of the middle third, 990", got)
	}
	if got := (&latencies{}).p99(); got != 0 {
		t.Errorf("p99 of nothing = %d", got)
	}
}

func TestGaveUp(t *testing.T) {
	const bound = `level=INFO msg="name bound" session=AB remote=1 name=second url=http://second` + "\n"
	const other = `level=INFO msg="session ended" session=CD remote=2` + "\n"
	if gaveUp(bound+other, "second") {
		t.Error("another session's end is taken for this one's")
	}
	if !gaveUp(bound+other+strings.ReplaceAll(other, "CD", "AB"), "second") {
		t.Error("the session's end is not seen")
	}
}
