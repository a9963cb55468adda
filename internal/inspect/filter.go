package inspect

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// filter chooses requests. Its zero value takes all.
type filter struct {
	path     string // is a part of the path, in any case of letters
	method   string
	endpoint string
	status   string // "404", "4xx", or "error": no whole answer, or one of the tunnel's own
	text     string // is in the path, a header or a body, in any case of letters
	limit    int    // the newest so many; 0: all
}

func parseFilter(q url.Values) (filter, error) {
	f := filter{path: strings.ToLower(q.Get("path")), method: strings.ToUpper(q.Get("method")), endpoint: q.Get("endpoint"), text: strings.ToLower(q.Get("text"))}
	f.status = strings.ToLower(q.Get("status"))
	digits := strings.TrimSuffix(f.status, "xx")
	if n, err := strconv.Atoi(digits); f.status != "" && f.status != "error" && (err != nil || n < 1 || n > 999 || len(f.status) != 3) {
		return f, fmt.Errorf("status %q: use a number such as 404, a class such as 5xx, or error", q.Get("status"))
	}
	if limit := q.Get("limit"); limit != "" {
		var err error
		if f.limit, err = strconv.Atoi(limit); err != nil || f.limit < 0 {
			return f, fmt.Errorf("limit %q is not a number", limit)
		}
	}
	return f, nil
}

// searching is held by the one search for a text that is under way: each may decode all
// bodies, and a page that is typed in asks for many.
var searching sync.Mutex

// choose returns those of records that f takes, oldest first, and some of them when ctx has
// ended.
func (f filter) choose(ctx context.Context, records []*record) []Summary {
	chosen := []Summary{}
	if f.text != "" {
		searching.Lock()
		defer searching.Unlock()
	}
	for _, rec := range slices.Backward(records) {
		if f.limit > 0 && len(chosen) == f.limit || ctx.Err() != nil {
			break
		}
		if s := rec.summary(); s.Path != "" && f.takes(s) && (f.text == "" || rec.contains(f.text)) {
			chosen = append(chosen, s)
		}
	}
	slices.Reverse(chosen)
	return chosen
}

func (f filter) takes(s Summary) bool {
	status := true
	switch digits, class := strings.CutSuffix(f.status, "xx"); {
	case f.status == "error":
		status = s.Error != "" || s.State == string(cut)
	case class:
		status = strconv.Itoa(s.Status/100) == digits
	case f.status != "":
		status = strconv.Itoa(s.Status) == f.status
	}
	return status && (f.method == "" || s.Method == f.method) && (f.endpoint == "" || s.Endpoint == f.endpoint) && strings.Contains(strings.ToLower(s.Path), f.path)
}

// contains looks for text, which is in lower case. What is masked is not looked at.
func (rec *record) contains(text string) bool {
	rec.mu.Lock()
	answer, messages := rec.answer, slices.Clone(rec.messages)
	asked, answered := rec.asked.kept, rec.answered.kept
	header, address := rec.header, rec.url()
	rec.mu.Unlock()
	for _, fields := range [][]Field{header, answer} {
		for _, f := range fields {
			if !isSecret(f.Name) && strings.Contains(strings.ToLower(f.Name+": "+f.Value), text) {
				return true
			}
		}
	}
	for _, m := range messages {
		if holds(m.data, text) {
			return true
		}
	}
	return strings.Contains(strings.ToLower(address), text) ||
		bodyHolds(asked, header, text) || bodyHolds(answered, answer, text)
}

func bodyHolds(body []byte, header []Field, text string) bool {
	if coding := valueOf(header, "Content-Encoding"); coding != "" && len(body) > 0 {
		body, _ = decode(body, coding)
	}
	return holds(body, text)
}

func holds(b []byte, text string) bool { return bytes.Contains(bytes.ToLower(b), []byte(text)) }
