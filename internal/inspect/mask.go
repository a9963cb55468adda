package inspect

import "strings"

// Mask stands for the value of a header that carries a secret. In a replay's edits it is
// the value that was recorded.
const Mask = "••••••••"

// isSecret reports whether a header field, or a cookie's section, lets whoever has it in.
func isSecret(name string) bool {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	if name == "sec-websocket-key" {
		return false // of the handshake alone
	}
	for _, word := range []string{"authorization", "cookie", "token", "secret", "passw", "-key", "apikey", "session", "jwt", "credential"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

// masked returns fields with the values of secret ones replaced, unless they are to be
// revealed.
func masked(fields []Field, reveal bool) []Field {
	shown := make([]Field, len(fields))
	for i, f := range fields {
		if !reveal && isSecret(f.Name) {
			f.Value, f.Secret = Mask, true
		}
		shown[i] = f
	}
	return shown
}
