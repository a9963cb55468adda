// What GitHub shows of a preview: a comment on the pull request and a deployment.
"use strict";

const pageSize = 100;
const mostPages = 50;

// GitHub is the API, for one repository. What it does not allow is an error whose
// message says which permission the job lacks.
class GitHub {
  constructor({ url, token, repository }) {
    this.url = url;
    this.token = token;
    this.base = `/repos/${repository}`;
  }

  async call(method, path, body) {
    const res = await fetch(this.url + path, {
      method,
      headers: {
        Authorization: `Bearer ${this.token}`,
        Accept: "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
        "User-Agent": "tunnel-preview",
      },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(30_000),
    });
    const text = await res.text();
    if (!res.ok) {
      throw Object.assign(new Error(`GitHub answers ${res.status} to ${method} ${path}: ${text.slice(0, 300)}`), { status: res.status });
    }
    return text ? JSON.parse(text) : null;
  }

  // comment makes body that of the one comment with the preview's mark, which is written
  // where there is none. The comment of a newer run, or one of somebody else, is left alone.
  async comment(number, mark, body) {
    const text = `${line(mark)}\n${body}`;
    const found = await this.find(number, mark.name);
    if (!found) {
      return this.call("POST", `${this.base}/issues/${number}/comments`, { body: text });
    }
    if (BigInt(found.generation) > BigInt(mark.generation)) {
      return null;
    }
    return this.call("PATCH", `${this.base}/issues/comments/${found.id}`, { body: text });
  }

  async find(number, name) {
    const ours = await this.authored();
    for (let page = 1; page <= mostPages; page++) {
      const all = await this.call("GET", `${this.base}/issues/${number}/comments?per_page=${pageSize}&page=${page}`);
      for (const one of all) {
        const mark = parse(one.body ?? "");
        if (mark?.name === name && ours(one.user)) {
          return { id: one.id, generation: mark.generation };
        }
      }
      if (all.length < pageSize) {
        break;
      }
    }
    return null;
  }

  // authored returns what tells who may have written our comment. The token of a job is no
  // user's, and may not ask who it is.
  async authored() {
    try {
      const { id } = await this.call("GET", "/user");
      return (user) => user?.id === id;
    } catch (err) {
      if (err.status !== 403 && err.status !== 401) {
        throw err;
      }
      return (user) => user?.type === "Bot";
    }
  }

  // deploy tells of a deployment of ref, and returns its id.
  async deploy(ref, environment) {
    const { id } = await this.call("POST", `${this.base}/deployments`, {
      ref, environment, description: "Preview", auto_merge: false, required_contexts: [],
      transient_environment: true, production_environment: false,
    });
    return id;
  }

  status(id, state, more) {
    return this.call("POST", `${this.base}/deployments/${id}/statuses`, { state, ...more });
  }
}

// line is the comment's first one, which nobody sees.
const line = ({ name, generation }) => `<!-- tunnel-preview name=${name} generation=${generation} -->`;

function parse(body) {
  const found = /^<!-- tunnel-preview name=([a-z0-9-]+) generation=(\d{1,20}) -->/.exec(body);
  return found && { name: found[1], generation: found[2] };
}

module.exports = { GitHub };
