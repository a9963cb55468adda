// A replay: how it is to differ, and the two answers side by side.

import { el, duration, outcome, tone } from "./dom.js";

// What a replay makes itself.
const made = /^(connection|content-length|transfer-encoding|expect|keep-alive|te|trailer)$/i;

export function editor(r, replay, cancel) {
  const lines = [{ name: "Host", value: r.host }, ...r.request.headers.filter((h) => !made.test(h.name))].map((h) => `${h.name}: ${h.value}`).join("\n");
  const body = r.request.body;
  const method = el("input", { name: "method", value: r.method, size: 8, spellcheck: "false", autocomplete: "off" });
  const url = el("input", { name: "url", value: r.path, spellcheck: "false", autocomplete: "off" });
  const headers = el("textarea", { name: "headers", spellcheck: "false" });
  headers.value = lines;
  const content = el("textarea", { name: "body", spellcheck: "false", placeholder: body.base64 ? "The body is no text: it stays as it was where this is empty." : "" });
  content.value = body.text ?? "";
  const wrong = el("p", { class: "bad", role: "alert" });
  const send = () => {
    const edit = {};
    if (method.value !== r.method) edit.method = method.value.trim();
    if (url.value !== r.path) edit.url = url.value.trim();
    if (headers.value !== lines) {
      edit.headers = [];
      for (const line of headers.value.split("\n")) {
        if (line.trim() === "") continue;
        const colon = line.indexOf(":");
        if (colon < 1) {
          wrong.textContent = `“${line}” is no header: write Name: value`;
          return;
        }
        edit.headers.push({ name: line.slice(0, colon).trim(), value: line.slice(colon + 1).trim() });
      }
    }
    if (content.value !== (body.text ?? "")) edit.body = content.value;
    replay(edit);
  };
  return el("div", { class: "edit", role: "group", "aria-label": "Edit and replay", onkeydown: (e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) send(); } },
    el("label", {}, "Method", method), el("label", {}, "Path and query", url),
    el("label", {}, "Headers, one a line; a masked value stays what it was", headers), el("label", {}, "Body", content), wrong,
    el("div", { class: "actions" }, el("button", { type: "button", class: "first", id: "send", "aria-keyshortcuts": "Control+Enter", onclick: send }, "Replay this"), el("button", { type: "button", onclick: cancel }, "Cancel")));
}

// compared is the answers of a request and of a replay of it.
export function compared(was, now) {
  const [a, b] = [answer(was), answer(now)];
  const [inA, inB] = common(a, b);
  const side = (name, r, lines, shared) => el("section", {}, el("h3", {}, name, " ", el("span", { class: tone(r) }, outcome(r)), " ", el("span", { class: "quiet" }, duration(r.ms))),
    el("pre", { tabindex: 0, role: "group", "aria-label": name }, ...lines.map((line, i) => shared[i] ? el("span", {}, line) : el("mark", {}, line))));
  const same = inA.every(Boolean) && inB.every(Boolean);
  return el("section", { class: "compared", "aria-labelledby": "compared" }, el("h3", { id: "compared" }, same ? "The answers are the same" : "The answers, what differs is marked"),
    el("div", { class: "halves" }, side(`Request ${was.id}`, was, a, inA), side(`Replay ${now.id}`, now, b, inB)));
}

function answer(r) {
  const body = r.response.body;
  const shown = body.text ? pretty(body.text) : body.base64 ? `${body.size} bytes: ${body.base64}` : "";
  return [`${outcome(r)} ${r.error ?? ""}`.trim(), ...r.response.headers.map((h) => `${h.name}: ${h.value}`), "", ...shown.split("\n")].slice(0, 2000);
}

function pretty(s) {
  try {
    return JSON.stringify(JSON.parse(s), null, 2);
  } catch {
    return s;
  }
}

// common tells which lines of each side are in a longest common subsequence. Beyond what
// is looked at in a moment it goes by position.
function common(a, b) {
  const inA = new Array(a.length).fill(false), inB = new Array(b.length).fill(false);
  if (a.length * b.length > 1e6) {
    for (let i = 0; i < Math.min(a.length, b.length); i++) inA[i] = inB[i] = a[i] === b[i];
    return [inA, inB];
  }
  const n = b.length + 1, longest = new Uint16Array((a.length + 1) * n);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i * n + j] = a[i] === b[j] ? longest[(i + 1) * n + j + 1] + 1 : Math.max(longest[(i + 1) * n + j], longest[i * n + j + 1]);
    }
  }
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) inA[i++] = inB[j++] = true;
    else if (longest[(i + 1) * n + j] >= longest[i * n + j + 1]) i++;
    else j++;
  }
  return [inA, inB];
}
