// What a body says: as text, JSON, a form, an image, or bytes.

import { el, size } from "./dom.js";

const maxHex = 64 << 10, maxText = 512 << 10, maxChildren = 500;

export function bytesOf(body) {
  if (body.base64) return Uint8Array.from(atob(body.base64), (c) => c.charCodeAt(0));
  return new TextEncoder().encode(body.text ?? "");
}

// view is a body with a button for each way to look at it.
export function view(body) {
  const box = el("div", { class: "body" });
  const facts = [size(body.size), body.type, body.coding && `decompressed from ${body.coding}`, body.cut && "only the beginning was kept", body.error];
  box.append(el("p", { class: "quiet" }, facts.filter(Boolean).join(" · ")));
  if (!body.text && !body.base64) return box;
  const ways = waysOf(body);
  const shown = el("div");
  const buttons = ways.map(([name, make]) => el("button", { type: "button", "aria-pressed": "false", onclick: (e) => press(e.target, make) }, name));
  function press(button, make) {
    for (const b of buttons) b.setAttribute("aria-pressed", String(b === button));
    shown.replaceChildren(make());
  }
  box.append(el("div", { class: "actions", role: "group", "aria-label": "Show the body as" }, ...buttons), shown);
  press(buttons[0], ways[0][1]);
  return box;
}

function waysOf(body) {
  const type = (body.type ?? "").toLowerCase(), ways = [];
  if (body.text && (type.includes("json") || /^\s*[{[]/.test(body.text))) {
    const value = parse(body.text);
    if (value !== undefined) ways.push(["JSON", () => tree(value)]);
  }
  if (type.startsWith("image/")) ways.push(["Image", () => image(body, type)]);
  if (type.startsWith("application/x-www-form-urlencoded")) ways.push(["Form", () => urlForm(body)]);
  if (type.startsWith("multipart/form-data")) ways.push(["Form", () => multipart(body)]);
  if (body.text) ways.push(["Text", () => text(body.text)]);
  ways.push(["Hex", () => hex(bytesOf(body))]);
  return ways;
}

export function text(s) {
  const pre = el("pre", { tabindex: 0, role: "group", "aria-label": "Text" }, s.slice(0, maxText));
  if (s.length > maxText) pre.append(`\n… ${s.length - maxText} more characters`);
  return pre;
}

function image(body, type) {
  const data = body.base64 ?? btoa(String.fromCodePoint(...new TextEncoder().encode(body.text).slice(0, 100_000)));
  return el("img", { src: `data:${type.split(";")[0]};base64,${data}`, alt: "the body as an image" });
}

export function table(fields, heads = ["Name", "Value"]) {
  if (fields.length === 0) return el("p", { class: "quiet" }, "none");
  return el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {}, ...fields.map((f) => el("tr", {}, el("th", { scope: "row", class: "name" }, f.name), el("td", {}, f.value)))));
}

function urlForm(body) {
  return table([...new URLSearchParams(body.text)].map(([name, value]) => ({ name, value })));
}

// multipart is RFC 7578. Bytes are taken for characters until the parts are found.
function multipart(body) {
  const boundary = /boundary="?([^";]+)/i.exec(body.type)?.[1];
  const raw = new TextDecoder("latin1").decode(bytesOf(body));
  if (!boundary) return text(raw);
  const utf8 = (s) => new TextDecoder().decode(Uint8Array.from(s, (c) => c.charCodeAt(0)));
  const fields = raw.split("--" + boundary).slice(1, -1).map((part) => {
    const [, head = "", value = ""] = /^\r?\n([\s\S]*?)\r?\n\r?\n([\s\S]*?)\r?\n$/.exec(part) ?? [];
    const name = utf8(/name="([^"]*)"/i.exec(head)?.[1] ?? "");
    const file = /filename="([^"]*)"/i.exec(head)?.[1];
    return { name, value: file === undefined ? utf8(value) : `file ${utf8(file)}, ${size(value.length)}` };
  });
  return table(fields);
}

function hex(bytes) {
  const lines = [];
  for (let at = 0; at < Math.min(bytes.length, maxHex); at += 16) {
    const row = bytes.slice(at, at + 16);
    const codes = Array.from(row, (b) => b.toString(16).padStart(2, "0")).join(" ").padEnd(47);
    lines.push(`${at.toString(16).padStart(8, "0")}  ${codes}  ${Array.from(row, (b) => b >= 32 && b < 127 ? String.fromCharCode(b) : ".").join("")}`);
  }
  if (bytes.length > maxHex) lines.push(`… ${bytes.length - maxHex} more bytes`);
  return el("pre", { tabindex: 0, role: "group", "aria-label": "Bytes" }, lines.join("\n"));
}

// parse keeps numbers as they were written where a double is less than that.
class Exactly { constructor(source) { this.source = source; } }
export function parse(s) {
  try {
    return JSON.parse(s, (_, value, context) => typeof value === "number" && context?.source && context.source !== String(value) ? new Exactly(context.source) : value);
  } catch {
    return undefined;
  }
}

function tree(value) {
  return el("div", { class: "tree" }, node("", value, true));
}

// node is made when it is opened: a large document costs what is looked at.
function node(name, value, open = false) {
  const label = name === "" ? [] : [el("span", { class: "name" }, name), ": "];
  if (value === null || typeof value !== "object" || value instanceof Exactly) {
    const kind = value === null ? "null" : value instanceof Exactly ? "number" : typeof value;
    const shown = value instanceof Exactly ? value.source : typeof value === "string" ? JSON.stringify(value) : String(value);
    return el("div", { class: "leaf" }, ...label, el("span", { class: kind }, shown));
  }
  const entries = Object.entries(value), array = Array.isArray(value);
  const count = `${array ? "[" : "{"}${entries.length}${array ? "]" : "}"}`;
  const box = el("details", { open }, el("summary", {}, ...label, el("span", { class: "quiet" }, count)));
  let at = 0;
  const more = () => {
    box.append(...entries.slice(at, at + maxChildren).map(([key, child]) => node(key, child, open && entries.length < 20)));
    at += maxChildren;
    if (at < entries.length) {
      const button = el("button", { type: "button", onclick: () => { button.remove(); more(); } }, `${entries.length - at} more`);
      box.append(button);
    }
  };
  if (open) more();
  else box.addEventListener("toggle", more, { once: true });
  return box;
}
