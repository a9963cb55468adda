package server

import (
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// R35: nothing is decided by the wall clock. A time.Time that comes of time.Now
// has the monotonic clock with it, and is compared by that, as timers and
// deadlines are; a clock that is set moves only what drops it, or comes from
// elsewhere. Those places are these; each is harmless, as said.
func TestWallClock(t *testing.T) {
	harmless := map[string]string{
		"internal/edge/errors.go: time.Unix":                  "a deadline that has passed",
		"internal/proxy/source.go: time.Unix":                 "a deadline that has passed",
		"internal/proxy/serve.go: time.Unix":                  "a deadline that has passed",
		"pkg/tunnel/session.go: time.Unix":                    "a deadline that has passed",
		"internal/upstream/lineconn.go: time.Unix":            "a deadline that has passed",
		"pkg/tunnel/attached.go: time.Unix":                   "a deadline that has passed",
		"cmd/tunnel-client/words.go: d.Round":                 "a duration",
		"internal/inspect/view.go: d.Round":                   "a duration",
		"internal/doctor/session.go: s.Took.Round":            "a duration",
		"internal/doctor/session.go: trip.Round":              "a duration",
		"internal/doctor/path.go: time.Since(told).Round":     "the clock is what is looked at: another server's time against ours",
		"internal/doctor/path.go: http.ParseTime":             "the same",
		"internal/doctor/path.go: t.UTC":                      "shown",
		"internal/doctor/signer.go: leaf.NotAfter.UTC":        "shown",
		"internal/inspect/har.go: at.UnixMicro":               "when a message passed, as HAR has it",
		"internal/inspect/harimport.go: time.UnixMicro":       "the same",
		"internal/inspect/harimport.go: math.Round":           "a number",
		"cmd/tunnel-client/requests.go: r.Started.Local":      "shown",
		"cmd/tunnel-client/requests.go: m.At.Local":           "shown",
		"pkg/tunnel/reconnect.go: now().Round":                "to notice a sleep: the server is asked for a sign of life, see TestSleep and TestClockSet",
		"internal/files/files.go: h.now().UTC":                "in a line of the page",
		"internal/files/list.go: info.ModTime":                "shown",
		"internal/files/list.go: info.ModTime().UTC":          "shown",
		"internal/files/send.go: info.ModTime":                "a file of the future, or of just now, has no ETag: one that a clock makes so is sent again",
		"internal/files/send.go: info.ModTime().UnixNano":     "in an ETag: another clock makes another one",
		"internal/files/send.go: changed.UnixNano":            "the same",
		"internal/files/send.go: w.before.ModTime":            "a file's own, compared with itself",
		"internal/files/send.go: after.ModTime":               "the same",
		"internal/files/change_linux.go: time.Unix":           "a file's own",
		"internal/files/change_linux.go: s.Ctim.Unix":         "the same",
		"internal/files/change_darwin.go: time.Unix":          "the same",
		"internal/files/change_darwin.go: s.Ctimespec.Unix":   "the same",
		"cmd/tunnel-client/state.go: info.ModTime":            "for comfort, see TestStateClockSet",
		"internal/certs/files.go: c.ModTime":                  "another time than before is another file, whichever is later",
		"internal/certs/files.go: k.ModTime":                  "the same",
		"internal/certs/order.go: f.next.UTC":                 "in a message",
		"internal/certs/order.go: next.UTC":                   "in a line of the log",
		"internal/certs/selfanswer.go: m.Truncate":            "a DNS message",
		"cmd/tunnel-client/tokencommand.go: time.Now().Round": "how old a token is that is shown again: also a sleep counts, and a clock that is set has a new one asked for",
		"internal/pace/memory.go: time.Now().UnixNano":        "how old a reading is: a step makes one too many or too few",

		// How long something is shared.
		"pkg/protocol/sharelink.go: time.Unix":                      "until when a share link is good, which two machines have to agree on: another clock makes its time another",
		"pkg/protocol/sharelink.go: expires.Unix":                   "the same",
		"pkg/tunnel/share.go: l.ends.Round":                         "what is left of a time to live at a reconnect: the other clock stops in a sleep, and the earlier end counts",
		"pkg/tunnel/share.go: time.Now().Round":                     "the same",
		"cmd/tunnel-client/output.go: c.shared.ends.UTC":            "shown",
		"cmd/tunnel-client/output.go: c.shared.ends.UTC().Truncate": "shown",
	}
	found := usesOfWallClock(t)
	for use := range found {
		if harmless[use] == "" {
			t.Errorf("%s: what happens when the clock is set?", use)
		}
	}
	for use := range harmless {
		if !found[use] {
			t.Errorf("%s is not there any more", use)
		}
	}
}

// usesOfWallClock are the places in our code where the monotonic clock is dropped, or a
// time comes from elsewhere: FILE: EXPRESSION.
func usesOfWallClock(t *testing.T) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	root := os.DirFS("../..")
	for _, dir := range []string{"cmd", "internal", "pkg"} {
		err := fs.WalkDir(root, dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "internal/rig/") {
				return err
			}
			src, err := fs.ReadFile(root, path)
			if err != nil {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, src, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if use := useOfWallClock(n); use != "" {
					found[path+": "+use] = true
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// useOfWallClock is n's text where it is such a place, or "".
func useOfWallClock(n ast.Node) string {
	sel, ok := n.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	var of strings.Builder
	printer.Fprint(&of, token.NewFileSet(), sel.X)
	switch sel.Sel.Name {
	case "Round", "Truncate", "UTC", "Local", "Unix", "UnixNano", "UnixMilli", "UnixMicro", "AddDate", "ModTime",
		"UnixDate", "ParseInLocation", "ParseTime":
	case "Parse", "Date":
		if of.String() != "time" {
			return "" // another package's
		}
	default:
		return ""
	}
	return of.String() + "." + sel.Sel.Name
}
