package transport

import (
	"crypto/tls"
	"net/http"
	"time"
)

// Stage is a part of a connection's making.
type Stage string

// The stages behind the first connection, in their order. Those of a proxy are left out
// where there is none, and TLS where nothing is at https.
const (
	ProxySecured Stage = "proxy_tls" // the TLS handshake with an https proxy
	Proxied      Stage = "proxy"     // CONNECT was answered
	Secured      Stage = "tls"       // the TLS handshake with the server
	Answered     Stage = "answer"    // the head of the server's answer to [Dialer.Describe] was read
)

// Step is a stage that is over.
type Step struct {
	Stage Stage
	Took  time.Duration
	Err   error // why it failed, as Dial would return it; nil: it did not

	TLS  tls.ConnectionState // of handshakes; zero where one failed
	Head http.Header         // of Answered
}

// trace tells of a stage that began at start.
func (d *Dialer) trace(start time.Time, s Step) {
	if d.Trace != nil {
		s.Took = time.Since(start)
		d.Trace(s)
	}
}
