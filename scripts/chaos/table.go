package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// report judges the run, prints the table, and reports whether a promise was broken.
func (t *trial) report() (failed bool) {
	results := t.load.results
	wrong := rig.Reconcile(results, t.ran)
	const shown = 20
	for _, o := range wrong[:min(len(wrong), shown)] {
		fmt.Fprintf(t.out, "WRONG %s\n", &o)
	}
	calm := t.unexplained()
	for _, o := range calm[:min(len(calm), shown)] {
		fmt.Fprintf(t.out, "UNEXPLAINED %s\n", &o)
	}
	fmt.Fprintln(t.out)
	t.printLoad()
	t.printFaults()
	again := 0
	for _, one := range t.ran {
		if one.Begun > 1 {
			again++
		}
	}
	fmt.Fprintf(t.out, "\n%v, %.0f requests/s; %d requests ran again, as their method allows\n", t.elapsed.Round(time.Second), float64(len(results))/t.elapsed.Seconds(), again)
	if t.starved {
		fmt.Fprintln(t.out, "the machine's memory for TCP was used up during the run, by this or another program: stalls and resets may be due to that (tcp_mem in tcp(7))")
	}
	verdict := "nothing lost"
	if failed = len(wrong)+len(calm)+len(t.problems) > 0; failed {
		verdict = fmt.Sprintf("%d wrong endings, %d errors without a fault, %d problems", len(wrong), len(calm), len(t.problems))
	}
	fmt.Fprintf(t.out, "seed %d: %d faults, %d requests, %s\n", t.lab.seed, len(t.faults), len(results), verdict)
	return failed
}

// settled is how long after a fault an error may still be due to it: connections that visitors keep,
// and their gRPC's pause before it connects again.
const settled = 2 * time.Second

// unexplained are the requests that failed although nothing was wrong from their begin to their end.
func (t *trial) unexplained() []rig.Result {
	var all []rig.Result
	for _, o := range t.load.results {
		if (o.Verdict == rig.Failed || o.Verdict == rig.Rejected) && !t.disturbed(o.Began, o.Began.Add(o.Took), t.settles(o.Ask.ID)) {
			all = append(all, o)
		}
	}
	return all
}

// settles is how long after a fault an error of id's may be due to it. Who speaks HTTP/3 is told of no reset.
func (t *trial) settles(id string) time.Duration {
	if i, ok := t.load.labels[id]; ok && t.load.sources[i].way == third {
		return rig.H3Idle + settled
	}
	return settled
}

func (t *trial) disturbed(from, to time.Time, settled time.Duration) bool {
	return from.Before(t.began) || slices.ContainsFunc(t.faults, func(h happened) bool {
		return from.Before(h.back.Add(settled)) && to.After(h.began)
	})
}

func (t *trial) printLoad() {
	verdicts := []rig.Verdict{rig.Full, rig.Failed, rig.Rejected, rig.Lost, rig.Duplicated, rig.Truncated, rig.Hung, rig.CrossTalk}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "load\tsent\t")
	for _, v := range verdicts {
		fmt.Fprintf(w, "%s\t", v)
	}
	fmt.Fprintln(w)
	counts := make([]map[rig.Verdict]int, len(t.load.sources)+1)
	for _, o := range t.load.results {
		i, ok := t.load.labels[o.Ask.ID]
		if !ok {
			i = len(counts) - 1 // a probe
		}
		if counts[i] == nil {
			counts[i] = make(map[rig.Verdict]int)
		}
		counts[i][o.Verdict]++
	}
	total := make(map[rig.Verdict]int)
	line := func(name string, count map[rig.Verdict]int) {
		sum := 0
		for _, n := range count {
			sum += n
		}
		fmt.Fprintf(w, "%s\t%d\t", name, sum)
		for _, v := range verdicts {
			fmt.Fprintf(w, "%d\t", count[v])
		}
		fmt.Fprintln(w)
	}
	for i, count := range counts {
		name := "probes after faults"
		if i < len(t.load.sources) {
			name = t.load.sources[i].name
		}
		line(name, count)
		for v, n := range count {
			total[v] += n
		}
	}
	line("all", total)
	w.Flush()
}

func (t *trial) printFaults() {
	times := make(map[string][]time.Duration)
	for _, h := range t.faults {
		times[h.kind] = append(times[h.kind], h.back.Sub(h.ended))
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nfault\tcount\tback after, median\tmax\t")
	for _, kind := range slices.SortedFunc(maps.Keys(times), cmp.Compare[string]) {
		d := times[kind]
		slices.Sort(d)
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t\n", kind, len(d), seconds(d[(len(d)-1)/2]), seconds(d[len(d)-1]))
	}
	w.Flush()
}

func seconds(d time.Duration) string {
	return strings.TrimSpace(fmt.Sprintf("%.3f s", d.Seconds()))
}
