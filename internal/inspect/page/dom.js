// Elements are made here and nowhere else, with text as text: nothing that was recorded is ever HTML.

export function el(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (value === true) e.setAttribute(key, "");
    else if (value !== false && value !== undefined && value !== null) e.setAttribute(key, value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}

export const byId = (id) => document.getElementById(id);

// say tells people what has happened, and screen readers, too.
let saying;
export function say(text) {
  byId("said").textContent = text;
  clearTimeout(saying);
  saying = setTimeout(() => byId("said").textContent = "", 4000);
}

export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 999_500) return `${(bytes / 1000).toPrecision(3)} kB`;
  return `${(bytes / 1e6).toPrecision(3)} MB`;
}

export function duration(ms) {
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

export const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });

export function outcome(r) {
  if (r.state === "cut") return r.status ? `${r.status} cut` : "cut off";
  return r.status ? String(r.status) : "…";
}

export function tone(r) {
  if (r.state === "cut" || r.status >= 500) return "bad";
  if (r.status >= 400) return "warn";
  if (r.status >= 300) return "moved";
  return r.status ? "good" : "quiet";
}
