package rig

import (
	"fmt"
	"testing"
)

func TestReadStrict(t *testing.T) {
	const get = "GET /1 HTTP/1.1\r\nHost: a.b\r\n"
	for raw, want := range map[string]string{
		"":                          "0 whole",
		get:                         "0 cut",
		get + "\r\n":                "1 whole",
		get + "\r\n" + get + "\r\n": "2 whole",
		get + "Connection: close\r\n\r\n" + get + "\r\n":                                           "1 whole",
		get + "Content-Length: 5\r\n\r\nhello\r\n" + get + "\r\n":                                  "2 whole",
		get + "Content-Length: 5\r\n\r\nhel":                                                       "1 cut",
		get + "Content-Length: +5\r\n\r\nhello":                                                    "0 refused",
		get + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n":                            "0 refused",
		get + "Transfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\nX: y\r\n\r\n" + get + "\r\n": "2 whole",
		get + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n":                            "1 refused",
		get + "X: y\r\n z\r\n\r\n":                                                                 "0 refused",
		get + "X : y\r\n\r\n":                                                                      "0 refused",
		get + "\n":                                                                                 "0 refused",
		"GET /1 HTTP/1.1\r\n\r\n":                                                                  "0 refused",
		"GET /1 HTTP/1.0\r\n\r\n" + get + "\r\n":                                                   "1 whole",
		"GET /1\r\n":                                                                               "0 refused",
		"GET /1 HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n":                                            "0 refused",
	} {
		r := ReadStrict(raw)
		if got := fmt.Sprint(len(r.Requests), " ", [...]string{"whole", "cut", "refused"}[r.End]); got != want {
			t.Errorf("%q: %s, want %s", raw, got, want)
		}
	}
}

// The judge finds what a smuggler wants: a request more, one at the wrong tenant,
// a body that is another's, an answer that is another's, silence.
func TestJudge(t *testing.T) {
	const raw = "POST /1 HTTP/1.1\r\nHost: a.b\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nHost: c.b\r\n\r\n"
	first, second := Arrival{"a", "POST", "/1", "hello", true}, Arrival{"c", "GET", "/2", "", true}
	one, two := VisitorAnswer{200, "a", `"POST /1"`}, VisitorAnswer{200, "c", `"GET /2"`}
	for name, c := range map[string]struct {
		answers []VisitorAnswer
		arrived []Arrival
		ok      bool
	}{
		"both":              {[]VisitorAnswer{one, two}, []Arrival{first, second}, true},
		"refused":           {[]VisitorAnswer{{Status: 400}}, nil, true},
		"the second is":     {[]VisitorAnswer{one, {Status: 400}}, []Arrival{first}, true},
		"one more":          {[]VisitorAnswer{one, two}, []Arrival{first, second, second}, false},
		"the wrong tenant":  {[]VisitorAnswer{one, two}, []Arrival{first, {"a", "GET", "/2", "", true}}, false},
		"another's body":    {[]VisitorAnswer{one, two}, []Arrival{{"a", "POST", "/1", "helloG", true}, second}, false},
		"another's answer":  {[]VisitorAnswer{one, one}, []Arrival{first, second}, false},
		"an answer to none": {[]VisitorAnswer{one, two, two}, []Arrival{first, second}, false},
		"silence":           {[]VisitorAnswer{one}, []Arrival{first, second}, false},
	} {
		o := Outcome{Raw: raw, Reading: ReadStrict(raw), Answers: c.answers}
		if err := o.Judge(c.arrived); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	paired := Outcome{Answers: []VisitorAnswer{one, two}}
	if paired.JudgePaired([]Arrival{first, second}) != nil || paired.JudgePaired([]Arrival{first}) == nil || paired.JudgePaired([]Arrival{second, first}) == nil || paired.JudgePaired([]Arrival{first, second, second}) == nil {
		t.Error("what arrived and what was answered are not compared")
	}
}

func TestPoisonsDiffer(t *testing.T) {
	seen := make(map[string]string)
	for _, p := range Poisons() {
		if other, ok := seen[p.Raw]; ok {
			t.Errorf("%s is %s", p.Name, other)
		}
		seen[p.Raw] = p.Name
	}
	if len(seen) < 200 {
		t.Errorf("%d cases", len(seen))
	}
}
