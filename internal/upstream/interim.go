package upstream

import (
	"errors"
	"net/http"
	"net/textproto"
	"sync"
)

// maxInterim is how many interim answers (1xx) to one request may wait for the visitor,
// and maxInterimBytes how large their fields may be together.
const (
	maxInterim      = 64
	maxInterimBytes = 64 << 10
)

// interims passes interim answers on from another goroutine than that which reads the
// connection: a visitor that does not take its own would hold up everybody's answers.
type interims struct {
	pass func(code int, header textproto.MIMEHeader) error // nil: they are dropped

	mu      sync.Mutex // guards the following
	waiting []interim
	size    int
	passing chan struct{} // closed when none waits any more; nil: none does
	err     error
}

type interim struct {
	code   int
	header textproto.MIMEHeader
	size   int
}

// got is for the one that reads the connection. Its error ends the exchange.
func (i *interims) got(code int, header textproto.MIMEHeader) error {
	switch {
	case code == http.StatusSwitchingProtocols: // RFC 9113, section 8.6; a visitor would take it for an end
		return errors.New("101 (Switching Protocols) is none of HTTP/2")
	case code == http.StatusContinue || i.pass == nil:
		return nil
	}
	size := 0
	for name, values := range header {
		for _, v := range values {
			size += len(name) + len(v)
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		return i.err
	}
	if i.size += size; len(i.waiting) == maxInterim || i.size > maxInterimBytes {
		return errors.New("more interim answers than the visitor takes")
	}
	i.waiting = append(i.waiting, interim{code, header, size})
	if i.passing == nil {
		i.passing = make(chan struct{})
		go i.run(i.passing)
	}
	return nil
}

func (i *interims) run(passing chan struct{}) {
	defer close(passing)
	for {
		i.mu.Lock()
		if len(i.waiting) == 0 || i.err != nil {
			i.passing, i.waiting, i.size = nil, nil, 0
			i.mu.Unlock()
			return
		}
		one := i.waiting[0]
		i.waiting = i.waiting[1:]
		i.size -= one.size
		i.mu.Unlock()
		if err := i.pass(one.code, one.header); err != nil {
			i.mu.Lock()
			i.err = err
			i.mu.Unlock()
		}
	}
}

// end waits until all were passed on.
func (i *interims) end() error {
	i.mu.Lock()
	passing := i.passing
	i.mu.Unlock()
	if passing != nil {
		<-passing
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.err
}
