package main

import (
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"
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
	if err == nil || !strings.Contains(err.Error(), "small, bulk, tls, h2, h3, tcp, udp, path") {
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
