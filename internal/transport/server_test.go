package transport

import "testing"

func TestWrongServer(t *testing.T) {
	for server, hint := range map[string]string{
		"localhost:8080":     ": write http://localhost:8080",
		"127.0.0.1":          ": write http://127.0.0.1",
		"[::1]:8080":         ": write http://[::1]:8080",
		"tunnel.example.com": ": write https://tunnel.example.com",
		"tunnel.example:443": ": write https://tunnel.example:443",
		"ftp://srv":          "",
		"srv/path":           "",
		"http://":            "",
		":8080":              "",
		"":                   "",
	} {
		want := `server "` + server + `" is not http://HOST[:PORT] or https://HOST[:PORT]` + hint
		if got := WrongServer(server).Error(); got != want {
			t.Errorf("%q: %s, want %s", server, got, want)
		}
	}
}
