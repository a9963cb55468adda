package rig

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
)

func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// rawApp is an app without HTTP, and without TLS where config is nil.
func rawApp(t *testing.T, config *tls.Config) (addr string, ran func() map[string]*Ran) {
	t.Helper()
	journal, ran := MemoryJournal()
	l := listenTCP(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- (&App{Journal: journal}).RunRaw(ctx, l, config) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), ran
}

func TestRawIsFull(t *testing.T) {
	c, err := MakeCertificate(t.TempDir(), "app", "app.localhost")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, secure := range map[string]bool{"tcp": false, "tls": true} {
		var config *tls.Config
		v := &Visitor{Host: "app.localhost", Limit: Patience}
		if secure {
			config, v.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}, c.Visitors()
		}
		addr, ran := rawApp(t, config)
		v.Addr = addr
		all := []Result{v.Do(t.Context(), Ask{ID: "none", Kind: Raw}), v.Do(t.Context(), Ask{ID: "some", Kind: Raw, Size: 3 << 20, Pieces: 5})}
		if wrong := Reconcile(all, ran()); len(wrong) > 0 || all[0].Verdict != Full || all[1].Verdict != Full {
			t.Errorf("%s: %s; %s", name, &all[0], &all[1])
		}
		if o := v.Do(t.Context(), Ask{ID: "cut", Kind: Raw, Size: 3 << 20, Abort: 2 << 20}); o.Verdict != Failed {
			t.Errorf("%s, the app breaks off: %s", name, &o)
		}
	}
}

// A connection that ends in order before all has come is convicted, at either end.
func TestRawShortIsConvicted(t *testing.T) {
	addr, ran := rawApp(t, nil)
	for name, way := range map[string]func(visitor, app *net.TCPConn){
		"short answer": func(visitor, app *net.TCPConn) {
			io.Copy(app, visitor)
			app.CloseWrite()
			io.CopyN(visitor, app, 200_000)
		},
		"no answer": func(visitor, app *net.TCPConn) {
			io.Copy(io.Discard, visitor)
		},
		"short upload": func(visitor, app *net.TCPConn) {
			io.CopyN(app, visitor, 200_000)
			app.CloseWrite()
			io.Copy(io.Discard, app)
			visitor.SetLinger(0) // that is seen, and the app was deceived
		},
	} {
		l := listenTCP(t)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			d, err := net.Dial("tcp", addr)
			if err != nil {
				return
			}
			defer d.Close()
			way(c.(*net.TCPConn), d.(*net.TCPConn))
		}()
		v := &Visitor{Addr: l.Addr().String(), Limit: Patience}
		all := []Result{v.Do(t.Context(), Ask{ID: "id-" + strings.ReplaceAll(name, " ", "-"), Kind: Raw, Size: 300_000})}
		if Reconcile(all, ran()); all[0].Verdict != Truncated {
			t.Errorf("%s: %s", name, &all[0])
		}
	}
}

// echoApp answers datagrams with what change makes of them.
func echoApp(t *testing.T, change func(string) []string) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, one := range change(string(buf[:n])) {
				conn.WriteTo([]byte(one), from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-ended })
	return conn.LocalAddr().String()
}

func TestDatagrams(t *testing.T) {
	for name, test := range map[string]struct {
		change func(string) []string
		want   Verdict
	}{
		"echo":      {func(s string) []string { return []string{s} }, Full},
		"changed":   {func(s string) []string { return []string{s[:len(s)-1] + "!"} }, Truncated},
		"short":     {func(s string) []string { return []string{s[:len(s)-1]} }, Truncated},
		"twice":     {func(s string) []string { return []string{s, s} }, Duplicated},
		"another's": {func(s string) []string { return []string{strings.Replace(s, "id", "xy", 1)} }, CrossTalk},
	} {
		for _, fresh := range []bool{false, true} {
			v := &Visitor{Addr: echoApp(t, test.change), Fresh: fresh, Limit: Patience}
			t.Cleanup(v.Close)
			if o := v.Do(t.Context(), Ask{ID: "id-1", Kind: Datagrams, Size: 100, Pieces: 3}); o.Verdict != test.want {
				t.Errorf("%s: %s", name, &o)
			}
		}
	}
}

// What is lost is sent again; where nothing comes for long, that is an error.
func TestPackets(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- (&App{}).Echo(ctx, conn) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	p, err := NewPackets(conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	v := &Visitor{Addr: p.Addr(), Limit: Patience}
	defer v.Close()
	p.Lose(0.3)
	if o := v.Do(t.Context(), Ask{ID: "lossy", Kind: Datagrams, Size: 1000, Pieces: 4}); o.Verdict != Full {
		t.Errorf("%s", &o)
	}
	for _, d := range []Direction{There, Back} {
		p.Lose(0)
		p.Silence(d, true)
		short, stop := context.WithTimeout(t.Context(), 3*echoTry)
		if o := v.Do(short, Ask{ID: "silent", Kind: Datagrams}); o.Verdict != Failed || o.Got > 0 {
			t.Errorf("%s", &o)
		}
		stop()
		p.Silence(d, false)
		if o := v.Do(t.Context(), Ask{ID: "again", Kind: Datagrams}); o.Verdict != Full {
			t.Errorf("%s", &o)
		}
	}
}
