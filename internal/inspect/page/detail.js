// One request: what was asked and answered, where the time went, what is passing on it.

import * as api from "./api.js";
import { table, text, view } from "./body.js";
import { command } from "./curl.js";
import { byId, clock, duration, el, outcome, say, size, tone } from "./dom.js";
import { compared, editor } from "./replay.js";

export class Detail {
  constructor(back, choose) {
    this.box = byId("detail");
    this.back = back;
    this.choose = choose; // shows another request
    this.request = null;
    this.reveal = false;
    this.against = 0; // the replay that the answer is compared with
  }

  get id() { return this.request?.id ?? 0; }

  async show(id, { read = false, against = 0 } = {}) {
    if (id !== this.id) this.reveal = false;
    this.against = against;
    await this.load(id);
    if (read) this.read();
  }

  async load(id) {
    const turn = this.turn = {};
    try {
      const [request, other] = await Promise.all([api.request(id, this.reveal), this.against ? api.request(this.against, this.reveal) : null]);
      if (turn !== this.turn) return;
      this.request = request;
      this.draw(other);
    } catch (e) {
      if (turn === this.turn) this.gone(e.message);
    }
  }

  gone(why) {
    this.request = null;
    this.fill(el("p", { class: "quiet" }, why));
  }

  // fill shows children in place of what there was. The focus stays where it was, or near it.
  fill(...children) {
    const { id } = document.activeElement, inside = this.box.contains(document.activeElement);
    this.box.replaceChildren(...children);
    if (inside) (byId(id) ?? this.box).focus({ preventScroll: true });
  }

  read() {
    document.body.classList.add("reading");
    this.box.focus();
  }

  // changed is called when the request is known to have: what was opened stays open.
  async changed(summary) {
    this.news = summary;
    if (this.busy || this.request?.state !== "open") return;
    this.busy = true;
    try {
      while (this.news?.id === this.id && this.request.state === "open") {
        const news = this.news;
        this.news = null;
        await this.follow(news);
      }
    } finally {
      this.busy = false;
    }
  }

  async follow(summary) {
    if (summary.state !== "open" || this.request.status === 0) return this.load(this.id);
    const id = this.id, after = this.request.messages?.at(-1)?.number ?? 0;
    let now;
    try {
      now = await api.request(id, this.reveal, after);
    } catch {
      return; // it was given up: what is shown stays
    }
    if (this.id !== id) return;
    for (const m of now.messages ?? []) {
      (this.request.messages ??= []).push(m);
      this.rows.append(row(m));
    }
    this.messages.toggleAttribute("hidden", !this.request.messages?.length);
  }

  draw(other) {
    const r = this.request;
    const button = (name, key, press) => el("button", { type: "button", id: `do-${name.split(" ")[0].toLowerCase()}`, "aria-keyshortcuts": key, onclick: press }, name);
    const secrets = el("button", { type: "button", id: "do-secrets", "aria-pressed": String(this.reveal), "aria-keyshortcuts": "s", onclick: () => this.toggleSecrets() }, "Show secrets");
    this.edit = el("div");
    this.curl = el("div");
    this.rows = el("tbody", {}, ...(r.messages ?? []).map(row));
    this.messages = el("section", { "aria-labelledby": "messages", hidden: !r.messages?.length },
      el("h3", { id: "messages" }, r.kind === "events" ? "Events" : "Messages"),
      r.messages_dropped ? el("p", { class: "quiet" }, `${r.messages_dropped} older ones were given up.`) : null,
      el("table", {}, el("thead", {}, el("tr", {}, ...["From", "What", "Size", "At"].map((h) => el("th", { scope: "col" }, h)))), this.rows));
    this.fill(...[
      el("button", { type: "button", id: "back", onclick: this.back }, "← List"),
      el("h2", {}, el("span", {}, `${r.method} `), el("span", { class: "path" }, r.path), " ", el("span", { class: tone(r) }, outcome(r))),
      el("p", { class: "quiet" }, [r.url, r.endpoint && `endpoint ${r.endpoint}`, r.visitor && `from ${r.visitor}`, r.error && `the tunnel answered: ${r.error}`, r.replay_of && `replay of ${r.replay_of}`, r.imported && "imported"].filter(Boolean).join(" · ")),
      el("div", { class: "actions", role: "group", "aria-label": "This request" },
        button("Replay", "r", () => this.replay({})), button("Edit and replay", "e", () => this.openEditor()),
        button("Copy as curl", "c", () => this.copy()), secrets),
      this.edit, this.curl,
      other ? compared(r, other) : null,
      timing(r),
      this.messages,
      el("div", { class: "halves" }, half("Request", { ...r.request, headers: [...(r.host ? [{ name: "Host", value: r.host }] : []), ...r.request.headers] }, r.query), half("Response", r.response, null, r.interim)),
    ].filter(Boolean));
  }

  toggleSecrets() {
    if (!this.request) return;
    this.reveal = !this.reveal;
    return this.load(this.id);
  }

  openEditor() {
    if (!this.request) return;
    this.edit.replaceChildren(editor(this.request, (edit) => this.replay(edit), () => this.edit.replaceChildren()));
    this.edit.querySelector(this.request.request.body.text ? "[name=body]" : "input").focus();
  }

  async replay(edit) {
    if (!this.request) return;
    const original = this.id;
    say("replaying");
    try {
      const id = await api.replay(original, edit);
      say(`replayed as request ${id}`);
      this.choose(original, id);
    } catch (e) {
      say(e.message);
    }
  }

  async copy() {
    if (!this.request) return;
    const line = command(this.request);
    const masked = line.includes(api.mask()) ? " The secrets in it are masked." : "";
    this.curl.replaceChildren(el("h3", {}, "As a command"), text(line));
    try {
      await navigator.clipboard.writeText(line);
      say(`copied.${masked}`);
    } catch {
      say(`it cannot be copied from here: take it from below.${masked}`);
    }
  }
}

function half(name, part, query, interim) {
  const id = name.toLowerCase();
  const box = el("section", { "aria-labelledby": id }, el("h3", { id }, name));
  for (const one of interim ?? []) box.append(el("p", { class: "quiet" }, `before it: ${one.status}`), table(one.headers));
  if (query?.length) box.append(el("h4", {}, "Query"), table(query));
  box.append(el("h4", {}, "Headers"), table(part.headers));
  if (part.cookies.length) box.append(el("h4", {}, "Cookies"), table(part.cookies));
  if (part.trailers?.length) box.append(el("h4", {}, "Trailers"), table(part.trailers));
  box.append(el("h4", {}, "Body"), view(part.body));
  return box;
}

function timing(r) {
  const t = r.timing, bar = el("div", { class: "bar", "aria-hidden": "true" });
  for (const name of ["app", "tunnel"]) {
    const part = el("span", { class: name });
    part.style.width = `${t.total > 0 ? 100 * t[name] / t.total : 0}%`;
    bar.append(part);
  }
  const open = r.state === "open" ? " so far" : "";
  return el("section", { "aria-label": "Timing" }, el("h3", {}, "Timing"), bar,
    el("p", { class: "quiet" }, `${duration(t.total)}${open}, of it in the local app ${duration(t.app)}, waiting for the tunnel ${duration(t.tunnel)}; the answer began after ${duration(t.wait)}; at ${clock(r.started)}`));
}

function row(m) {
  const what = m.error ? el("span", { class: "bad" }, m.error) : m.kind === "text" || m.kind === "event" ? m.text ?? "" : `${m.kind} ${m.text ?? m.base64 ?? ""}`;
  return el("tr", {}, el("td", { class: "from" }, m.from === "visitor" ? "↑ visitor" : "↓ app"), el("td", {}, what, m.cut ? " …" : ""), el("td", { class: "from" }, size(m.size)), el("td", { class: "from" }, clock(m.at)));
}
