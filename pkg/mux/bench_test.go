package mux

import (
	"io"
	"testing"
)

// BenchmarkStreamEcho is a small request and its answer on a kept stream.
func BenchmarkStreamEcho(b *testing.B) {
	c, s := tcpConns(b)
	client, server := sessions(b, c, s, Config{})
	near, far := streams(b, server, client)
	go io.Copy(far, onlyReader{far})
	buf := make([]byte, 512)
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := near.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(near, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStreamWrite is a bulk transfer in writes of 32 KiB.
func BenchmarkStreamWrite(b *testing.B) {
	c, s := tcpConns(b)
	client, server := sessions(b, c, s, Config{})
	near, far := streams(b, server, client)
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, far)
		done <- err
	}()
	buf := make([]byte, 32<<10)
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := near.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	near.CloseWrite()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkOpen is a stream that is opened, accepted and closed.
func BenchmarkOpen(b *testing.B) {
	c, s := tcpConns(b)
	client, server := sessions(b, c, s, Config{})
	go func() {
		for {
			st, err := client.Accept()
			if err != nil {
				return
			}
			io.Copy(io.Discard, st)
			st.Close()
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		st, err := server.Open(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		st.CloseWrite()
		if _, err := st.Read(make([]byte, 1)); err != io.EOF {
			b.Fatal(err)
		}
		st.Close()
	}
}

// onlyReader hides everything but Read.
type onlyReader struct{ io.Reader }
