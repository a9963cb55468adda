// An HTTP server behind NAT that attaches itself to a reverse proxy by PTTH, in Node.js 20.12
// or later, without packages. docs/ptth.md tells what is on the wire.
//
//   TUNNEL_TOKEN=… node origin.mjs https://tunnel.example.com https://demo.tunnel.example.com
import http from 'node:http';
import https from 'node:https';
import http2 from 'node:http2';

const [proxy = 'http://127.0.0.1:8080', origin = 'http://demo.localhost:8080'] = process.argv.slice(2);

function attach() {
  const url = new URL(`/.well-known/ptth/${encodeURIComponent(origin)}/`, proxy);
  const again = (why) => { console.log(why); setTimeout(attach, 1000); };
  const request = (url.protocol === 'https:' ? https : http).get(url, {
    headers: { Connection: 'Upgrade', Upgrade: 'ptth', ALPN: 'h2', Authorization: `Bearer ${process.env.TUNNEL_TOKEN}` },
  });
  request.on('error', (err) => again(err.message));
  request.on('response', (response) => {
    let cause = '';
    response.setEncoding('utf8').on('data', (text) => { cause += text; });
    response.on('end', () => again(`${response.statusCode} ${cause}`));
  });
  request.on('upgrade', (response, socket, ahead) => {
    socket.unshift(ahead); // what came behind the 101 is HTTP/2
    // The roles turn around: the proxy is the client now.
    const session = http2.performServerHandshake(socket, { settings: { enableConnectProtocol: true } });
    session.on('stream', serve);
    session.on('error', (err) => console.log(err.message));
    // A proxy that has gone without a word answers no PING.
    let answered = true;
    const asking = setInterval(() => {
      if (!answered) session.destroy(new Error('the proxy gives no sign of life'));
      answered = false;
      if (!session.destroyed) session.ping(() => { answered = true; });
    }, 10_000);
    session.on('close', () => {
      clearInterval(asking);
      again('the connection has ended');
    });
    console.log(`${origin} leads here`);
  });
}

function serve(stream, headers) {
  stream.on('error', () => {});
  if (headers[':protocol'] === 'websocket') { // RFC 8441: a library for WebSockets would take over here
    stream.respond({ ':status': 200 });
    stream.pipe(stream);
    return;
  }
  stream.respond({ ':status': 200, 'content-type': 'text/plain' });
  stream.end(`Hello from Node.js behind NAT by HTTP/2: ${headers[':method']} ${headers[':path']}\n`);
}

attach();
