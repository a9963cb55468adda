package rig

import (
	"fmt"
	"slices"
	"strings"
)

// A Poison is what a visitor sends to have a request counted that is none, or one
// missed, or answered to somebody else. In Raw "{a}" stands for the host of one
// tenant, "{b}" for another's, and "{id}" for the case; see [Poison.Fill].
type Poison struct{ Name, Raw string }

// Fill returns the bytes to send for two hosts, with a good request for host b
// after them.
func (p Poison) Fill(id int, a, b string) string {
	return strings.NewReplacer("{a}", a, "{b}", b, "{id}", fmt.Sprintf("%03d", id)).Replace(p.Raw +
		"GET /{id}/good HTTP/1.1\r\nHost: {b}\r\n\r\n")
}

const (
	get    = "GET /{id}/first HTTP/1.1\r\nHost: {a}\r\n"
	post   = "POST /{id}/first HTTP/1.1\r\nHost: {a}\r\n"
	coded  = "Transfer-Encoding: chunked\r\n"
	hidden = "GET /{id}/hidden HTTP/1.1\r\nHost: {b}\r\n\r\n"
	hello  = "5\r\nhello\r\n0\r\n\r\n"
)

// Poisons returns the corpus: each case differs from the others in what a parser
// has to decide.
func Poisons() []Poison {
	all := slices.Concat(
		codings(), codingNames(), bothFramings(), lengths(), lengthLines(),
		chunkSizes(), chunkEnds(), lastChunks(), trailerFields(),
		lineEnds(), controls(), folds(), requestLines(), targets(), hosts(),
		hopByHop(), expectations(), pipelines(), upgrades(), oldVersions(), secondVersion(),
	)
	seen := make(map[string]bool, len(all))
	return slices.DeleteFunc(all, func(p Poison) bool {
		again := seen[p.Raw]
		seen[p.Raw] = true
		return again
	})
}

// each makes a case of each value; raw has one %s for it.
func each(name, raw string, values ...string) []Poison {
	cases := make([]Poison, len(values))
	for i, v := range values {
		cases[i] = Poison{fmt.Sprintf("%s %.40q", name, v), strings.Replace(raw, "%s", v, 1)}
	}
	return cases
}

// codings are spellings of the value, without a length and with one.
func codings() []Poison {
	values := []string{
		" chunked", "chunked", "\tchunked", " Chunked", " CHUNKED", " chunked ", " chunked\t", " \"chunked\"", " 'chunked'",
		" chunked, identity", " identity, chunked", " identity", " gzip, chunked", " chunked, chunked", " chunked, gzip", " chunked;q=1",
		" xchunked", " chunkedx", " chun ked", " ,chunked", " chunked,", " ,", "", " \x0bchunked", " \x00chunked", " chunked\x00",
		" \x80chunked", " chun\u212aed", " \xa0chunked", " chunked\rX: y", "\r\n chunked", " chunked\r\n , identity",
	}
	return append(
		each("coding", post+"Transfer-Encoding:%s\r\n\r\n"+hello, values...),
		each("coding and length", post+"Content-Length: 15\r\nTransfer-Encoding:%s\r\n\r\n"+hello+hidden, values...)...)
}

// codingNames hide the field from one of two parsers; the length says the same
// as the chunks, so that whoever takes either reads the same.
func codingNames() []Poison {
	return each("coding's name", post+"Content-Length: 15\r\n%s chunked\r\n\r\n"+hello+hidden,
		"transfer-encoding:", "TRANSFER-ENCODING:", "Transfer-Encoding :", "Transfer-Encoding\t:", " Transfer-Encoding:", "\tTransfer-Encoding:",
		"Transfer_Encoding:", "Transfer Encoding:", "Transfer-Encoding::", "Transfer-Encoding", "Transfer-Encoding=", "Transfer-Encoding;:",
		"\"Transfer-Encoding\":", "Transfer-Encoding\x00:", "Transfer-Encoding\x0b:", "Transfer-Encoding\xa0:", "Transfer-Encod\u0131ng:", "\xef\xbb\xbfTransfer-Encoding:",
		"X: y\nTransfer-Encoding:", "X: y\rTransfer-Encoding:", "X: y\x00Transfer-Encoding:", "X: y\r\n\tTransfer-Encoding:", "X:\r\n Transfer-Encoding:", ":\r\nTransfer-Encoding:",
		"Transfer-Encoding\r\n :", "X-Transfer-Encoding:", "TE:",
	)
}

func bothFramings() []Poison {
	var cases []Poison
	for _, length := range []string{"0", "1", "4", "15", "200", "x", "-1", ""} {
		field := "Content-Length: " + length + "\r\n"
		cases = append(cases,
			Poison{"length " + length + " before coding", post + field + coded + "\r\n" + hello + hidden},
			Poison{"length " + length + " after coding", post + coded + field + "\r\n" + hello + hidden},
			Poison{"length " + length + " and no chunk", post + field + coded + "\r\n0\r\n\r\n" + hidden})
	}
	for _, lines := range []string{
		coded + coded, coded + "Transfer-Encoding: identity\r\n", "Transfer-Encoding: identity\r\n" + coded,
		coded + "Transfer-Encoding: x\r\n", "Transfer-Encoding: gzip\r\n" + coded, coded + "Transfer-Encoding:\r\n", "Transfer-Encoding:\r\n" + coded,
		coded + "transfer-encoding: chunked\r\n", coded + "X: y\r\n" + coded,
	} {
		cases = append(cases, Poison{"codings " + lines, post + lines + "\r\n" + hello},
			Poison{"codings and length " + lines, post + "Content-Length: 5\r\n" + lines + "\r\n" + hello})
	}
	return cases
}

func lengths() []Poison {
	return each("length", post+"Content-Length:%s\r\n\r\nhello",
		" 5", "5", "\t5", " 5 ", " 5\t", " 05", " 00000000000000000005", " +5", " -5", " -0", " +0", " 0x5", " 0b101", " 0o5", " 5,5", " 5, 5", " 5, 6", " 5,", " ,5",
		" 5;", " 5.0", " 5e0", "", " ", " 5\x00", " \x005", " 5\x0b", " 5\x0c", " 5\x85", " 18446744073709551616", " 18446744073709551621", " 9223372036854775808",
		" 9223372036854775807", " 4294967301", " 99999999999999999999999", " 5 6", " 5\r\n 6", "\r\n 5", " \u0665", " \xef\xbc\x95", " \"5\"", " 5_0", " five", " 5h",
		" 4", " 6", " 0", " 1000000",
	)
}

func lengthLines() []Poison {
	return each("length lines", post+"%s\r\n\r\nhello"+hidden,
		"Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 0\r\nContent-Length: 5",
		"Content-Length: 5\r\nContent-Length: 0", "Content-Length: 5\r\nContent-Length:", "Content-Length:\r\nContent-Length: 5",
		"Content-Length: 5\r\ncontent-length: 5", "Content-Length: 5\r\nX: y\r\nContent-Length: 005", "Content-Length: 5\r\nContent-Length: +5",
		"Content-Length : 5", " Content-Length: 5", "Content-Length\t: 5", "Content_Length: 5", "Content Length: 5", "Content-Length\x00: 5",
		"Content-Length:: 5", "Content-Length", "Content-Length 5", "X: y\nContent-Length: 5", "X: y\rContent-Length: 5", "X: y\r\n Content-Length: 5",
		"CONTENT-LENGTH: 5", "Content-Length: 0\r\nContent-Length : 5", "Content-Length: 0\r\nContent_Length: 5", "Content-Length: 5\r\nX-Content-Length: 9",
		"Content-Length: 5\r\n:", "Content-Length: 5\r\n: 9", "Content-Length: 5\r\n =9",
	)
}

func chunkSizes() []Poison {
	return each("chunk size", post+coded+"\r\n%shello\r\n0\r\n\r\n",
		"5\r\n", "05\r\n", "0000000000000005\r\n", "00000000000000005\r\n", "+5\r\n", "-5\r\n", "0x5\r\n", "0X5\r\n", " 5\r\n", "\t5\r\n", "5 \r\n", "5\t\r\n", "5\x0b\r\n",
		"5;\r\n", "5;a\r\n", "5;a=b\r\n", "5;a=\"b\"\r\n", "5;a=\"b\r\n\"\r\n", "5;a\nx\r\n", "5;a\rx\r\n", "5;a\x00\r\n", "5 ;a=b\r\n", "5; a = b\r\n", "5;;\r\n",
		"5\n", "5\r", "5;\n", "5;a=b\n", "5\r\r\n", "5\n\r\n", "5,\r\n", "5h\r\n", "\r\n", " \r\n", ";\r\n", ";a\r\n", "5\x00\r\n", "\x005\r\n", "5 5\r\n", "5,5\r\n", "\"5\"\r\n", "G\r\n",
		"FFFFFFFFFFFFFFFF\r\n", "10000000000000005\r\n", "100000005\r\n", "8000000000000005\r\n", "7FFFFFFFFFFFFFFF\r\n", "5_0\r\n", "5e0\r\n", "\xef\xbc\x95\r\n",
		"5;"+strings.Repeat("x", 3000)+"\r\n", "5;"+strings.Repeat("x", 9000)+"\r\n", strings.Repeat("0", 3000)+"5\r\n", "4\r\n", "6\r\n", "3\r\n",
	)
}

func chunkEnds() []Poison {
	return append(
		each("chunk's end", post+coded+"\r\n5\r\nhello%s0\r\n\r\n"+hidden, "\r\n", "\n", "\r", "", "XX", "\r\r\n", "\n\r", "\r\n\r\n", " \r\n", "\x00\x00"),
		each("chunks", post+coded+"\r\n%s\r\n"+hidden, "1\r\nh\r\n1\r\ni\r\n0\r\n", "1\r\nh\r\n1\ni\r\n0\r\n", "1\r\nh\r\n1;\n0\r\n\r\n\r\n0\r\n", "2;\nxx\r\n4c\r\n0\r\n")...)
}

func lastChunks() []Poison {
	return each("last chunk", post+coded+"\r\n5\r\nhello\r\n%s"+hidden,
		"0\r\n\r\n", "00\r\n\r\n", "0000000000000000\r\n\r\n", "00000000000000000\r\n\r\n", "0;a=b\r\n\r\n", "0 \r\n\r\n", " 0\r\n\r\n", "0\n\n", "0\r\n\n", "0\n\r\n", "0\r\r", "0\r\n\r", "0\r\n",
		"-0\r\n\r\n", "+0\r\n\r\n", "0x0\r\n\r\n", "0;\n\r\n", "0,0\r\n\r\n", "0 0\r\n\r\n", "0;x\rx\r\n\r\n", "", "\r\n", "0\r\n \r\n\r\n", "0\r\n\r\n\r\n", "0\r\n\r\n\n", "10000000000000000\r\n\r\n",
	)
}

func trailerFields() []Poison {
	return each("trailer", post+coded+"Trailer: X\r\n\r\n5\r\nhello\r\n0\r\n%s\r\n\r\n"+hidden,
		"X: y", "Content-Length: 50", "Content-Length: 0", "Transfer-Encoding: chunked", "Host: {b}", "Host: {b}\r\nContent-Length: 3", "X : y", " X: y", "X: y\n", "X: y\r\n folded",
		"GET /{id}/hidden HTTP/1.1", "X: \x00", "X: y\rZ: y", "Connection: close", "Connection: X", "Upgrade: websocket", "Expect: 100-continue", "Authorization: x", "X-Forwarded-For: 6.6.6.6", "Tunnel-Route: other",
		"Trailer: X", ":", ": y", "X", "X:", "\x00: y", "X: "+strings.Repeat("y", 9000), strings.Repeat("X: y\r\n", 500)+"Z: y",
	)
}

// lineEnds replace one line end by another.
func lineEnds() []Poison {
	const raw = "GET /{id}/first HTTP/1.1\r\nHost: {a}\r\nX: y\r\n\r\n"
	var cases []Poison
	for _, end := range []string{"\n", "\r", "\r\r\n", "\n\r", "\n\n", " \r\n", "\t\r\n", "\x0b\r\n", "\x00\r\n", "\u2028", "\u0085", "\\r\\n", "\r \n"} {
		for at, line := range []string{"request line", "Host", "field", "empty line"} {
			lines := strings.SplitAfter(raw, "\r\n")
			lines[at] = strings.TrimSuffix(lines[at], "\r\n") + end
			cases = append(cases, Poison{fmt.Sprintf("%s ends in %q", line, end), strings.Join(lines, "")})
		}
	}
	cases = append(cases, Poison{"all end in LF", strings.ReplaceAll(raw, "\r\n", "\n")},
		Poison{"all end in LF, with a body", strings.ReplaceAll(post+"Content-Length: 5\r\n\r\n", "\r\n", "\n") + "hello"},
		Poison{"all end in CR", strings.ReplaceAll(raw, "\r\n", "\r")})
	return append(cases, each("before the request", "%s"+raw, "\r\n", "\n", "\r", "\r\n\r\n", " ", "\t", "\x00", "\xef\xbb\xbf", " \r\n", "X\r\n", "X: y\r\n", "\r\n\r\n\r\n")...)
}

// controls are bytes where a field or a name has none.
func controls() []Poison {
	bytes := []string{"\x00", "\x01", "\x08", "\x0b", "\x0c", "\x0e", "\x1b", "\x1f", "\x7f"}
	return slices.Concat(
		each("in a value", get+"X: a%sb\r\n\r\n", bytes...),
		each("in a name", get+"X%sY: z\r\n\r\n", append(bytes, " ", "\t", "\x80", "(", "/", "@", "{", "\"", ",", ";", "=")...),
		each("in the Host", "GET /{id}/first HTTP/1.1\r\nHost: {a}%s\r\n\r\n", bytes...),
		each("in the target", "GET /{id}/first%s HTTP/1.1\r\nHost: {a}\r\n\r\n", bytes...),
		each("in the method", "GE%sT /{id}/first HTTP/1.1\r\nHost: {a}\r\n\r\n", append(bytes, "\x80", ":", "/", "(", "\"")...))
}

func folds() []Poison {
	return append(each("fold", "POST /{id}/first HTTP/1.1\r\n%s\r\n\r\nhello"+hidden,
		"Host: {a}\r\nX: y\r\n z", "Host: {a}\r\nX: y\r\n\tz", "Host: {a}\r\nX:\r\n y", "Host: {a}\r\nX: y\r\n ", "Host: {a}\r\nX: y\r\n \r\n z", " X: y\r\nHost: {a}", "\tX: y\r\nHost: {a}",
		"Host:\r\n {a}", "Host: {a}\r\n {b}", "Host: {b}\r\n\t{a}", "Host: {a}\r\nX: y\r\n Content-Length: 5", "Host: {a}\r\nContent-Length:\r\n 5", "Host: {a}\r\nContent-Length: 5\r\n 5",
		"Host: {a}\r\nContent-Length: 5\r\n X: y", "Host: {a}\r\nX: y\r\n Host: {b}", "Host: {a}\r\nX: y\n Content-Length: 5",
	), each("fold in the request line", "GET /{id}/first%s HTTP/1.1\r\nHost: {a}\r\n\r\n", "\r\n", "\r\n\t")...)
}
