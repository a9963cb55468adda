package main

import (
	"encoding/json"
	"os"
	"slices"
)

// A cell is where samples belong: a row's case (such as c=64, or ""), a variant, a metric.
type cell struct{ row, kase, variant, metric string }

// A store keeps the samples of a run, and where there are none, why.
type store struct {
	samples map[cell][]float64
	failed  map[cell]string // metric "": the whole line
	cases   map[string][]string
}

func newStore() *store {
	return &store{samples: map[cell][]float64{}, failed: map[cell]string{}, cases: map[string][]string{}}
}

// add stores one sample.
func (s *store) add(row, kase, variant, metric string, value float64) {
	s.note(row, kase)
	c := cell{row, kase, variant, metric}
	s.samples[c] = append(s.samples[c], value)
}

// fail stores that a variant's line is not to be trusted: one wrong answer is enough.
func (s *store) fail(row, kase, variant string, err error) {
	s.note(row, kase)
	s.failed[cell{row, kase, variant, ""}] = err.Error()
}

// note remembers the cases of a row in the order in which they came.
func (s *store) note(row, kase string) {
	if !slices.Contains(s.cases[row], kase) {
		s.cases[row] = append(s.cases[row], kase)
	}
}

// failure says why a line failed, "" where it did not.
func (s *store) failure(c cell) string {
	c.metric = ""
	return s.failed[c]
}

// median is that of c's samples; ok is false where there are none or the line failed.
func (s *store) median(c cell) (value float64, ok bool) {
	if len(s.samples[c]) == 0 || s.failure(c) != "" {
		return 0, false
	}
	return median(s.samples[c]), true
}

// median is the middle of values, or the mean of the two in the middle; values is not empty.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	half := len(v) / 2
	if len(v)%2 == 1 {
		return v[half]
	}
	return (v[half-1] + v[half]) / 2
}

// writeJSON writes every sample, as an array of objects.
func (s *store) writeJSON(file string) error {
	type entry struct {
		Row     string    `json:"row"`
		Case    string    `json:"case,omitempty"`
		Variant string    `json:"variant"`
		Metric  string    `json:"metric,omitempty"`
		Samples []float64 `json:"samples,omitempty"`
		Failed  string    `json:"failed,omitempty"`
	}
	var entries []entry
	for c, samples := range s.samples {
		entries = append(entries, entry{c.row, c.kase, c.variant, c.metric, samples, s.failure(c)})
	}
	for c, why := range s.failed {
		entries = append(entries, entry{c.row, c.kase, c.variant, "", nil, why})
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return slices.Compare([]string{a.Row, a.Case, a.Variant, a.Metric}, []string{b.Row, b.Case, b.Variant, b.Metric})
	})
	text, err := json.MarshalIndent(entries, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
