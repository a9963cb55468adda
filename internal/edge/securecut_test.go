package edge_test

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
)

// R1 over TLS: an answer that was cut off does not look complete, whatever frames
// it; one that ends does.
func TestCutOverTLS(t *testing.T) {
	h := secure(t, server.Config{})
	read := make(chan struct{}) // by the visitor
	for name, cut := range map[string]bool{"whole": false, "cut": true} {
		publish(t, h.plain, name, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "hello")
			http.NewResponseController(w).Flush()
			if <-read; cut {
				panic(http.ErrAbortHandler)
			}
		}))
		check := func(t *testing.T, r io.Reader) {
			t.Helper()
			if _, err := io.ReadFull(r, make([]byte, len("hello"))); err != nil {
				t.Fatal(err)
			}
			read <- struct{}{}
			b, err := io.ReadAll(r)
			if cut != (err != nil) || errTimeout(err) != nil || len(b) > 0 {
				t.Errorf("it ends with %q, %v", b, err)
			}
		}
		t.Run(name+" 1.0", func(t *testing.T) { // whose answer ends with the connection
			c := h.dial(t, name+".example.com", "http/1.1")
			fmt.Fprintf(c, "GET / HTTP/1.0\r\nHost: %s.example.com\r\n\r\n", name)
			r := bufio.NewReader(c)
			res, err := http.ReadResponse(r, nil)
			if err != nil || res.ContentLength >= 0 {
				t.Fatal(res, err)
			}
			check(t, res.Body)
		})
		for _, proto := range protocols() {
			t.Run(name+" "+proto, func(t *testing.T) {
				res, err := h.client(t, proto, "").Get("https://" + name + ".example.com:" + h.port)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				check(t, res.Body)
			})
		}
	}
}

// R2 and R17 over TLS: a connection that was upgraded has ended where close_notify says
// so; without it the app, too, reads an error, as after the end of the visitor's process.
func TestUpgradeCutOverTLS(t *testing.T) {
	h := secure(t, server.Config{})
	ended := make(chan error, 1)
	publish(t, h.plain, "demo", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			ended <- err
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
		_, err = io.Copy(io.Discard, brw)
		ended <- err
	}))
	publish(t, h.plain, "first", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			ended <- err
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
		conn.(interface{ CloseWrite() error }).CloseWrite()
		_, err = io.Copy(io.Discard, brw)
		ended <- err
	}))
	// Who is done after the app is need not say so.
	c := h.dial(t, "first.example.com", "http/1.1")
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: first.example.com\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
	if all, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 101") {
		t.Fatalf("%q, %v", all, err)
	}
	c.NetConn().Close()
	if err := <-ended; err != nil {
		t.Errorf("after its own end the app reads %v", err)
	}
	for name, cut := range map[string]bool{"ended": false, "cut": true} {
		c := h.dial(t, "demo.example.com", "http/1.1")
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: demo.example.com\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
		if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(res, err)
		}
		io.WriteString(c, "some")
		if cut {
			c.NetConn().Close()
		} else {
			c.Close()
		}
		if err := <-ended; cut != (err != nil) {
			t.Errorf("%s: the app reads %v", name, err)
		}
	}
}

// The Gate knows of connections from their first byte on, in whatever protocol they
// are: where memory is full those amid a handshake end, at the brim answers are cut.
func TestShedTLS(t *testing.T) {
	var d dial
	var l logs
	c := server.Config{Memory: d.memory(), IdleTimeout: time.Minute, HeaderTimeout: time.Minute, Log: l.at(slog.LevelInfo)}
	h := secure(t, c)
	publish(t, h.plain, "demo", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "well")
		http.NewResponseController(w).Flush()
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
		}
	}))
	handshake := visit(t, h.tls)
	handshake.Write([]byte{22, 3, 1})
	hanging := make(map[string]*http.Response)
	for _, proto := range protocols() {
		res, err := h.client(t, proto, "").Get("https://demo.example.com:" + h.port + "/hang")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.ReadFull(res.Body, make([]byte, len("well"))); err != nil {
			t.Fatal(err)
		}
		hanging[proto] = res
	}
	d.percent.Store(65)
	for _, proto := range protocols() {
		client := h.client(t, proto, "")
		poll.Until(t, "503", func() bool {
			return fetch(t, client, request(t, "GET", "https://demo.example.com:"+h.port+"/", nil)).StatusCode == 503
		})
	}
	d.percent.Store(75)
	if err := handshake.ends(); err != nil && !isReset(err) {
		t.Error(err)
	}
	d.percent.Store(85)
	for proto, res := range hanging {
		if b, err := io.ReadAll(res.Body); err == nil || errTimeout(err) != nil {
			t.Errorf("HTTP/%s: got %q, %v", proto, b, err)
		}
	}
}

// S24: whoever floods with KeyUpdate is disconnected (RFC 8446, section 4.6.3).
func TestKeyUpdates(t *testing.T) {
	h := secure(t, server.Config{})
	var keys keyLog
	tcp, err := net.Dial("tcp", h.tls)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	config := h.greeting("example.com", "http/1.1")
	config.KeyLogWriter = &keys
	c := tls.Client(tcp, config)
	tcp.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: example.com\r\n\r\n")
	if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	if s := c.ConnectionState(); s.Version != tls.VersionTLS13 || s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("%s with %s, which the test does not speak", tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite))
	}
	updates := &updater{secret: keys.secret(t, "CLIENT_TRAFFIC_SECRET_0"), sequence: 1}
	sent := 0
	for ; sent < 100_000; sent++ {
		if _, err = tcp.Write(updates.next(t)); err != nil {
			break
		}
	}
	if err == nil {
		_, err = io.Copy(io.Discard, tcp)
	}
	if errTimeout(err) != nil || sent == 100_000 {
		t.Errorf("%d of them, and it is still open: %v", sent, err)
	}
}

// keyLog is what crypto/tls says to a KeyLogWriter.
type keyLog struct{ strings.Builder }

func (k *keyLog) secret(t *testing.T, label string) []byte {
	t.Helper()
	for line := range strings.Lines(k.String()) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == label {
			b, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	t.Fatal(errors.New("no " + label))
	return nil
}

// updater makes records of KeyUpdate, each with the keys that the one before asked
// for (RFC 8446, sections 5.2 and 7.2).
type updater struct {
	secret   []byte
	sequence uint64 // of records with these keys
}

func (u *updater) next(t *testing.T) []byte {
	t.Helper()
	block, err := aes.NewCipher(u.expand(t, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := u.expand(t, "iv", 12)
	for i := range 8 {
		nonce[11-i] ^= byte(u.sequence >> (8 * i))
	}
	plain := []byte{24, 0, 0, 1, 0, 22} // key_update, 1 byte, not requested; a handshake message
	head := []byte{23, 3, 3, 0, byte(len(plain) + seal.Overhead())}
	u.secret, u.sequence = u.expand(t, "traffic upd", 32), 0
	return seal.Seal(head, nonce, plain, head)
}

func (u *updater) expand(t *testing.T, label string, length int) []byte {
	t.Helper()
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = append(append(info, byte(len("tls13 "+label))), "tls13 "+label...)
	b, err := hkdf.Expand(sha256.New, u.secret, string(append(info, 0)), length)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
