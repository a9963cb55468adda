package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/edge"
)

// TLS says how a server ends TLS itself. Then plain HTTP redirects to it, see
// [edge.Secure].
type TLS struct {
	// Listen is the address of HTTPS, and of HTTP/3. Default ":443".
	Listen string
	// GetCertificate is crypto/tls's. Needed.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ClientCAs are the authorities whose certificates let an origin attach itself by
	// PTTH: one may serve what its DNS names name. Nil: there are none.
	ClientCAs *x509.CertPool
	// Challenges answers a CA's HTTP-01 on the plain listener and leaves the rest to
	// next. Nil: there are none.
	Challenges func(next http.Handler) http.Handler
	// Run looks after the certificates until ctx ends, with all that the server has
	// under way; its error ends the server. Nil: nobody has to.
	Run func(ctx context.Context) error
	// AllowPlain are the names that are served without TLS, too; "*" is all.
	AllowPlain []string
	// HSTS is how long browsers are to come by HTTPS only. 0: nothing is said.
	HSTS time.Duration
	// NoHTTP3 leaves HTTP/3 out.
	NoHTTP3 bool
}

// listen opens the listeners: the plain one, and with TLS those of HTTPS and HTTP/3
// on one port. If it fails none is open.
func (s *Server) listen(limits edge.Limits) (err error) {
	defer func() {
		if err != nil {
			s.closeListeners()
			if errors.Is(err, os.ErrPermission) {
				err = fmt.Errorf("%w: ports below 1024 are for root and for who has CAP_NET_BIND_SERVICE", err)
			}
			err = fmt.Errorf("server: %w", err)
		}
	}()
	door := edge.Door{Limits: limits, Proxies: s.c.Trusted, Log: s.log}
	plain, err := net.Listen("tcp", s.c.Listen)
	if err != nil {
		return err
	}
	s.listener = door.Listener(s.gate.Listener(plain))
	_, s.port, _ = net.SplitHostPort(plain.Addr().String())
	if s.c.TLS == nil {
		return nil
	}
	return s.listenTLS(door)
}

// anyPort is how often one that is free for TCP is looked at for UDP, too.
const anyPort = 20

func (s *Server) listenTLS(door edge.Door) error {
	setDefault(&s.c.TLS.Listen, ":443")
	if s.c.TLS.GetCertificate == nil {
		return errors.New("Config.TLS.GetCertificate is needed")
	}
	s.sni = &edge.TLS{Registry: s.c.Registry, Domain: s.c.Domain, Park: s.c.Park, Gate: s.gate, Log: s.log}
	door.GetCertificate, door.Route = s.c.TLS.GetCertificate, s.sni.Route
	door.ClientCAs, door.AsksClient = s.c.TLS.ClientCAs, func(name string) bool {
		return strings.EqualFold(name, s.c.Domain) || strings.EqualFold(name, s.publicHost())
	}
	_, wanted, _ := net.SplitHostPort(s.c.TLS.Listen)
	for tries := 1; ; tries++ {
		secure, err := net.Listen("tcp", s.c.TLS.Listen)
		if err != nil {
			return err
		}
		s.tls = door.Listener(s.gate.Listener(secure))
		_, s.port, _ = net.SplitHostPort(secure.Addr().String())
		if s.c.TLS.NoHTTP3 {
			return nil
		}
		at := secure.Addr().(*net.TCPAddr)
		s.quic, err = net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Port: at.Port, Zone: at.Zone})
		switch {
		case err == nil:
			return nil
		case wanted != "0" || tries == anyPort:
			s.quic = nil
			return fmt.Errorf("HTTP/3 (--no-http3 leaves it out): %w", err)
		}
		s.tls.Close()
	}
}

func (s *Server) closeListeners() {
	if s.listener != nil {
		s.listener.Close()
	}
	if s.tls != nil {
		s.tls.Close()
	}
	if s.quic != nil {
		s.quic.Close()
	}
}

// secure is what the edge has to know of TLS.
func (s *Server) secure() *edge.Secure {
	t := s.c.TLS
	if t == nil {
		return nil
	}
	port := s.port
	if p := s.c.PublicURL; p != nil && p.Scheme == "https" {
		port = p.Port()
	}
	return &edge.Secure{Port: port, Challenges: t.Challenges, AllowPlain: t.AllowPlain, HSTS: t.HSTS, HTTP3: s.quic != nil}
}

// TLSAddr is the address of HTTPS, or nil.
func (s *Server) TLSAddr() net.Addr {
	if s.tls == nil {
		return nil
	}
	return s.tls.Addr()
}

// serve serves all listeners until one fails or they are shut down.
func (s *Server) serve() chan error {
	served := make(chan error, 4) // with lookAfter's; nobody may be left to take them
	s.log.Info("listening", "addr", s.Addr().String(), "domain", s.c.Domain, "url", s.publicURL(s.c.Domain), "memory-limit", s.c.Memory.String())
	go func() { served <- s.http.Serve(s.listener) }()
	if s.tls != nil {
		s.log.Info("listening for HTTPS", "addr", s.TLSAddr().String(), "http3", s.http3 != nil)
		go func() { served <- s.http.Serve(s.tls) }()
	}
	if s.http3 != nil {
		go func() { served <- s.http3.Serve() }()
	}
	return served
}

// lookAfter runs Config.TLS.Run.
func (s *Server) lookAfter(ctx context.Context, failed chan<- error) {
	if s.c.TLS == nil || s.c.TLS.Run == nil {
		return
	}
	if err := s.c.TLS.Run(ctx); err != nil && ctx.Err() == nil {
		failed <- err
	}
}

// shutdown lets what is under way finish until ctx ends. Then it is cut off.
func (s *Server) shutdown(ctx context.Context) error {
	var quic error
	var both sync.WaitGroup
	if s.http3 != nil {
		both.Go(func() { quic = s.http3.Shutdown(ctx) })
	}
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	both.Wait()
	return errors.Join(err, quic)
}

// closeServers is the end where a listener failed.
func (s *Server) closeServers() {
	s.http.Close()
	if s.http3 != nil {
		s.http3.Close()
	}
}

// scheme is that of the public URLs, and the port that belongs to it.
func (s *Server) scheme() (scheme, port, standard string) {
	scheme, port, standard = "http", s.port, "80"
	if s.c.TLS != nil {
		scheme = "https"
	}
	if p := s.c.PublicURL; p != nil {
		scheme, port = p.Scheme, p.Port()
	}
	if scheme == "https" {
		standard = "443"
	}
	return scheme, port, standard
}
