package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{7}, 7}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 9}, 3},
	} {
		if got := median(tt.values); got != tt.want {
			t.Errorf("median(%v) = %v, want %v", tt.values, got, tt.want)
		}
	}
}

func TestNumber(t *testing.T) {
	for _, tt := range []struct {
		value  float64
		digits int
		want   string
	}{
		{0, 0, "0"}, {999, 0, "999"}, {1000, 0, "1,000"}, {1234567.25, 1, "1,234,567.2"}, {-1234, 0, "-1,234"},
		{-123, 0, "-123"}, {0.125, 2, "0.12"},
	} {
		if got := number(tt.value, tt.digits); got != tt.want {
			t.Errorf("number(%v, %d) = %q, want %q", tt.value, tt.digits, got, tt.want)
		}
	}
}

func testRow() row {
	return row{name: "r", about: "a test", metrics: []metric{{"x", 0, direct}, {"y", 1, ""}}}
}

func TestTable(t *testing.T) {
	s := newStore()
	for _, v := range []float64{30, 10, 20} {
		s.add("r", "c=1", direct, "x", v)
	}
	s.add("r", "c=1", ours, "x", 1000)
	s.add("r", "c=1", ours, "y", 1.25)
	s.add("r", "c=1", oneProxy, "x", 5)
	s.fail("r", "c=1", oneProxy, errors.New("a wrong answer"))
	var b strings.Builder
	s.print(&b, testRow())
	want := `
## r

A test. Each cell: median ×ratio to direct (smallest–largest).

| case | variant       | x                | y      |
|------|---------------|------------------|--------|
| c=1  | direct        | 20 ×1.00 (10–30) | -      |
| c=1  | one proxy hop | failed           | failed |
| c=1  | tunnel        | 1,000 ×50.00     | 1.2    |

Failed: one proxy hop c=1: a wrong answer
`
	if b.String() != want {
		t.Errorf("printed:\n%s\nwant:\n%s", b.String(), want)
	}
}

// Cases with other columns are a table of their own.
func TestTablesByColumns(t *testing.T) {
	s := newStore()
	s.add("r", "c=1", ours, "x", 1)
	s.add("r", "c=64", ours, "x", 2)
	s.add("r", "bulk", ours, "y", 3)
	var b strings.Builder
	s.print(&b, testRow())
	want := `
| case | variant | x |
|------|---------|---|
| c=1  | tunnel  | 1 |
| c=64 | tunnel  | 2 |

| case | variant | y   |
|------|---------|-----|
| bulk | tunnel  | 3.0 |
`
	if !strings.HasSuffix(b.String(), want) {
		t.Errorf("printed:\n%s\nwant at its end:\n%s", b.String(), want)
	}
}

func TestTableWithoutCases(t *testing.T) {
	s := newStore()
	s.add("r", "", ours, "y", 1)
	var b strings.Builder
	s.print(&b, testRow())
	if !strings.Contains(b.String(), "\n| variant | y   |\n") {
		t.Errorf("printed:\n%s", b.String())
	}
	b.Reset()
	newStore().print(&b, testRow())
	if !strings.Contains(b.String(), "Nothing was measured.") {
		t.Errorf("printed:\n%s", b.String())
	}
}

func TestTargetLines(t *testing.T) {
	s := newStore()
	of, to := cell{"r", "", ours, "x"}, cell{"r", "", direct, "x"}
	ratio := target{"what", of, to, true, 0.9}
	last := func(tg target) string { return strings.Join(tg.line(s)[2:], " ") }
	if got := last(ratio); got != "- not measured" {
		t.Errorf("without samples: %q", got)
	}
	s.add("r", "", ours, "x", 9)
	if got := last(ratio); got != "- not measured" {
		t.Errorf("without a yardstick: %q", got)
	}
	s.add("r", "", direct, "x", 10)
	if got := last(ratio); got != "0.9 met" {
		t.Errorf("at the limit: %q", got)
	}
	if got := last(target{"what", of, to, false, 0.91}); got != "0.9 NOT MET" {
		t.Errorf("below a lower limit: %q", got)
	}
	if got := last(target{"what", of, cell{}, true, 8}); got != "9 NOT MET" {
		t.Errorf("above an upper limit: %q", got)
	}
	s.fail("r", "", ours, errors.New("why"))
	if got := last(ratio); got != "- FAILED" {
		t.Errorf("after a failure: %q", got)
	}
}

// A target that speaks of what no row measures would never be anything but not measured.
func TestTargetsNameWhatIsMeasured(t *testing.T) {
	for _, tg := range targets() {
		for _, c := range []cell{tg.of, tg.to} {
			if c == (cell{}) {
				continue
			}
			measured := slices.ContainsFunc(rows(), func(r row) bool {
				return r.name == c.row &&
					slices.ContainsFunc(r.metrics, func(m metric) bool { return m.name == c.metric })
			})
			if !measured {
				t.Errorf("%s: no row %s with metric %s", tg.what, c.row, c.metric)
			}
			if !slices.Contains(variantNames(), c.variant) {
				t.Errorf("%s: no variant %s", tg.what, c.variant)
			}
		}
	}
}

func TestYardsticksAreHops(t *testing.T) {
	for _, r := range rows() {
		for _, m := range r.metrics {
			if m.yard == "" {
				continue
			}
			if !slices.ContainsFunc(variants(), func(v variant) bool { return v.name == m.yard && v.hop }) {
				t.Errorf("row %s, %s: %q is no yardstick", r.name, m.name, m.yard)
			}
		}
	}
}

func TestJSON(t *testing.T) {
	s := newStore()
	s.add("r", "c=1", ours, "x", 1)
	s.add("r", "c=1", ours, "x", 2)
	s.fail("r", "c=2", ours, errors.New("why"))
	file := filepath.Join(t.TempDir(), "out.json")
	if err := s.writeJSON(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []struct {
		Case, Variant, Failed string
		Samples               []float64
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || !slices.Equal(got[0].Samples, []float64{1, 2}) || got[1].Failed != "why" {
		t.Errorf("wrote %s", text)
	}
}
