package transport

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/revtun/tunnel/pkg/protocol"
)

// kept is a scripted connection that keeps what is written.
type kept struct {
	scripted
	out bytes.Buffer
}

func (k *kept) Write(p []byte) (int, error) { return k.out.Write(p) }

// FuzzAccept lets anything ask for the upgrade: what is upgraded asked for it by
// RFC 9110, section 7.8, or RFC 6455, section 4.2.1, and the bytes behind its head
// are the new protocol's, all of them; to all else nothing is written but a refusal.
func FuzzAccept(f *testing.F) {
	for _, head := range []string{
		rawHead, webSocketHead, rawHead + "\nContent-Length: 0", rawHead + "\nContent-Length: 5", rawHead + "\nOrigin: null",
		rawHead + "\nTransfer-Encoding: chunked", webSocketHead + "\nSec-WebSocket-Extensions: permessage-deflate", rawHead + ", websocket",
		strings.Replace(rawHead, "1.1", "1.0", 1), strings.Replace(rawHead, "GET", "POST", 1), strings.Replace(webSocketHead, "13", "8", 1),
		strings.Replace(webSocketHead, "tunnel.v1", "chat, tunnel.v1", 1), "GET / HTTP/1.1\nConnection: a,\tuPGRADE\nUpgrade: h2c\nUpgrade: TUNNEL.V1",
	} {
		f.Add([]byte(strings.ReplaceAll(head, "\n", "\r\n") + "\r\nHost: x\r\n\r\nbytes"))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		conn := &kept{scripted: scripted{in: bytes.NewReader(in)}}
		r := bufio.NewReaderSize(conn, max(len(in), 16))
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		behind, _ := r.Peek(r.Buffered())
		behind = bytes.Clone(behind)
		w := httptest.NewRecorder()
		got, kind, err := Accept(hijacked{w, conn, r}, req)
		if err != nil {
			checkNotAccepted(t, w, conn, err)
			if asksForRaw(req) {
				t.Errorf("%q was refused: %v", in, err)
			}
			return
		}
		defer got.Close()
		answer, err := http.ReadResponse(bufio.NewReader(&conn.out), req)
		if err != nil || answer.StatusCode != http.StatusSwitchingProtocols || w.Body.Len() > 0 {
			t.Fatalf("%q was accepted with %+v, %v", in, answer, err)
		}
		switch {
		case kind == Raw && asksForRaw(req):
			if rest, err := io.ReadAll(got); err != nil || !bytes.Equal(rest, behind) || !hasToken(answer.Header, "Upgrade", protocol.Upgrade) {
				t.Errorf("%q, %v came behind the head of %q, answered with %v", rest, err, in, answer.Header)
			}
		case kind == WebSocket && asksForWebSocket(req):
			if answer.Header.Get("Sec-Websocket-Accept") != acceptKey(strings.TrimSpace(req.Header.Get("Sec-Websocket-Key"))) ||
				!strings.EqualFold(answer.Header.Get("Sec-Websocket-Protocol"), protocol.Upgrade) || // as it was asked for
				answer.Header["Sec-Websocket-Extensions"] != nil {
				t.Errorf("%q was answered with %v", in, answer.Header)
			}
		default:
			t.Errorf("%q was taken for %s", in, kind)
		}
	})
}

// hijacked gives conn away, with what r has read ahead.
type hijacked struct {
	*httptest.ResponseRecorder
	conn *kept
	r    *bufio.Reader
}

func (h hijacked) Hijack() (c net.Conn, rw *bufio.ReadWriter, err error) {
	return h.conn, bufio.NewReadWriter(h.r, bufio.NewWriter(h.conn)), nil
}

func checkNotAccepted(t *testing.T, w *httptest.ResponseRecorder, conn *kept, err error) {
	t.Helper()
	var e *protocol.Error
	if !errors.As(err, &e) || conn.out.Len() > 0 {
		t.Fatalf("%v, and %q was written", err, conn.out.String())
	}
	Refuse(w, e)
	checkRefusal(t, w.Result(), e.Code)
}

// listed are the members of a list-based field, in lower case.
func listed(h http.Header, name string) (all []string) {
	for one := range strings.SplitSeq(strings.ToLower(strings.Join(h[name], ",")), ",") {
		all = append(all, strings.Trim(one, " \t"))
	}
	return all
}

func asksForUpgrade(r *http.Request) bool {
	return r.Method == "GET" && r.ProtoAtLeast(1, 1) && r.ProtoMajor == 1 && r.ContentLength == 0 && len(r.TransferEncoding) == 0 &&
		r.Header["Origin"] == nil && slices.Contains(listed(r.Header, "Connection"), "upgrade")
}

func asksForRaw(r *http.Request) bool {
	return asksForUpgrade(r) && slices.Contains(listed(r.Header, "Upgrade"), "tunnel.v1")
}

func asksForWebSocket(r *http.Request) bool {
	return asksForUpgrade(r) && slices.Contains(listed(r.Header, "Upgrade"), "websocket") && r.Header.Get("Sec-Websocket-Version") == "13" &&
		len(r.Header["Sec-Websocket-Key"]) == 1 && slices.Contains(listed(r.Header, "Sec-Websocket-Protocol"), "tunnel.v1")
}
