//go:build unix

package inspect

import "testing"

// TestPageHints: the page says that it cannot take a status, shows the Host that the app got, and has
// the keys where they are of use.
func TestPageHints(t *testing.T) {
	store := new(Store)
	s := listen(t, store)
	addr, _ := tunnel(t, store, pageApp)
	b := browse(t, s.URL())
	ask(t, addr, "GET /bare HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
	ask(t, addr, "POST /hook HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Length: 7\r\n\r\n{\"n\":1}")
	b.shows("#count", "2 requests")

	b.fill("#status", "4x")
	if b.is(`document.querySelector("#status").ariaInvalid === "true" || document.querySelector("#said").textContent`) {
		t.Error("who is still typing is told that it is wrong")
	}
	b.fill("#status", "abc")
	b.shows("#said", "status “abc”: use a number such as 404, a class such as 5xx, or error")
	b.await(`document.querySelector("#status").ariaInvalid === "true"`)
	b.fill("#status", "")
	b.await(`document.querySelector("#status").ariaInvalid === "false"`)

	for id, field := range map[string]string{"2": "body", "1": "method"} { // which has no body
		b.click(`[data-id="` + id + `"]`)
		b.await(`document.querySelector("#request ~ table")?.innerText.match(/Host\s+app\.test/)`)
		b.await(`document.querySelector("#detail h2")?.innerText.includes(document.querySelector('[data-id="` + id + `"] .path').innerText)`)
		b.press("e")
		b.await(`document.activeElement.name === "` + field + `"`)
	}
	if !b.is(`document.querySelector("#keys").textContent.includes("Ctrl Enter")`) {
		t.Error("the list of keys has no Ctrl Enter")
	}
}
