package rig

import "slices"

func requestLines() []Poison {
	return each("request line", "%s\r\nHost: {a}\r\n\r\n",
		"GET  /{id}/first HTTP/1.1", "GET /{id}/first  HTTP/1.1", "GET\t/{id}/first HTTP/1.1", "GET /{id}/first\tHTTP/1.1", " GET /{id}/first HTTP/1.1", "GET /{id}/first HTTP/1.1 ",
		"GET /{id}/first", "GET", "", "/{id}/first HTTP/1.1", " /{id}/first HTTP/1.1", "GET HTTP/1.1", "GET  HTTP/1.1", "GET /{id}/first HTTP/1.1 HTTP/1.1", "GET /{id}/a b HTTP/1.1",
		"GET /{id}/first http/1.1", "GET /{id}/first HTTP/1.2", "GET /{id}/first HTTP/1.10", "GET /{id}/first HTTP/01.1", "GET /{id}/first HTTP/1.1x", "GET /{id}/first HTTP/ 1.1", "GET /{id}/first HTTP/1,1",
		"GET /{id}/first HTP/1.1", "GET /{id}/first HTTP/2.0", "GET /{id}/first HTTP/3.0", "GET /{id}/first HTTP/0.9", "GET /{id}/first HTTP/1", "GET /{id}/first HTTP/1.", "GET /{id}/first HTTP/+1.1", "GET /{id}/first HTTP/1.1\x00",
		"GET /{id}/first ICY/1.1", "GET /{id}/first HTTPS/1.1", "get /{id}/first HTTP/1.1", "G(ET /{id}/first HTTP/1.1", "GET:/{id}/first HTTP/1.1", "\"GET\" /{id}/first HTTP/1.1", "GET,POST /{id}/first HTTP/1.1",
		"GET\x0b/{id}/first\x0bHTTP/1.1", "GET\xa0/{id}/first HTTP/1.1", "GET%20/{id}/first HTTP/1.1", "GET /{id}/first%20HTTP/1.1", "A-METHOD_OF|ITS~OWN /{id}/first HTTP/1.1", "PRI /{id}/first HTTP/1.1",
	)
}

func targets() []Poison {
	return append(each("target", "GET %s HTTP/1.1\r\nHost: {a}\r\n\r\n",
		"*", "//{b}/{id}/first", "/{id}/first#x", "/{id}/first?a b", "/{id}/\xc3\xa9", "/{id}/\xff", "/{id}/%", "/{id}/%zz", "/{id}/%00", "/{id}/%0d%0aHost:%20{b}", "\\{id}\\first", "{id}/first", "?{id}", "#{id}",
		"http://{a}/{id}/first", "http://{b}/{id}/first", "HTTP://{b}/{id}/first", "https://{b}/{id}/first", "http://{a}@{b}/{id}/first", "http://{b}@{a}/{id}/first", "http://{a}:80/{id}/first", "http://{a}?{id}",
		"http://{b}?{id}", "http://{b}#/{id}", "http:/{id}/first", "http:///{id}/first", "http://", "http://{a}\\@{b}/{id}", "http://{a}%2f@{b}/{id}", "http://[{b}]/{id}", "http://[::1]/{id}", "http://{a} /{id}/first",
		"file:///{id}/first", "ftp://{b}/{id}/first", "javascript:{id}", "ws://{b}/{id}", "{b}:80", "{b}", "@{b}/{id}", "/@{b}/{id}", ":80", "/{id}/first;x=y", "/{id}/../../{b}", "/{id}/./%2e%2e/",
	), each("CONNECT", "CONNECT %s\r\n\r\n"+hidden,
		"{a}:80 HTTP/1.1\r\nHost: {a}:80", "{b}:80 HTTP/1.1\r\nHost: {a}", "/{id}/first HTTP/1.1\r\nHost: {a}", "http://{a}/ HTTP/1.1\r\nHost: {a}", "127.0.0.1:22 HTTP/1.1\r\nHost: {a}", "{a}:80 HTTP/1.0\r\nHost: {a}",
		"{a}:80 HTTP/1.1\r\nHost: {a}:80\r\nContent-Length: 5\r\n\r\nhello", "{a}:80 HTTP/1.1",
	)...)
}

func hosts() []Poison {
	return slices.Concat(
		each("Host", "GET /{id}/first HTTP/1.1\r\n%s\r\n\r\n",
			"Host: {a}\r\nHost: {a}", "Host: {a}\r\nHost: {b}", "Host: {a}\r\nhost: {b}", "Host:\r\nHost: {a}", "Host: {a}\r\nHost:", "Host:", "Host: ", "X: y",
			"Host: {a}\r\nHost : {b}", "Host : {a}", " Host: {a}", "Host: {a}\r\nX: y\nHost: {b}", "Host: {a}\r\nX: y\rHost: {b}", "Host {a}", "Host={a}", "Host\x00: {a}",
			"Host: x@{a}", "Host: {a}@{b}", "Host: {a}:80@{b}", "Host: {a},{b}", "Host: {a}, {b}", "Host: {a} {b}", "Host: {a}\t{b}", "Host: {a};{b}", "Host: {a}/{b}", "Host: {a}\\{b}", "Host: {a}?{b}", "Host: {a}#{b}",
			"Host: {a}:80", "Host: {a}:", "Host: {a}:80:80", "Host: {a}:x", "Host: {a}:-1", "Host: {a}:80 ", "Host: {a}.", "Host: {a}..", "Host: .{a}", "Host: *.{a}", "Host: {a}%00.{b}", "Host: %64emo.example.com",
			"Host: http://{a}", "Host: //{a}", "Host: [{a}]", "Host: [::1]", "Host: [::1", "Host: ::1", "Host: \"{a}\"", "Host: <{a}>", "Host: {a}\xc2\xa0", "Host: d\xc3\xa9mo.example.com", "Host: _", "Host: -", "Host: {a}\x00{b}",
		),
		each("Host of HTTP/1.0", "GET /{id}/first HTTP/1.0\r\nConnection: keep-alive\r\n%s\r\n", "Host: {a}\r\n", "", "Host: {a}\r\nHost: {b}\r\n", "Host:\r\n"),
		each("X-Forwarded-Host", get+"%s\r\n\r\n", "X-Forwarded-Host: {b}", "X_Forwarded_Host: {b}", "Forwarded: host={b}", "X-Host: {b}", "X-Original-Host: {b}", "X-HTTP-Host-Override: {b}", "X-Rewrite-URL: /{id}/hidden", "X-HTTP-Method-Override: CONNECT"))
}

// hopByHop name in Connection what the next hop would miss.
func hopByHop() []Poison {
	return each("Connection", post+"Connection: %s\r\nContent-Length: 5\r\n\r\nhello"+hidden,
		"Content-Length", "keep-alive, Content-Length", "Host", "Transfer-Encoding", "Connection", "X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto", "Tunnel-Route", "close", "close, keep-alive", "keep-alive", "Trailer, TE",
		"keep-alive\r\nKeep-Alive: timeout=1, max=1", "keep-alive\r\nConnection: Content-Length", "x y, \x80", "\r\nProxy-Connection: keep-alive", ",,,", "CONTENT-LENGTH", "upgrade, http2-settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
	)
}

func expectations() []Poison {
	return append(each("Expect", post+"Expect:%s\r\nContent-Length: 5\r\n\r\nhello", " 100-continue", " 100-CONTINUE", " 100-continue, 100-continue", " 100-continue, x", " x", "", " 200-ok", " 100-continue\r\nExpect: 100-continue"),
		each("Expect and chunks", post+"Expect:%s\r\n"+coded+"\r\n"+hello, " 100-continue", " x")...)
}

func pipelines() []Poison {
	return each("pipeline", "%s",
		get+"\r\n"+hidden, get+"\r\n"+hidden+hidden, post+"Content-Length: 5\r\n\r\nhello"+hidden, post+coded+"\r\n"+hello+hidden,
		post+"Content-Length: 5\r\n\r\nhello\r\n"+hidden, post+"Content-Length: 0\r\n\r\n"+hidden, post+"\r\n"+hidden, get+"Content-Length: 5\r\n\r\nhello", get+coded+"\r\n"+hello, get+"Content-Length: 0\r\n\r\n", get+"Content-Length: 44\r\n\r\n"+hidden,
		"HEAD /{id}/first HTTP/1.1\r\nHost: {a}\r\n\r\n"+hidden, "HEAD /{id}/first HTTP/1.1\r\nHost: {a}\r\nContent-Length: 5\r\n\r\nhello", "DELETE /{id}/first HTTP/1.1\r\nHost: {a}\r\nContent-Length: 5\r\n\r\nhello",
		"OPTIONS * HTTP/1.1\r\nHost: {a}\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: {a}\r\nContent-Length: 5\r\n\r\nhello", "TRACE /{id}/first HTTP/1.1\r\nHost: {a}\r\nContent-Length: 5\r\n\r\nhello",
		post+"Content-Length: 5\r\n\r\nhel", get+"\r\n\x00"+hidden, get+"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", post+"Content-Length: 5\r\n\r\nhellohello"+hidden,
		"GET /{id}/first HTTP/1.1\r\nHost: nobody.example.com\r\n\r\n"+hidden, "POST /{id}/first HTTP/1.1\r\nHost: nobody.example.com\r\nContent-Length: 44\r\n\r\n"+hidden, "POST /{id}/first HTTP/1.1\r\nHost: example.org\r\n"+coded+"\r\n"+hello+hidden,
	)
}

// upgrades are refused by the local app, or never get there.
func upgrades() []Poison {
	return each("upgrade", get+"%s"+hidden,
		"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: x\r\n\r\n", "Connection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 5\r\n\r\nhello",
		"Connection: Upgrade\r\nUpgrade: foo\r\n"+coded+"\r\n"+hello, "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", "Connection: Upgrade\r\nUpgrade: tunnel.v1\r\n\r\n",
		"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n", "Upgrade: websocket\r\n\r\n", "Connection: Upgrade\r\n\r\n", "Connection: Upgrade\r\nUpgrade: connect-udp\r\nCapsule-Protocol: ?1\r\n\r\n", "Connection: Upgrade\r\nUpgrade: websocket, h2c, foo/1\r\n\r\n",
		"Connection: Upgrade\r\nUpgrade:\r\n\r\n", "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 44\r\n\r\n",
	)
}

func oldVersions() []Poison {
	const old = "POST /{id}/first HTTP/1.0\r\nHost: {a}\r\n"
	return each("HTTP/1.0", "%s",
		old+"Content-Length: 5\r\n\r\nhello", old+"Connection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"+hidden, old+coded+"\r\n"+hello, old+"Connection: keep-alive\r\n"+coded+"\r\n"+hello,
		old+"Connection: keep-alive\r\nContent-Length: 15\r\n"+coded+"\r\n"+hello+hidden, old+"Connection: keep-alive\r\nTransfer-Encoding: identity\r\n\r\n"+hidden, old+"Connection: keep-alive\r\nTransfer-Encoding:\r\nContent-Length: 44\r\n\r\n"+hidden,
		old+"Connection: keep-alive\r\n\r\n"+hidden, old+"\r\n"+hidden, old+"Connection: keep-alive, close\r\n\r\n"+hidden, old+"Expect: 100-continue\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
		old+"Connection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n"+hidden,
		// What a reader ahead learns of the last request must not hide what it learned of the first.
		old+"Connection: keep-alive\r\n"+coded+"\r\n0\r\n\r\nPOST /{id}/hidden HTTP/1.1\r\nHost: {b}\r\n"+coded+"\r\n"+hello,
		old+"Connection: close, keep-alive\r\n\r\n"+hidden+"GET /{id}/third HTTP/1.1\nHost: {b}\n\n",
		"GET /{id}/first\r\n", "GET /{id}/first\r\n\r\n", "GET /{id}/first\n", "GET http://{a}/{id}/first\r\n\r\n",
	)
}

func secondVersion() []Poison {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	return each("HTTP/2", "%s", preface, preface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00", get+"\r\n"+preface, "PRI * HTTP/2.0\r\nHost: {a}\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n", "PRI * HTTP/1.1\r\nHost: {a}\r\n\r\nSM\r\n\r\n",
		"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "\x80\x2e\x01\x03\x01", "SSH-2.0-x\r\n", "EHLO x\r\n", "PROXY TCP4 6.6.6.6 127.0.0.1 1 80\r\n"+get+"\r\n", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x00")
}
