package edge

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits bound what a visitor's connection may hold before its request is read.
type Limits struct {
	HeaderTimeout time.Duration // to send a header section; 0: none
	IdleTimeout   time.Duration // between two requests; 0: none
}

// Server returns an http.Server for h with HTTP/1 and HTTP/2 with prior
// knowledge (RFC 9113, section 3.3).
func (h *HTTP) Server(l Limits) *http.Server {
	s := &http.Server{
		Handler:           http.HandlerFunc(h.serveClear),
		ReadHeaderTimeout: l.HeaderTimeout,
		IdleTimeout:       l.IdleTimeout,
		// The local app answers OPTIONS * itself.
		DisableGeneralOptionsHandler: true,
		ConnContext:                  withConn,
		ErrorLog:                     log.New(errorLog{h.log()}, "", 0),
		Protocols:                    new(http.Protocols),
	}
	if h.MaxHeader > 0 {
		// Well above our own limits, so that it is us who answer.
		s.MaxHeaderBytes = 2*h.MaxHeader + 2*h.MaxURI
	}
	if h.Gate != nil {
		s.ConnState = h.Gate.Follow
	}
	// A frame is kept until it is complete. Without this, 1 MiB of each connection may be.
	s.HTTP2 = &http.HTTP2Config{MaxReadFrameSize: 64 << 10}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// errorLog takes what net/http has to say. Most of it is what visitors did
// wrong; the rest is for who runs the server.
type errorLog struct{ log *slog.Logger }

func (l errorLog) Write(line []byte) (int, error) {
	level := slog.LevelDebug
	for _, serious := range []string{"http: panic ", "http2: panic ", "http: Accept error"} {
		if bytes.HasPrefix(line, []byte(serious)) {
			level = slog.LevelError
		}
	}
	l.log.Log(context.Background(), level, string(bytes.TrimSpace(line)))
	return len(line), nil
}

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

type lingerer interface{ SetLinger(seconds int) error }

// lingerOf returns the connection of an HTTP/1 request, on which an abort can be
// told from an end, or nil.
func lingerOf(r *http.Request) lingerer {
	if r.ProtoMajor != 1 {
		return nil
	}
	l, _ := r.Context().Value(connKey{}).(lingerer)
	return l
}
