// The action's step at the job's end, also of one that was cancelled: ends the client, and
// says so where main.js has said that there is a preview.
"use strict";
const client = require("./client.js");
const preview = require("./preview.js");
const { GitHub } = require("./github.js");
const { input, saved, say, show } = require("./workflow.js");

async function main() {
  if (saved("pid")) {
    await attempt(() => client.stop(Number(saved("pid"))));
    show("What tunnel-client and the app have printed", client.read(saved("log")));
    if (saved("live") && client.overtaken(saved("log"))) {
      say("notice", preview.newerText);
    }
  }
  const github = new GitHub({
    url: process.env.GITHUB_API_URL, token: input("github-token"), repository: process.env.GITHUB_REPOSITORY,
  });
  if (saved("comment")) {
    const { number, ...told } = JSON.parse(saved("comment"));
    await attempt(() => github.comment(number, told, preview.endedText(told)));
  }
  if (saved("deployment")) {
    await attempt(() => github.status(saved("deployment"), "inactive"));
  }
}

async function attempt(f) {
  try {
    await f();
  } catch (err) {
    say("warning", err.message);
  }
}

main().catch((err) => {
  say("error", err.message);
  process.exitCode = 1;
});
