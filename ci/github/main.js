// The action's step: starts the client and returns when visitors reach the app. The client
// goes on until post.js ends it.
"use strict";
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");
const client = require("./client.js");
const oidc = require("./oidc.js");
const preview = require("./preview.js");
const { GitHub } = require("./github.js");
const { input, yes, event, output, save, say } = require("./workflow.js");

async function main() {
  const env = process.env;
  const pull = event().pull_request;
  const credential = credentials();
  if (!credential && pull && pull.head.repo?.full_name !== env.GITHUB_REPOSITORY) {
    say("notice", "This run is of a fork, which has no secrets and no identity: there is no token, and no preview.");
    return;
  }
  if (!credential && yes("oidc", "false")) {
    throw new Error('the job has no identity to show to the server: oidc needs "permissions: id-token: write"');
  }
  if (process.platform === "win32") {
    throw new Error("previews need a runner on Linux or macOS");
  }
  const p = read(pull);
  if (credential?.TUNNEL_TOKEN_COMMAND) {
    await oidc.token(credential); // whatever is wrong with that is said better here than by the client
  }
  const program = input("client") || (await client.get(
    input("releases", `${env.GITHUB_SERVER_URL}/${env.GITHUB_ACTION_REPOSITORY}/releases/download`),
    input("version", env.GITHUB_ACTION_REF), p.dir));
  if (p.wait && !p.command) {
    await answers(p.wait, preview.milliseconds(p.waitTimeout));
  }
  const child = client.start(program, preview.clientArguments(p), {
    log: p.log, cwd: input("working-directory", "."), env: { TUNNEL_SERVER: required("server"), ...credential },
  });
  // From here on whatever happens, post.js ends it.
  save("pid", child.pid ?? "");
  save("log", p.log);
  const live = await client.ready(child, p.file, p.log);
  if (!live) {
    say("notice", preview.newerText);
    return;
  }
  save("live", true);
  const { url, name } = live;
  const expires = p.ttl ? new Date(Date.now() + preview.milliseconds(p.ttl)).toISOString() : "";
  output("url", url);
  output("name", name);
  output("expires_at", expires);
  console.log(`The preview is at ${url}`);
  await tell({ url, name, expires, pull, generation: p.generation });
}

// read reads what the workflow says of the preview.
function read(pull) {
  const env = process.env;
  const dir = fs.mkdtempSync(path.join(env.RUNNER_TEMP || os.tmpdir(), "tunnel-preview-"));
  const p = {
    dir, log: path.join(dir, "log"), file: path.join(dir, "url"),
    target: required("target"), command: input("command"), wait: input("wait"), waitTimeout: input("wait-timeout", "2m"),
    name: input("name", preview.defaultName(env.GITHUB_REPOSITORY, pull?.number, env.GITHUB_REF_NAME ?? "")),
    generation: preview.generation(env.GITHUB_RUN_ID, env.GITHUB_RUN_ATTEMPT ?? "1"),
    ttl: input("ttl"), options: input("options"),
  };
  preview.milliseconds(p.ttl || "1s");
  yes("comment");
  yes("deployment");
  return p;
}

// credentials is what the client gets to show to the server: a token, or what prints one of
// the job's; null without either. What begins with TUNNEL_TOKEN the client keeps from the app.
function credentials() {
  const token = input("token");
  if (!yes("oidc", "false")) {
    const given = token || process.env.TUNNEL_TOKEN;
    return given ? { TUNNEL_TOKEN: given } : null;
  }
  if (token) {
    throw new Error("token and oidc exclude each other: leave one out");
  }
  return oidc.credentials(input("audience", required("server")));
}

function required(name) {
  const value = input(name);
  if (!value) {
    throw new Error(`${name} is needed`);
  }
  return value;
}

// answers waits for an app that the client does not run.
async function answers(url, time) {
  for (const end = Date.now() + time; ; await sleep(200)) {
    let why;
    try {
      const res = await fetch(url, { redirect: "manual", signal: AbortSignal.timeout(10_000) });
      if (res.status < 400) {
        return;
      }
      why = `it answers ${res.status}`;
    } catch (err) {
      why = err.cause?.message ?? err.message;
    }
    if (Date.now() >= end) {
      throw new Error(`the app is not ready: ${url}: ${why}`);
    }
  }
}

// tell writes the comment and the deployment. A job that may not is a preview all the same.
async function tell({ url, name, expires, pull, generation }) {
  const env = process.env;
  const github = new GitHub({ url: env.GITHUB_API_URL, token: input("github-token"), repository: env.GITHUB_REPOSITORY });
  const sha = pull?.head.sha ?? env.GITHUB_SHA;
  const run = `${env.GITHUB_SERVER_URL}/${env.GITHUB_REPOSITORY}/actions/runs/${env.GITHUB_RUN_ID}`;
  const told = { sha, run, generation, name };
  if (pull && yes("comment")) {
    await attempt("comment", "pull-requests: write", async () => {
      await github.comment(pull.number, told, preview.liveText({ url, expires, ...told }));
      save("comment", JSON.stringify({ number: pull.number, ...told }));
    });
  }
  if (yes("deployment")) {
    await attempt("deployment", "deployments: write", async () => {
      const id = await github.deploy(sha, input("environment", `preview/${name}`));
      save("deployment", id);
      await github.status(id, "success", { environment_url: url, log_url: run, auto_inactive: true });
    });
  }
}

async function attempt(what, permission, f) {
  try {
    await f();
  } catch (err) {
    const hint = err.status === 403 ? ` (the job needs "permissions: ${permission}")` : "";
    say("warning", `There is no ${what}${hint}: ${err.message}`);
  }
}

main().catch((err) => {
  say("error", err.message);
  process.exitCode = 1;
});
