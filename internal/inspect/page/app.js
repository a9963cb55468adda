// The page: filters and tools, and what the keys do.

import * as api from "./api.js";
import { Detail } from "./detail.js";
import { byId, el, say } from "./dom.js";
import { List } from "./list.js";

const list = new List((id, read) => detail.show(id, { read }));
const detail = new Detail(back, (id, against) => {
  list.choose(id);
  detail.show(id, { against });
});

function back() {
  document.body.classList.remove("reading");
  list.box.focus();
}

// Filters. Text is looked for where the bodies are.
let matching = null, asking = 0;
function filter() {
  const endpoint = byId("endpoint").value;
  const method = byId("method").value.trim().toUpperCase(), path = byId("path").value.trim().toLowerCase(), status = byId("status").value.trim().toLowerCase();
  list.filter((r) => (!endpoint || r.endpoint === endpoint) && (!method || r.method === method) && (!path || r.path.toLowerCase().includes(path)) && ofStatus(r, status) && (!matching || matching.has(r.id)));
}

function ofStatus(r, status) {
  if (!status) return true;
  if (status === "error") return Boolean(r.error) || r.state === "cut";
  const shown = String(r.status);
  return status.endsWith("x") ? shown.startsWith(status.replaceAll("x", "")) && r.status > 0 : shown.startsWith(status) && r.status > 0;
}

// Who types a status that there cannot be is told what there is.
byId("status").addEventListener("input", () => {
  const given = byId("status").value.trim(), status = given.toLowerCase();
  const known = /^(\d{0,3}|\dx{1,2})$/.test(status) || "error".startsWith(status);
  byId("status").setAttribute("aria-invalid", String(!known));
  if (!known) say(`status “${given}”: use a number such as 404, a class such as 5xx, or error`);
});

function search() {
  clearTimeout(asking);
  const text = byId("text").value.trim();
  if (!text) {
    matching = null;
    filter();
    return;
  }
  asking = setTimeout(async () => {
    try {
      matching = new Set((await api.requests({ text })).map((r) => r.id));
      filter();
    } catch (e) {
      say(e.message);
    }
  }, 250);
}

for (const id of ["endpoint", "method", "path", "status"]) byId(id).addEventListener("input", filter);
byId("text").addEventListener("input", search);

// Endpoints. What belongs to which is of interest where there are several.
let endpoints = [];
function meet() {
  const before = endpoints.join(" ");
  endpoints = [...new Set([...list.all.values()].map((r) => r.endpoint).filter(Boolean))].sort();
  if (endpoints.join(" ") === before) return;
  const chosen = byId("endpoint").value;
  byId("endpoint").replaceChildren(el("option", { value: "" }, "all"), ...endpoints.map((name) => el("option", { value: name }, name)));
  byId("endpoint").value = endpoints.includes(chosen) ? chosen : "";
  list.several = endpoints.length > 1;
  byId("endpoints").toggleAttribute("hidden", !list.several);
  if (byId("endpoint").value !== chosen) filter();
}

// Live. While it is paused nothing moves, and what comes waits.
let paused = false, waiting = new Map(), oldest = 0, anew = null;
const follow = () => {
  api.live({
    began: (session) => {
      byId("connection").textContent = "live";
      anew = session; // what the list has is sent once more, or is another process's
      waiting.clear();
    },
    broke: () => {
      const text = "not connected: has the tunnel ended?"; // which is said once, and tried again and again
      if (byId("connection").textContent !== text) say(text);
      byId("connection").textContent = text;
    },
    changed: (change) => {
      oldest = change.oldest;
      for (const r of change.requests) waiting.set(r.id, r);
      if (paused) byId("connection").textContent = `paused, ${waiting.size} new`;
      else apply();
    },
  });
};

function apply() {
  const requests = [...waiting.values()];
  waiting.clear();
  if (anew) begin(anew);
  anew = null;
  list.change(requests, oldest);
  meet();
  const current = requests.find((r) => r.id === detail.id);
  if (current) detail.changed(current);
  if (matching && requests.length) search();
}

// begin forgets what was told. Where it was another process, its ids mean nothing any more: until
// then they go with its token, which the one of now refuses.
function begin(session) {
  list.begin();
  if (!api.adopt(session)) return;
  list.chosenId = 0;
  if (detail.id) detail.gone("The client was started anew. Choose a request to see it.");
  if (matching) matching = new Set();
}

function pause() {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("connection").textContent = paused ? "paused" : "live";
  if (!paused) apply();
}

async function attempt(what) {
  try {
    await what();
  } catch (e) {
    say(e.message);
  }
}

byId("pause").addEventListener("click", pause);
byId("clear").addEventListener("click", () => attempt(async () => {
  await api.clear();
  waiting.clear();
  detail.gone("Choose a request to see it.");
  say("cleared");
}));
byId("export").addEventListener("click", () => attempt(async () => {
  if (list.shown.length === 0) throw new Error("there is nothing to export");
  const ids = list.shown.length < list.all.size ? list.shown.map((r) => r.id) : [];
  const link = el("a", { href: URL.createObjectURL(await api.har(ids)), download: "tunnel.har" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  say(`exported ${list.shown.length} requests, with secrets masked`);
}));
byId("import").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", () => attempt(async () => {
  const [file] = byId("file").files;
  byId("file").value = "";
  if (file) say(`imported ${(await api.load(file)).length} requests`);
}));
byId("help").addEventListener("click", () => byId("keys").showModal());

const keys = {
  "/": () => byId("path").focus(),
  "?": () => byId("keys").showModal(),
  p: pause,
  j: () => list.step(1),
  k: () => list.step(-1),
  r: () => byId("do-replay")?.click(),
  e: () => byId("do-edit")?.click(),
  c: () => byId("do-copy")?.click(),
  s: () => byId("do-secrets")?.click(),
};
document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || byId("keys").open) return;
  if (e.key === "Escape") back();
  else if (!/^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName) && keys[e.key]) {
    e.preventDefault();
    keys[e.key]();
  }
});

follow();
