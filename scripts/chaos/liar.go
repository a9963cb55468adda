package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
)

// lie puts what does the planted wrong between the visitors and the server. It is for the test of the trial
// itself.
func (l *lab) lie() (err error) {
	switch l.plant {
	case "end":
		l.doors.port, err = l.cutter(l.doors.port)
	default:
		l.doors.plain, err = l.liar(l.doors.plain)
	}
	return err
}

// cutter is a relay of connections that ends every third one in order, amid the answer.
func (l *lab) cutter(addr string) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	l.stops = append(l.stops, func() { listener.Close() })
	var n atomic.Int64
	l.serving.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			l.serving.Go(func() {
				defer c.Close()
				d, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				defer d.Close()
				go func() {
					_, _ = io.Copy(d, c)
					_ = d.(*net.TCPConn).CloseWrite()
				}()
				if n.Add(1)%3 == 0 {
					_, _ = io.CopyN(c, d, 50)
				} else {
					_, _ = io.Copy(c, d)
				}
			})
		}
	})
	return listener.Addr().String(), nil
}

// liar is a proxy to public that does its wrong with every tenth request over HTTP/1.
func (l *lab) liar(public string) (string, error) {
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: public})
		r.Out.Host = r.In.Host
	}}
	var n atomic.Int64
	turn := func() bool { return n.Add(1)%10 == 0 }
	var handler http.Handler = proxy
	switch l.plant {
	case "truncate":
		proxy.ModifyResponse = func(res *http.Response) error {
			if res.StatusCode == http.StatusOK && res.ContentLength > 1000 && turn() {
				half := res.ContentLength / 2
				res.Body = struct {
					io.Reader
					io.Closer
				}{io.LimitReader(res.Body, half), res.Body}
				res.ContentLength = half
				res.Header.Set("Content-Length", fmt.Sprint(half))
			}
			return nil
		}
	case "duplicate":
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && r.ContentLength >= 0 && r.ContentLength < 30_000 && turn() {
				body, _ := io.ReadAll(r.Body)
				again, err := http.NewRequest(r.Method, "http://"+public+r.URL.RequestURI(), bytes.NewReader(body))
				if err == nil {
					again.Host, again.Header = r.Host, r.Header.Clone()
					if res, err := http.DefaultTransport.RoundTrip(again); err == nil {
						res.Body.Close()
					}
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
			}
			proxy.ServeHTTP(w, r)
		})
	case "mix":
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/length") && turn() {
				r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "id=", "id=9", 1)
			}
			proxy.ServeHTTP(w, r)
		})
	default:
		return "", fmt.Errorf("unknown --plant %q", l.plant)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: handler, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	proxy.Transport = &http.Transport{DisableCompression: true}
	l.serving.Go(func() { _ = server.Serve(listener) }) // until it is closed
	l.stops = append(l.stops, func() { server.Close() })
	return listener.Addr().String(), nil
}
