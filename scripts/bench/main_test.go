package main

import (
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseOptions(t *testing.T) {
	o, err := parseOptions([]string{"small", "--quick", "bulk", "--rounds", "3", "--variants", "tunnel,frp tcp"})
	if err != nil {
		t.Fatal(err)
	}
	if !o.quick || o.rounds != 3 || !slices.Equal(o.rows, []string{"small", "bulk"}) ||
		!slices.Equal(o.variants, []string{"tunnel", "frp tcp"}) {
		t.Errorf("options = %+v", o)
	}
	if got, want := o.String(), `scripts/bench.sh --quick --rounds 3 --variants "tunnel,frp tcp" small bulk`; got != want {
		t.Errorf("String = %s, want %s", got, want)
	}
	if _, err := parseOptions([]string{"--help"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help gives %v", err)
	}
	_, err = parseOptions([]string{"smal"})
	if err == nil || !strings.Contains(err.Error(), "small, bulk, path") {
		t.Errorf("an unknown row gives %v", err)
	}
	if _, err := parseOptions([]string{"--variants", "nobody"}); err == nil {
		t.Error("an unknown variant gives no error")
	}
	if _, err := parseOptions([]string{"--rounds", "-1"}); err == nil {
		t.Error("a negative number of rounds gives no error")
	}
	if _, err := parseOptions([]string{"--nothing"}); err == nil {
		t.Error("an unknown option gives no error")
	}
}

func TestUsageListsRowsAndVariants(t *testing.T) {
	var b strings.Builder
	usage(&b)
	for _, r := range rows() {
		if !strings.Contains(b.String(), "\n  "+r.name+" ") {
			t.Errorf("usage lacks row %s", r.name)
		}
	}
	for _, v := range variants() {
		if !strings.Contains(b.String(), "\n  "+v.name+" ") {
			t.Errorf("usage lacks variant %s", v.name)
		}
	}
}

func TestCPUOf(t *testing.T) {
	const stat = "12 (a) name) S 1 12 12 0 -1 4194560 1 2 3 4 250 51 7 8 20 0 9 0 100 1 2 3"
	if got, want := cpuOf(stat), 3010*time.Millisecond; got != want {
		t.Errorf("cpuOf = %v, want %v", got, want)
	}
	if got := cpuOf("12 (name) S 1"); got != 0 {
		t.Errorf("cpuOf of a short line = %v", got)
	}
}
