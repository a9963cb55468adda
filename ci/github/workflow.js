// What the runner of GitHub Actions gives to a step, and takes from it.
"use strict";
const crypto = require("node:crypto");
const fs = require("node:fs");

// input is the value that the workflow gave, or fallback.
function input(name, fallback = "") {
  return (process.env["INPUT_" + name.toUpperCase()] ?? "").trim() || fallback;
}

function yes(name, fallback = "true") {
  const value = input(name, fallback).toLowerCase();
  if (value !== "true" && value !== "false") {
    throw new Error(`${name}: ${value} is neither true nor false`);
  }
  return value === "true";
}

// event is what started the workflow.
function event() {
  const path = process.env.GITHUB_EVENT_PATH;
  return path ? JSON.parse(fs.readFileSync(path, "utf8")) : {};
}

function append(file, name, value) {
  const end = crypto.randomUUID(); // no value has it in it
  fs.appendFileSync(file, `${name}<<${end}\n${value}\n${end}\n`);
}

const output = (name, value) => append(process.env.GITHUB_OUTPUT, name, value);

// save keeps a value for the post step, which asks for it by saved.
const save = (name, value) => append(process.env.GITHUB_STATE, name, value);
const saved = (name) => process.env["STATE_" + name] ?? "";

function say(kind, text) {
  const escaped = text.replace(/%/g, "%25").replace(/\r/g, "%0D").replace(/\n/g, "%0A");
  console.log(`::${kind}::${escaped}`);
}

// show prints what a program has printed, folded. None of it is a command to the runner.
function show(title, text) {
  const token = crypto.randomUUID();
  console.log(`::group::${title}\n::stop-commands::${token}\n${text}\n::${token}::\n::endgroup::`);
}

module.exports = { input, yes, event, output, save, saved, say, show };
