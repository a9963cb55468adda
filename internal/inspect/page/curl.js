import { bytesOf } from "./body.js";

const quote = (s) => `'${s.replaceAll("'", `'\\''`)}'`;

// Of the way, of the tunnel's, or counted by curl itself.
const ours = /^(host|content-length|connection|transfer-encoding|accept-encoding|expect|te|forwarded|x-forwarded-.*|x-real-ip)$/i;

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
  if (body.text) words.push(`--data-binary ${quote(body.text)}`);
  const line = words.join(" \\\n  ");
  return body.base64 ? `printf %s ${btoa(String.fromCharCode(...bytesOf(body)))} | base64 -d | ${line} \\\n  --data-binary @-` : line;
}
