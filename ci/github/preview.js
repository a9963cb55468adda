// What a preview is called, and what is said of it: pure functions.
"use strict";

// defaultName is REPOSITORY-pr-NUMBER, or REPOSITORY-BRANCH. Names of several repositories
// may be one token's, which would take them over from each other.
function defaultName(repository, number, branch) {
  const label = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  const what = (number ? `pr-${number}` : label(branch).slice(0, 40)).replace(/-$/, "");
  const of = label(repository.split("/").pop()).slice(0, 62 - what.length);
  return [of.replace(/-$/, ""), what].filter(Boolean).join("-");
}

// generation is higher for a newer run, and for a newer attempt of the same one.
function generation(runID, attempt) {
  return String(BigInt(runID) * 1000n + BigInt(attempt));
}

// milliseconds reads a time as tunnel-client does: 90m, 1h30m.
function milliseconds(time) {
  const units = { h: 3_600_000, m: 60_000, s: 1000 };
  if (!/^(\d+[hms])+$/.test(time)) {
    throw new Error(`${time} is no time such as 90m, 2h or 1h30m`);
  }
  let sum = 0;
  for (const [, n, unit] of time.matchAll(/(\d+)([hms])/g)) {
    sum += n * units[unit];
  }
  return sum;
}

// clientArguments are those of tunnel-client.
function clientArguments(p) {
  const common = ["--json", "--name", p.name, "--generation", p.generation, "--url-file", p.file];
  if (p.ttl) {
    common.push("--ttl", p.ttl);
  }
  common.push(...p.options.split("\n").map((one) => one.trim()).filter(Boolean));
  if (!p.command) {
    return ["http", p.target, ...common];
  }
  if (p.wait) {
    common.push("--wait", p.wait);
  }
  return ["exec", "--target", p.target, ...common, "--wait-timeout", p.waitTimeout, "--", "sh", "-c", p.command];
}

function liveText({ url, sha, run, expires }) {
  const end = expires ? `, or at ${expires}` : "";
  return `**Preview** of ${sha.slice(0, 7)}: ${url}\n\nIt ends with [the run](${run})${end}.`;
}

function endedText({ sha, run }) {
  return `**Preview** of ${sha.slice(0, 7)} has ended with [its run](${run}).`;
}

// newerText is of a run that another one has taken over from, as it is to be.
const newerText = "A newer run has the name, so the preview is of that one: there is nothing to do.";

module.exports = { defaultName, generation, milliseconds, clientArguments, liveText, endedText, newerText };
