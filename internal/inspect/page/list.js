// The list of requests. Only the rows in sight are elements, so that ten thousand cost what fifty do.

import { byId, clock, duration, el, outcome, size, tone } from "./dom.js";

const rowHeight = 28, beyond = 10;

export class List {
  constructor(chosen) {
    this.all = new Map(); // by id, oldest first
    this.shown = []; // newest first
    this.takes = () => true;
    this.several = false; // endpoints
    this.chosenId = 0;
    this.onChosen = chosen;
    this.box = byId("list");
    this.space = byId("space");
    this.box.addEventListener("scroll", () => this.draw());
    this.box.addEventListener("keydown", (e) => this.key(e));
    this.space.addEventListener("click", (e) => {
      const row = e.target.closest(".row");
      if (row) this.choose(Number(row.dataset.id), true);
    });
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  begin() {
    this.all.clear();
  }

  // change takes requests that are new or have changed; those before oldest are gone.
  change(requests, oldest) {
    for (const r of requests) this.all.set(r.id, r);
    for (const id of this.all.keys()) {
      if (id >= oldest) break;
      this.all.delete(id);
    }
    this.refresh();
  }

  // filter shows those that takes holds of.
  filter(takes) {
    this.takes = takes;
    this.refresh();
  }

  refresh() {
    const top = this.shown[0]?.id ?? 0;
    this.shown = [...this.all.values()].filter(this.takes).reverse();
    if (this.box.scrollTop > rowHeight) { // what is read stays where it is
      const added = this.shown.findIndex((r) => r.id <= top);
      if (added > 0) this.box.scrollTop += added * rowHeight;
    }
    const n = this.shown.length, all = this.all.size;
    byId("count").textContent = all === 0 ? "No requests yet" : n === all ? `${all} requests` : `${n} of ${all} requests`;
    this.space.style.height = `${n * rowHeight}px`;
    this.draw();
  }

  draw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      const first = Math.max(0, Math.floor(this.box.scrollTop / rowHeight) - beyond);
      const last = Math.min(this.shown.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / rowHeight) + beyond);
      const rows = [];
      for (let i = first; i < last; i++) rows.push(this.row(this.shown[i], i));
      this.space.replaceChildren(...rows);
      const chosen = byId(`r${this.chosenId}`);
      if (chosen) this.box.setAttribute("aria-activedescendant", chosen.id);
      else this.box.removeAttribute("aria-activedescendant");
    });
  }

  row(r, i) {
    const bytes = size(r.response_bytes), took = r.state === "open" ? "open" : duration(r.ms), at = clock(r.started);
    const endpoint = this.several && r.endpoint ? `${r.endpoint} ` : "";
    const marks = (r.replay_of ? "↻ " : "") + (r.imported ? "⇣ " : "") + (r.kind === "websocket" ? "⇄ " : r.kind === "events" ? "≋ " : "");
    const heard = [r.error, r.replay_of && `replay of ${r.replay_of}`, r.imported && "imported", r.kind !== "http" && r.kind].filter(Boolean).join(", ");
    const row = el("div", {
      id: `r${r.id}`, class: "row", role: "option", "data-id": r.id, "aria-selected": String(r.id === this.chosenId),
      "aria-posinset": i + 1, "aria-setsize": this.shown.length, title: r.url,
    },
      el("span", {}, r.method), " ", el("span", { class: "path" }, endpoint && el("span", { class: "quiet" }, endpoint), el("span", { "aria-hidden": "true" }, marks), r.path), " ",
      el("span", { class: tone(r) }, outcome(r)), " ", el("span", {}, bytes), " ", el("span", {}, took), " ", el("span", { class: "quiet" }, at), " ", el("span", { class: "heard" }, heard));
    row.style.top = `${i * rowHeight}px`;
    return row;
  }

  choose(id, read = false) {
    this.chosenId = id;
    this.draw();
    this.onChosen(id, read);
  }

  // step goes down the list, or up.
  step(by) {
    const at = this.shown.findIndex((r) => r.id === this.chosenId);
    this.go(at < 0 ? 0 : at + by);
  }

  go(i) {
    if (this.shown.length === 0) return;
    i = Math.max(0, Math.min(this.shown.length - 1, i));
    const top = i * rowHeight, bottom = top + rowHeight;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (bottom > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = bottom - this.box.clientHeight;
    this.choose(this.shown[i].id);
  }

  key(e) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / rowHeight) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    if (e.key in steps) this.step(steps[e.key]);
    else if (e.key === "Home") this.go(0);
    else if (e.key === "End") this.go(this.shown.length - 1);
    else if (e.key === "Enter" && this.chosenId) this.onChosen(this.chosenId, true);
    else return;
    e.preventDefault();
  }
}
