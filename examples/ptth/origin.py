"""An HTTP/1.1 server behind NAT that attaches itself to a reverse proxy by PTTH, with
Python's standard library alone. It serves one request at a time on each of its
connections. docs/ptth.md tells what is on the wire.

    TUNNEL_TOKEN=… python3 origin.py https://tunnel.example.com https://demo.tunnel.example.com
"""
import http.server
import os
import socket
import ssl
import sys
import threading
import time
import urllib.parse

PROXY = urllib.parse.urlsplit(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080")
ORIGIN = sys.argv[2] if len(sys.argv) > 2 else "http://demo.localhost:8080"
CONNECTIONS = 4
# A proxy that has gone without a word is noticed within 45 s (not all systems have all of
# these), and an answer does not wait for the proxy to acknowledge its header.
OPTIONS = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 35_000, "TCP_NODELAY": 1}


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection

    def do_GET(self):
        body = f"Hello from Python behind NAT by HTTP/1.1: GET {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def attach():
    secure = PROXY.scheme == "https"
    conn = socket.create_connection((PROXY.hostname, PROXY.port or (443 if secure else 80)))
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in OPTIONS.items():
        if hasattr(socket, name):
            conn.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if secure:
        conn = ssl.create_default_context().wrap_socket(conn, server_hostname=PROXY.hostname)
    with conn:
        conn.sendall((
            f"GET /.well-known/ptth/{urllib.parse.quote(ORIGIN, safe='')}/ HTTP/1.1\r\n"
            f"Host: {PROXY.netloc}\r\nConnection: Upgrade\r\nUpgrade: ptth\r\nALPN: http%2F1.1\r\n"
            f"Authorization: Bearer {os.environ.get('TUNNEL_TOKEN', '')}\r\n\r\n"
        ).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # not a byte more: what follows is a request
            byte = conn.recv(1)
            if not byte:
                raise ConnectionError("the proxy closed the connection")
            head += byte
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(head.split(b"\r\n", 1)[0].decode())
        print(ORIGIN, "leads here", flush=True)
        App(conn, (PROXY.hostname, 0), None)  # until the connection ends


def serve():
    while True:
        try:
            attach()
        except OSError as err:
            print(err, flush=True)
        time.sleep(1)


for _ in range(CONNECTIONS - 1):
    threading.Thread(target=serve, daemon=True).start()
serve()
