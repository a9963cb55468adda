package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// A transfer is one large body on a connection of its own, which the caller closes.
type transfer struct {
	addr, host string
	bytes      int64
	limit      time.Duration // for the whole
	moved      atomic.Int64  // bytes of the body so far
	conn       net.Conn
	body       io.Reader // of a download
}

// dial connects; down or up follows.
func (t *transfer) dial() error {
	c, err := net.DialTimeout("tcp", t.addr, patience)
	if err != nil {
		return err
	}
	t.conn = c
	return c.SetDeadline(time.Now().Add(t.limit))
}

// begin asks for the body and reads the answer's header; what follows is in t.body.
func (t *transfer) begin() error {
	_, err := fmt.Fprintf(t.conn, "GET /down/%d HTTP/1.1\r\nHost: %s\r\n\r\n", t.bytes, t.host)
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(t.conn), nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	t.body = resp.Body
	return nil
}

// down downloads and counts. A body that ends early is an error.
func (t *transfer) down() error {
	if err := t.begin(); err != nil {
		return err
	}
	buf := make([]byte, 256<<10) // larger than bufio's, so that reading goes past it
	for {
		n, err := t.body.Read(buf)
		sum := t.moved.Add(int64(n))
		if err == io.EOF && sum != t.bytes {
			err = fmt.Errorf("the body has %d bytes of %d and looks complete", sum, t.bytes)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// up uploads, and checks that the app got all.
func (t *transfer) up() error {
	_, err := fmt.Fprintf(t.conn, "POST /up HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", t.host, t.bytes)
	if err != nil {
		return err
	}
	block := make([]byte, 256<<10)
	for left := t.bytes; left > 0; {
		n, err := t.conn.Write(block[:min(left, int64(len(block)))])
		if err != nil {
			return err
		}
		left -= int64(n)
		t.moved.Add(int64(n))
	}
	resp, err := http.ReadResponse(bufio.NewReader(t.conn), nil)
	if err != nil {
		return err
	}
	var got int64
	if _, err := fmt.Fscan(resp.Body, &got); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	if got != t.bytes {
		return fmt.Errorf("the app got %d bytes of %d", got, t.bytes)
	}
	return nil
}

func (t *transfer) close() {
	if t.conn != nil {
		t.conn.Close()
	}
}
