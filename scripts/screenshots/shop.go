package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// serveShop is the local app: some pages, an API, a webhook that does not like every order, a
// socket.
func serveShop(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/hooks/payment":
		hook(w, r)
	case "/api/products":
		answer(w, http.StatusOK, []map[string]any{{"id": 7, "name": "Teapot", "price": 24.5}, {"id": 8, "name": "Cup", "price": 6}})
	case "/favicon.ico":
		http.NotFound(w, r)
	case "/api/report":
		http.Error(w, "the report could not be made", http.StatusInternalServerError)
	case "/socket":
		socket(w, r)
	default:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		http.SetCookie(w, &http.Cookie{Name: "cart", Value: "7f3a", Path: "/", HttpOnly: true})
		fmt.Fprint(w, "<!doctype html><title>Shop</title><h1>Teapots and cups</h1>")
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func hook(w http.ResponseWriter, r *http.Request) {
	var event struct {
		Order    string
		Amount   float64
		Currency string
	}
	body, _ := io.ReadAll(r.Body)
	switch err := json.Unmarshal(body, &event); {
	case err != nil:
		answer(w, http.StatusBadRequest, map[string]any{"error": "no JSON"})
	case event.Currency != "EUR":
		answer(w, http.StatusUnprocessableEntity, map[string]any{"error": "currency " + event.Currency + " is not sold in", "order": event.Order})
	default:
		answer(w, http.StatusOK, map[string]any{"booked": true, "order": event.Order, "amount": event.Amount})
	}
}

func socket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // Host is the app's own
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		_, data, err := c.Read(r.Context())
		if err != nil {
			return
		}
		c.Write(r.Context(), websocket.MessageText, fmt.Appendf(nil, `{"stock":%q,"left":%d}`, data, 10*len(data)))
	}
}

// visitShop makes the requests that there are to see. The last one is the webhook that fails.
func visitShop(ctx context.Context, public, server string) error {
	t := &http.Transport{DialContext: dialer(server)}
	defer t.CloseIdleConnections()
	c := &http.Client{Transport: t, Timeout: time.Minute}
	get := func(path string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, public+path, nil)
		if err != nil {
			return err
		}
		return send(c, req)
	}
	for _, path := range []string{"/", "/style.css", "/favicon.ico", "/api/products", "/products/7", "/api/report?month=2026-10", "/", "/api/products?q=cup"} {
		if err := get(path); err != nil {
			return err
		}
	}
	if err := post(ctx, c, public+"/hooks/payment?source=pay", "application/json", `{"event":"paid","order":"A-1041","amount":24.5,"currency":"EUR"}`); err != nil {
		return err
	}
	if err := talk(ctx, c, public); err != nil {
		return err
	}
	return post(ctx, c, public+"/hooks/payment?source=pay", "application/json",
		`{"event":"paid","order":"A-1042","amount":31,"currency":"USD","lines":[{"product":7,"count":1},{"product":8,"count":1}],"customer":{"id":311,"new":true}}`)
}

func talk(ctx context.Context, c *http.Client, public string) error {
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(public, "http")+"/socket", &websocket.DialOptions{HTTPClient: c})
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	for _, product := range []string{"teapot", "cup", "saucer"} {
		if err := conn.Write(ctx, websocket.MessageText, []byte(product)); err != nil {
			return err
		}
		if _, _, err := conn.Read(ctx); err != nil {
			return err
		}
	}
	return conn.Close(websocket.StatusNormalClosure, "")
}
