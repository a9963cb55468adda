import { bytesOf } from "./body.js";

const quote = (s) => `'${s.replaceAll("'", `'\\''`)}'`;

// Of the way, of the tunnel's, or counted by curl itself.
const ours = /^(host|content-length|connection|transfer-encoding|accept-encoding|expect|te|forwarded|x-forwarded-.*|x-real-ip)$/i;

// What a terminal may take for a key or a command of its own when it is pasted.
const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;

// command is the request as a command for a POSIX shell.
export function command(r) {
  const words = [`curl ${quote(r.url)}`];
  if (r.method === "HEAD") words.push("--head");
  else if (r.method !== "GET" || r.request_bytes > 0) words.push(`-X ${quote(r.method)}`);
  for (const h of r.request.headers) {
    if (ours.test(h.name) || h.name === "Content-Encoding" && r.request.body.coding) continue;
    words.push(`-H ${quote(h.value === "" ? `${h.name};` : `${h.name}: ${h.value}`)}`);
  }
  if (r.request.headers.some((h) => h.name === "Accept-Encoding")) words.push("--compressed");
  const body = r.request.body;
  // --data-binary would take a text that begins with @ for the name of a file.
  const plain = body.text && !controls.test(body.text);
  if (plain) words.push(`--data-raw ${quote(body.text)}`);
  const line = words.join(" \\\n  ");
  if (plain || !body.text && !body.base64) return line;
  const bytes = Array.from(bytesOf(body), (b) => String.fromCharCode(b)).join("");
  return `printf %s ${btoa(bytes)} | base64 -d | ${line} \\\n  --data-binary @-`;
}
