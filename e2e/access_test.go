//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestPageAccess: axe-core finds nothing wrong with the inspector's page, in what it shows of
// each kind of request, wide and narrow, in light and dark.
func TestPageAccess(t *testing.T) {
	project := installProject(t, "axe")
	axe, err := os.ReadFile(filepath.Join(project.dir, "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	p := openPage(t)
	for _, width := range []int64{1300, 360} {
		p.run(t, chromedp.EmulateViewport(width, 800), chromedp.Navigate(p.inspector.url))
		p.run(t, chromedp.Evaluate[chromedp.Void](string(axe)+"; true"))
		for _, view := range pageViews {
			p.run(t, chromedp.Evaluate[chromedp.Void]("{"+view.do+"}"))
			p.await(t, view.until)
			// The narrow page has the same controls and colours, and the dark one the same controls.
			if width == 1300 || view.narrow {
				p.check(t, fmt.Sprintf("%s, %d wide, light", view.name, width), "light", "")
			}
			if width == 1300 {
				p.check(t, view.name+", dark", "dark", `runOnly: ["color-contrast"],`)
			}
			p.await(t, `document.documentElement.scrollWidth <= innerWidth`)
			// A status that is cut short would read as one that has not come.
			p.await(t, `[...document.querySelectorAll(".row > :nth-child(3)")].every((e) => e.scrollWidth <= e.clientWidth)`)
		}
	}
}

// TestPageKeyboard: all of the page is reached without a pointer, in the order in which it
// is seen, and the focus is not lost where what has it is drawn anew.
func TestPageKeyboard(t *testing.T) {
	p := openPage(t)
	p.run(t, chromedp.EmulateViewport(1300, 800))
	for _, want := range []string{"method", "path", "status", "text", "pause", "clear", "export", "import", "help", "list"} {
		p.press(t, kb.Tab)
		p.focused(t, want)
	}
	p.press(t, kb.ArrowDown+kb.End+kb.ArrowUp)
	p.await(t, has("[aria-selected=true]", "/json"))
	p.await(t, `document.querySelector("#list").getAttribute("aria-activedescendant") === "r2"`)
	p.press(t, kb.Enter)
	p.focused(t, "detail")
	for _, want := range []string{"do-replay", "do-edit", "do-copy", "do-secrets"} {
		p.press(t, kb.Tab)
		p.focused(t, want)
	}
	p.press(t, " ")
	p.await(t, `document.querySelector("#do-secrets").ariaPressed === "true"`)
	p.focused(t, "do-secrets")
	p.press(t, "e")
	p.await(t, `document.activeElement.name === "body"`)
	p.press(t, "x")
	p.press(t, kb.Tab)
	p.focused(t, "send")
	p.press(t, kb.Enter)
	p.await(t, `document.querySelector(".compared mark")`)
	p.focused(t, "detail") // the button is gone
	p.press(t, kb.Tab)
	p.focused(t, "do-replay")
	p.press(t, kb.Enter)
	p.await(t, `document.querySelectorAll(".row").length === 11`)
	p.await(t, has("#detail", "Replay 11"))
	p.focused(t, "do-replay")
	p.press(t, "?")
	p.await(t, `document.querySelector("#keys").open`)
	p.press(t, kb.Escape)
	p.focused(t, "do-replay")
	p.press(t, kb.Escape)
	p.focused(t, "list")
}

// press presses keys.
func (p inspectorPage) press(t *testing.T, keys string) {
	t.Helper()
	p.run(t, chromedp.KeyEvent(keys))
}

// focused waits until an element has the focus.
func (p inspectorPage) focused(t *testing.T, id string) {
	t.Helper()
	p.await(t, fmt.Sprintf(`document.activeElement.id === "%s"`, id))
}

// pageViews are what the page shows, one after the other.
var pageViews = []struct {
	name, do, until string
	narrow          bool // looks otherwise where that is the page
}{
	{"list", "", `document.querySelectorAll(".row").length >= 9`, true},
	{"JSON", choose(2), has("#detail .tree", "list"), true},
	{"bytes", choose(4), has("#detail pre", "00000000"), false},
	{"image", choose(5), `document.querySelector("#detail img")`, false},
	{"cut off", choose(7), has("#detail h2", "/cut"), false},
	{"WebSocket", choose(9), has("#detail h2", "/socket"), false},
	{"form", choose(3), has("#detail h2", "/form"), false},
	{"command and edit", press("#do-copy") + press("#do-edit"), has("#detail pre", "curl") + ` && document.querySelector("#send")`, false},
	{"replay", `document.querySelector("[name=body]").value = "a=2";` + press("#send"), `document.querySelector(".compared mark")`, true},
	{"keys", press("#help"), `document.querySelector("#keys").open`, true},
	{"no such status", press("#keys button") + fill("#status", "what"), has("#said", "use a number") + ` && document.querySelector("#status").ariaInvalid === "true"`, false},
}

func choose(id int) string { return press(fmt.Sprintf(`[data-id="%d"]`, id)) }

func press(selector string) string {
	return fmt.Sprintf("document.querySelector(`%s`).click();", selector)
}

func fill(selector, text string) string {
	return fmt.Sprintf(`{ const e = document.querySelector("%s"); e.value = "%s"; e.dispatchEvent(new Event("input", { bubbles: true })); }`, selector, text)
}

func has(selector, text string) string {
	return fmt.Sprintf(`document.querySelector("%s")?.innerText.includes("%s")`, selector, text)
}

// inspectorPage is the inspector of a real client in a browser.
type inspectorPage struct {
	*tab
	*visits
}

// openPage shows requests of each kind.
func openPage(t *testing.T) inspectorPage {
	t.Helper()
	p := inspectorPage{visits: newVisits(t)}
	p.ask(t, "GET /?q=a+b", "Authorization: hush\r\n", "")
	p.post(t, "/json", "application/json", `{"n":1,"list":[true,null,{"s":"text"}]}`)
	p.post(t, "/form", "application/x-www-form-urlencoded", "a=1&b=%C3%A4&a=2")
	p.post(t, "/bytes", "application/octet-stream", "\x00\x01\xfe\xff")
	p.ask(t, "GET /image", "", "")
	p.ask(t, "GET /moved", "Cookie: a=hush\r\n", "")
	p.ask(t, "POST /cut", "Content-Length: 0\r\n", "")
	p.ask(t, "GET /events", "", "")
	p.socket(t)
	p.tab = openTab(t, startChromium(t))
	p.run(t, chromedp.Navigate(p.inspector.url))
	p.await(t, `document.querySelectorAll(".row").length === 9`)
	return p
}

// check has axe-core look at the page in a colour scheme.
func (p inspectorPage) check(t *testing.T, what, scheme, options string) {
	t.Helper()
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
	if _, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		t.Fatal(err)
	}
	const told = `.then((r) => r.violations.map((v) => [v.id, v.help, ...v.nodes.map((n) => n.html.slice(0, 200) + " " + n.failureSummary)].join("\n")).join("\n"))`
	found, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`axe.run(document, { `+options+` resultTypes: ["violations"] })`+told, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	if found != "" {
		t.Errorf("%s: %s", what, found)
	}
}
