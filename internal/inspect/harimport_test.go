package inspect

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// exportAndImport returns what an export of rec says of it when it is imported.
func exportAndImport(t *testing.T, rec *record) (was, now Request, document string) {
	t.Helper()
	store := new(Store)
	store.add(rec)
	s := listen(t, store)
	var raw json.RawMessage
	call(t, s, "GET", "/api/har", "", &raw)
	checkHAR(t, raw)
	var imported Imported
	if status := call(t, s, "POST", "/api/har", string(raw), &imported); status != 200 || len(imported.IDs) != 1 {
		t.Fatalf("%d %v: %s", status, imported, raw)
	}
	return rec.show(true, 0), store.find(imported.IDs[0]).show(true, 0), string(raw)
}

// What a connection's messages are is the same in what was exported, whatever they look like.
func TestHARMessages(t *testing.T) {
	at := time.Now().Round(time.Microsecond)
	for kind, messages := range map[string][]message{
		"websocket": {
			{fromVisitor: true, kind: "text", data: []byte("ä")}, {kind: "binary", data: []byte("abcd")}, // which is base64, too
			{kind: "binary", data: []byte("\x00\xff")}, {kind: "text", data: []byte("\xff\xfe")}, {kind: "ping", data: []byte("\x80")},
			{kind: "pong"}, {fromVisitor: true, kind: "close", data: []byte("\x03\xe8so long")}, {kind: "close", data: []byte("\x03\xf9\xff")}, {kind: "close"},
		},
		"events": {{kind: "event", data: []byte("id: 1\ndata: first")}, {kind: "event", data: []byte("data")}},
	} {
		rec := newRecord(httptest.NewRequest("GET", "/", nil), at)
		rec.target, rec.status, rec.state, rec.lost = "/", http.StatusSwitchingProtocols, done, 3
		rec.switched = &switched{websocket: true}
		if kind == "events" {
			rec.status, rec.switched, rec.events = http.StatusOK, nil, new(events)
		}
		for i, m := range messages {
			m.at, m.size = at.Add(time.Duration(i)*time.Millisecond), int64(len(m.data))
			rec.messages = append(rec.messages, m)
		}
		was, now, _ := exportAndImport(t, rec)
		text := func(r Request) string {
			s := fmt.Sprintln(r.Kind, r.Summary.Messages, r.MessagesDropped)
			for _, m := range r.Messages {
				s += fmt.Sprintf("%d %s %s %d %q %q %d\n", m.Number, m.From, m.Kind, m.Size, m.Text, m.Base64, m.At.UnixMicro())
			}
			return s
		}
		if was.Kind != kind || text(was) != text(now) {
			t.Errorf("imported\n%s, want\n%s", text(now), text(was))
		}
	}
}

// A body of which only the beginning was kept is not taken for a whole one when it is
// imported, though compressed it had more bytes than were kept, or fewer.
func TestHARCutBody(t *testing.T) {
	for name, one := range map[string]struct {
		coding string
		kept   body
	}{
		"plain":               {"", body{kept: []byte("begin"), size: 10, more: true}},
		"decompressed":        {"identity", body{kept: []byte("begin"), size: 3, more: true}},
		"whole":               {"", body{kept: []byte("whole"), size: 5}},
		"whole, decompressed": {"identity", body{kept: []byte("whole"), size: 25}},
		"none kept":           {"", body{size: 10, more: true}},
	} {
		rec := newRecord(httptest.NewRequest("POST", "/", nil), time.Now())
		rec.target, rec.status, rec.state, rec.asked = "/", 200, done, one.kept
		if one.coding != "" {
			rec.header = []Field{{Name: "Content-Encoding", Value: one.coding}}
		}
		was, now, document := exportAndImport(t, rec)
		if was.Request.Body.Cut != one.kept.more || now.Request.Body.Cut != one.kept.more || now.RequestBytes != one.kept.size {
			t.Errorf("%s: imported as %+v of %d bytes, want %+v: %s", name, now.Request.Body, now.RequestBytes, was.Request.Body, document)
		}
	}
}

// A URL is one in a HAR whatever a visitor sent, and a replay's target is as it was.
func TestHARTarget(t *testing.T) {
	for target, want := range map[string]string{
		"*": "http://a.test", "/a|b[1]?c=ä": "http://a.test/a%7Cb%5B1%5D?c=%C3%A4", "/100%": "http://a.test/100%25", "/%zz%4g%": "http://a.test/%25zz%254g%25",
		"/a%2Fb//c;d=1?e&&f=g+h#i": "http://a.test/a%2Fb//c;d=1?e&&f=g+h%23i",
	} {
		rec := newRecord(httptest.NewRequest("OPTIONS", "/", nil), time.Now())
		rec.target, rec.public, rec.status, rec.state = target, "http://a.test", 200, done
		_, now, document := exportAndImport(t, rec)
		if !strings.Contains(document, `"url":`+quotedJSON(want)) || now.Path != target {
			t.Errorf("%s is exported as %s, and imported as %s", target, document, now.Path)
		}
	}
}

func quotedJSON(s string) string { b, _ := json.Marshal(s); return string(b) }

// A HAR of another's making is taken in where it says enough, and refused with its entry
// where it is none.
func TestHARForeign(t *testing.T) {
	store := new(Store)
	s := listen(t, store)
	entry := func(request, response, more string) string {
		return fmt.Sprintf(`{"log":{"version":"1.2","entries":[{"startedDateTime":"2026-11-23T10:00:00Z","time":3,"timings":{"wait":2},"request":{"method":"GET","url":"http://a.test/x",%s"httpVersion":"h3"},"response":{%s"headers":[]}%s}]}}`, request, response, more)
	}
	for name, c := range map[string]struct {
		document string
		want     string // path, kind, state, status, sizes, cut
	}{
		"WebSocket of a browser":        {entry("", `"status":101,`, `,"_webSocketMessages":[{"type":"send","time":1,"opcode":1,"data":"x"}]`), "/x websocket done 101 0 0 false false"},
		"sizes not known":               {entry(`"bodySize":-1,`, `"status":200,"bodySize":-1,"content":{"text":"hello"},`, ""), "/x http done 200 0 5 false false"},
		"compressed":                    {entry("", `"status":200,"bodySize":3,"content":{"text":"hello"},`, ""), "/x http done 200 0 3 false false"},
		"more on the wire":              {entry("", `"status":200,"bodySize":300,"content":{"text":"hello"},`, ""), "/x http done 200 0 300 false false"},
		"without bodies":                {entry(`"bodySize":9,`, `"status":200,"bodySize":3,"content":{},`, ""), "/x http done 200 9 3 true true"},
		"no answer":                     {entry("", `"status":0,`, ""), "/x http cut 0 0 0 false false"},
		"a target that leads elsewhere": {entry(`"_target":"http://evil.test/",`, "", ""), "400"},
		"a target with a line":          {entry(`"_target":"/\r\nx: y",`, "", ""), "400"},
		"an unknown kind":               {entry("", "", `,"_kind":"tunnel"`), "400"},
		"fewer than no messages":        {entry("", `"status":200,`, `,"_messagesDropped":-9`), "/x http done 200 0 0 false false"},
	} {
		var imported Imported
		got := fmt.Sprint(call(t, s, "POST", "/api/har", c.document, &imported))
		if len(imported.IDs) == 1 {
			r := store.find(imported.IDs[0]).show(true, 0)
			got = fmt.Sprint(r.Path, " ", r.Kind, " ", r.State, " ", r.Status, " ", r.RequestBytes, " ", r.ResponseBytes, " ", r.Request.Body.Cut, " ", r.Response.Body.Cut)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
