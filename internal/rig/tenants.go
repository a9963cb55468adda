package rig

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Tenants are local apps whose log tells which requests reached whom, and whose
// answers tell it to the visitor. The zero value is ready.
type Tenants struct {
	mu  sync.Mutex
	log []Arrival
}

// An Arrival is one request as a local app saw it.
type Arrival struct {
	Tenant, Method, Target string
	Body                   string
	Whole                  bool // the body came to its end
}

// App is the local app of one tenant: it reads the request, logs it, and answers.
func (t *Tenants) App(tenant string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		a := Arrival{tenant, r.Method, r.RequestURI, string(body), err == nil}
		t.mu.Lock()
		t.log = append(t.log, a)
		t.mu.Unlock()
		w.Header()["Tenant"] = []string{tenant}
		w.Header()["Arrived"] = []string{fmt.Sprintf("%q", a.Method+" "+a.Target)}
		io.WriteString(w, "answer to "+a.Target)
	})
}

// Log returns what arrived so far.
func (t *Tenants) Log() []Arrival {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.log)
}

// An Outcome is what a visitor got for the bytes of one [Poison].
type Outcome struct {
	Poison  Poison
	Raw     string
	Reading Reading
	Answers []VisitorAnswer // without interim ones
	Err     error           // how the connection ended; nil: by the visitor, who had all answers
}

// A VisitorAnswer is one final answer. Tenant and Arrived are the local app's; of
// other answers they are empty.
type VisitorAnswer struct {
	Status          int
	Tenant, Arrived string
}

// Send writes raw and reads answers until each whole request has one, or the
// connection ends. Where a request is not whole, or not valid, the visitor says
// that no more comes, once what precedes it is answered. conn is closed.
func Send(conn net.Conn, p Poison, raw string, patience time.Duration) Outcome {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	o := Outcome{Poison: p, Raw: raw, Reading: ReadStrict(raw)}
	whole := 0
	for _, r := range o.Reading.Requests {
		if r.Whole {
			whole++
		}
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		io.WriteString(conn, raw) // what fails shows in the answers
	}()
	r := bufio.NewReader(conn)
	for {
		if len(o.Answers) >= whole {
			if o.Reading.End == Whole {
				return o
			}
			<-written
			if c, ok := conn.(interface{ CloseWrite() error }); ok {
				c.CloseWrite()
			}
		}
		a, err := readAnswer(r, o.method())
		if err != nil {
			o.Err = err
			return o
		}
		if a.Status >= 200 {
			o.Answers = append(o.Answers, a)
		}
	}
}

// method is that of the next answer's request.
func (o *Outcome) method() string {
	if n := len(o.Answers); n < len(o.Reading.Requests) {
		return o.Reading.Requests[n].Method
	}
	return http.MethodGet
}

func readAnswer(r *bufio.Reader, method string) (VisitorAnswer, error) {
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return VisitorAnswer{}, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return VisitorAnswer{}, err
	}
	return VisitorAnswer{res.StatusCode, res.Header.Get("Tenant"), res.Header.Get("Arrived")}, nil
}

// Hung reports whether the connection stayed open without an answer.
func (o *Outcome) Hung() bool {
	var timeout net.Error
	return errors.As(o.Err, &timeout) && timeout.Timeout()
}

// Of returns the arrivals of the case with this id, which stands in their target.
func Of(log []Arrival, id int) []Arrival {
	mark := fmt.Sprintf("%03d", id)
	return slices.DeleteFunc(slices.Clone(log), func(a Arrival) bool { return !strings.Contains(a.Target, mark) })
}

// Judge compares what arrived with the strict reading: each arrival is one of its
// requests, in order and with its body, at the tenant whose host it names; each
// answer is that of its place; and whoever reads less has refused (4xx, 5xx) and
// closed. The error says what is wrong.
func (o *Outcome) Judge(arrived []Arrival) error {
	if o.Hung() {
		return errors.New("the connection stays open")
	}
	if err := o.judgeArrivals(arrived); err != nil {
		return err
	}
	wanted := o.Reading.Requests
	for i, a := range o.Answers {
		switch {
		case a.Tenant == "" && a.Status < 400:
			return fmt.Errorf("answer %d: %d, from no tenant", i, a.Status)
		case a.Tenant == "":
		case i >= len(wanted):
			return fmt.Errorf("answer %d is to %s, and there is no such request", i, a.Arrived)
		case a.Arrived != fmt.Sprintf("%q", wanted[i].arrival()), a.Tenant != wanted[i].tenant():
			return fmt.Errorf("answer %d is %s's, to %s; the request is %s for %s", i, a.Tenant, a.Arrived, wanted[i].arrival(), wanted[i].tenant())
		}
	}
	if !o.settled() {
		return fmt.Errorf("%d answers to %d requests, and no refusal: %v", len(o.Answers), len(wanted), o.Err)
	}
	return nil
}

// settled reports whether each request was answered, or the last answer refused
// what followed. A reset may overtake that answer; and where a body makes no sense
// to its end, the connection's end will do.
func (o *Outcome) settled() bool {
	n, wanted := len(o.Answers), o.Reading.Requests
	switch {
	case n > len(wanted), o.Reading.End == Cut, n == len(wanted) && o.Reading.End == Whole:
		return true
	case strings.HasPrefix(o.Raw, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
		return true // what is answered is frames
	case n > 0 && o.Answers[n-1].Status >= 400, errors.Is(o.Err, syscall.ECONNRESET), errors.Is(o.Err, syscall.EPIPE):
		return true
	}
	return n == len(wanted)-1 && !wanted[n].Whole
}

func (o *Outcome) judgeArrivals(arrived []Arrival) error {
	wanted := o.Reading.Requests
	next := 0
	for _, a := range arrived {
		for next < len(wanted) && (wanted[next].arrival() != a.Method+" "+a.Target || wanted[next].tenant() != a.Tenant) {
			next++
		}
		if next == len(wanted) {
			return fmt.Errorf("%s arrived at %s, and is no request, or not its own", a.Method+" "+a.Target, a.Tenant)
		}
		w := wanted[next]
		unread := !w.Whole && o.Reading.End == Refused // its body can be read in more than one way
		if !unread && (a.Whole != w.Whole && a.Whole || a.Whole && w.Body != a.Body || !strings.HasPrefix(w.Body, a.Body)) {
			return fmt.Errorf("%s arrived with the body %q (whole: %v), sent was %q (whole: %v)", a.Target, a.Body, a.Whole, w.Body, w.Whole)
		}
		next++
	}
	return nil
}

// JudgePaired is for a server behind another proxy, which may read what the strict
// one refuses: each answer of a tenant belongs to one arrival and the other way
// round, in order, but for a last one that was cut off, and none is another's.
func (o *Outcome) JudgePaired(arrived []Arrival) error {
	if o.Hung() {
		return errors.New("the connection stays open")
	}
	n := 0
	for i, a := range o.Answers {
		if a.Tenant == "" {
			continue
		}
		for n < len(arrived) && !arrived[n].Whole {
			n++
		}
		if n == len(arrived) {
			return fmt.Errorf("answer %d is to %s, which did not arrive", i, a.Arrived)
		}
		if b := arrived[n]; a.Tenant != b.Tenant || a.Arrived != fmt.Sprintf("%q", b.Method+" "+b.Target) {
			return fmt.Errorf("answer %d is %s's to %s; what arrived is %s at %s", i, a.Tenant, a.Arrived, b.Target, b.Tenant)
		}
		n++
	}
	if left := len(arrived) - n; left > 1 || left == 1 && o.Err == nil {
		return fmt.Errorf("%d requests arrived whose answer nobody got", left)
	}
	return nil
}

// arrival is what a local app sees of a request line.
func (r *ReadRequest) arrival() string {
	target := r.Target
	if _, rest, ok := strings.Cut(target, "://"); ok && !strings.HasPrefix(target, "/") {
		if target = rest[strings.IndexAny(rest+"/", "/?"):]; !strings.HasPrefix(target, "/") {
			target = "/" + target
		}
	}
	return r.Method + " " + target
}

// tenant is the first label of the host.
func (r *ReadRequest) tenant() string {
	label, _, _ := strings.Cut(r.Host, ".")
	return strings.ToLower(label)
}
