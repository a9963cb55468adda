// tunnel-client as a program: where it comes from, its beginning and its end.
"use strict";
const childProcess = require("node:child_process");
const crypto = require("node:crypto");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");

// How long a client may take to end: it lets requests under way finish (--grace), for 30 s
// by default; after a second signal it does not.
const drainTime = 40_000;
const endTime = 10_000;

// How many lines of a command that has failed are shown at once; post.js shows all.
const lastLines = 10;
const commandEnded = /^\{"event":.*"cause":"(the command ended with \d+)"/;

// get returns the path of a tunnel-client below dir, downloaded and checked against the
// release's list of sums. That finds what was damaged on the way, not a forged release.
async function get(releases, version, dir) {
  if (!/^v\d+\.\d+\.\d+[\w.+-]*$/.test(version)) {
    throw new Error(`${version || "the ref that this action is used at"} is no version of tunnel-client: use the action at one, such as @v1.2.3, or give version or client`);
  }
  const arch = { x64: "amd64", arm64: "arm64" }[process.arch];
  if (!arch) {
    throw new Error(`there is no release of tunnel-client for ${process.arch}: give client`);
  }
  const folder = `tunnel_${version}_${process.platform}_${arch}`;
  const archive = folder + ".tar.gz";
  const [data, sums] = await Promise.all([archive, "SHA256SUMS"].map((name) => download(`${releases}/${version}/${name}`)));
  const sum = crypto.createHash("sha256").update(data).digest("hex");
  if (!sums.toString().split("\n").includes(`${sum}  ${archive}`)) {
    throw new Error(`${archive} is not what SHA256SUMS of ${version} says`);
  }
  const file = path.join(dir, archive);
  fs.writeFileSync(file, data);
  childProcess.execFileSync("tar", ["-xzf", file, "-C", dir]);
  return path.join(dir, folder, "tunnel-client");
}

async function download(url) {
  let why;
  try {
    const res = await fetch(url);
    if (res.ok) {
      return Buffer.from(await res.arrayBuffer());
    }
    why = `${res.status} ${res.statusText}`;
  } catch (err) {
    why = err.cause?.message || err.cause?.code || err.message;
  }
  throw new Error(`${url} cannot be downloaded: ${why}: give releases, where they are, or client, a tunnel-client that is there already`);
}

// environment is that of the client, and so of the command: without the inputs, some of
// which are secret, and without what is this step's alone.
function environment(more) {
  const own = /^(INPUT_|STATE_|ACTIONS_|GITHUB_(ENV|OUTPUT|PATH|STATE|STEP_SUMMARY|TOKEN)$)/;
  const kept = Object.entries(process.env).filter(([name]) => !own.test(name));
  return { ...Object.fromEntries(kept), ...more };
}

// start runs the client so that it outlives this process. What it and its command print
// goes to the file log.
function start(program, args, { log, cwd, env }) {
  const out = fs.openSync(log, "a");
  const child = childProcess.spawn(program, args, { cwd, env: environment(env), detached: true, stdio: ["ignore", out, out] });
  fs.closeSync(out);
  child.unref();
  return child;
}

// ready waits until the client has written file, and returns what it says in its log of
// the name; null where a newer run has that.
async function ready(child, file, log) {
  let ended = "";
  child.once("error", (err) => (ended = err.message));
  child.once("exit", (code, signal) => (ended ||= `tunnel-client ended with ${code ?? signal}`));
  for (;;) {
    if (fs.existsSync(file)) {
      const line = read(log).split("\n").find((line) => line.startsWith('{"event":"ready"'));
      return JSON.parse(line);
    }
    if (ended) {
      if (overtaken(log)) {
        return null;
      }
      throw new Error(reason(ended, read(log).trimEnd().split("\n")));
    }
    await sleep(100);
  }
}

// overtaken reports whether the client has ended because a newer run has the name.
const overtaken = (log) => /^tunnel-client: a newer run has the name .*\(name_taken\)/m.test(read(log));

// reason is why there is no preview by the lines of a log: what the client, which has ended,
// says last, or that the command has ended, with the last lines that it has printed.
function reason(ended, lines) {
  const why = lines.findLast((line) => line.startsWith("tunnel-client: "));
  if (why) {
    return `${ended}: ${why.slice("tunnel-client: ".length)}`;
  }
  const command = lines.findLast((line) => commandEnded.test(line))?.match(commandEnded)[1];
  if (!command) {
    return ended;
  }
  const printed = lines.filter((line) => line && !/^(\{"event":"|time=\S+ level=)/.test(line));
  return [`${command} before the app was ready`, ...printed.slice(-lastLines)].join("\n");
}

const read = (file) => (fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "");

// stop ends a client and returns when it has ended. What does not end is killed, with its
// process group.
async function stop(pid) {
  for (const time of [drainTime, endTime]) {
    if (await gone(pid, 0)) {
      return;
    }
    kill(pid, "SIGTERM");
    if (await gone(pid, time)) {
      return;
    }
  }
  kill(-pid, "SIGKILL");
}

async function gone(pid, time) {
  for (const end = Date.now() + time; ; await sleep(50)) {
    if (!lives(pid)) {
      return true;
    }
    if (Date.now() >= end) {
      return false;
    }
  }
}

// lives is false for a zombie, too: the first process of a container may not wait for
// those that it inherits.
function lives(pid) {
  if (!kill(pid, 0)) {
    return false;
  }
  const stat = os.platform() === "linux" ? read(`/proc/${pid}/stat`) : "";
  return stat.slice(stat.lastIndexOf(")") + 2)[0] !== "Z";
}

function kill(pid, signal) {
  try {
    return process.kill(pid, signal);
  } catch (err) {
    if (err.code === "ESRCH") {
      return false;
    }
    throw err;
  }
}

module.exports = { get, start, ready, overtaken, read, stop };
