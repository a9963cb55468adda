// A token that GitHub signs, of who the job is: as the program that the client runs for each
// connection it prints one.
"use strict";
const { setTimeout: sleep } = require("node:timers/promises");

const tries = 3;

// credentials are the variables by which the client gets such tokens, or null where the job
// may not have them.
function credentials(audience) {
  const { ACTIONS_ID_TOKEN_REQUEST_URL: url, ACTIONS_ID_TOKEN_REQUEST_TOKEN: token } = process.env;
  if (!url || !token) {
    return null;
  }
  return {
    TUNNEL_TOKEN_COMMAND: 'exec "$TUNNEL_TOKEN_NODE" "$TUNNEL_TOKEN_SCRIPT"',
    TUNNEL_TOKEN_NODE: process.execPath,
    TUNNEL_TOKEN_SCRIPT: __filename,
    TUNNEL_TOKEN_URL: url,
    TUNNEL_TOKEN_REQUEST: token,
    TUNNEL_TOKEN_AUDIENCE: audience,
  };
}

// token asks GitHub for a token, by such variables.
async function token(env) {
  const url = new URL(env.TUNNEL_TOKEN_URL);
  url.searchParams.set("audience", env.TUNNEL_TOKEN_AUDIENCE);
  for (let n = 1; ; n++) {
    try {
      return await ask(url, env.TUNNEL_TOKEN_REQUEST);
    } catch (err) {
      if (n === tries || err.status < 500) {
        throw new Error(`there is no token of the job's identity: ${err.cause?.message ?? err.message}`);
      }
    }
    await sleep(1000);
  }
}

async function ask(url, request) {
  const res = await fetch(url, { headers: { Authorization: `Bearer ${request}` }, signal: AbortSignal.timeout(5000) });
  if (!res.ok) {
    throw Object.assign(new Error(`GitHub answers ${res.status}`), { status: res.status });
  }
  const { value } = (await res.json()) ?? {};
  if (typeof value !== "string" || value === "") {
    throw Object.assign(new Error("GitHub's answer has none in it"), { status: res.status });
  }
  return value;
}

module.exports = { credentials, token };

if (require.main === module) {
  token(process.env).then(console.log, (err) => {
    console.error(err.message);
    process.exitCode = 1;
  });
}
