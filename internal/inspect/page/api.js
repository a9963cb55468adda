// The API of docs/inspector.md.

let session = {};

// adopt takes what a live stream began with for the calls to come, and says whether another
// process has told it than before.
export function adopt(begun) {
  const another = session.token !== begun.token;
  session = begun;
  return another;
}

export const mask = () => session.mask;

async function call(path, options = {}) {
  const answer = await fetch("api/" + path, { ...options, headers: { "Inspect-Token": session.token } });
  if (answer.ok) return answer;
  let why = `${answer.status}`;
  try { why = (await answer.json()).error; } catch { /* it is no JSON */ }
  throw new Error(why);
}

export async function requests(filter) {
  return (await (await call("requests?" + new URLSearchParams(filter))).json()).requests;
}

export async function request(id, reveal, after = 0) {
  return (await call(`requests/${id}?` + new URLSearchParams({ reveal, after }))).json();
}

export async function replay(id, edit) {
  const answer = await call(`requests/${id}/replay`, { method: "POST", body: JSON.stringify(edit) });
  return (await answer.json()).id;
}

export const clear = () => call("requests", { method: "DELETE" });

export async function har(ids) {
  return (await call("har?" + new URLSearchParams({ ids: ids.join(",") }))).blob();
}

export async function load(file) {
  return (await (await call("har", { method: "POST", body: file })).json()).ids;
}

// live calls changed with each batch of requests, again and again with all after a break, and
// before that began with the session.
export function live({ began, changed, broke }) {
  const source = new EventSource("api/live");
  source.addEventListener("begin", (e) => began(JSON.parse(e.data)));
  source.addEventListener("message", (e) => changed(JSON.parse(e.data)));
  source.addEventListener("error", broke);
}
