// The command line of the package, `eve remote`, as a person or a script would use it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once as emitted } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { check } from "./run.mjs";
import { agents, keys, url } from "./settings.mjs";

// A process of its own has to start, on a machine that may be busy.
const slow = { seconds: 28 };

const program = join(dirname(fileURLToPath(import.meta.url)), "node_modules", "eve", "bin", "eve.js");

/** One run of `eve remote …` in an empty folder, with an environment of its own. */
async function eve(args, { key = keys.a, agent = agents.plain, input = "", signal } = {}) {
  const folder = await mkdtemp(join(tmpdir(), "eve-conformance-"));
  try {
    const target = ["-u", url, "-H", `Authorization: Bearer ${key}`, "-H", `X-Bailiwick-Agent: ${agent}`];
    const child = spawn(process.execPath, [program, "remote", args[0], ...target, ...args.slice(1)], {
      cwd: folder,
      env: { PATH: dirname(process.execPath), HOME: folder, EVE_TELEMETRY_DISABLED: "1", NO_COLOR: "1" },
      signal,
    });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (bytes) => (stdout += bytes));
    child.stderr.on("data", (bytes) => (stderr += bytes));
    child.stdin.end(input);
    const [code] = await emitted(child, "close");
    return { code, stdout, stderr };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** What a run printed, which must be one JSON document. */
function printed(run) {
  try {
    return JSON.parse(run.stdout);
  } catch {
    assert.fail(`it printed no JSON: ${said(run)}`);
  }
}

const said = ({ code, stdout, stderr }) => `exit ${code}, said: ${stdout} ${stderr}`;

check("eve_remote_info_prints_the_agent", async (signal) => {
  const run = await eve(["info", "--json"], { signal });
  assert.equal(run.code, 0, said(run));
  const info = printed(run);
  assert.equal(info.kind, "eve-agent-info");
}, slow);

check("eve_remote_info_with_a_wrong_key_fails", async (signal) => {
  const run = await eve(["info", "--json"], { key: "not-a-key", signal });
  assert.equal(run.code, 1, said(run));
  assert.match(run.stderr + run.stdout, /Authorization is required for this route\./);
}, slow);

check("eve_remote_invoke_runs_a_turn", async (signal) => {
  const run = await eve(["invoke", "plain hello"], { signal });
  assert.equal(run.code, 0, said(run));
  const result = printed(run);
  assert.equal(result.status, "ready");
  assert.equal(result.outcome.status, "completed");
  assert.ok(result.outcome.message.length > 0);
  assert.ok(result.resume.session.streamIndex > 0);
  const next = await eve(["invoke", "--resume", "please use-bash"], { input: run.stdout, signal });
  assert.equal(next.code, 0, said(next));
  const second = printed(next);
  assert.equal(second.resume.session.sessionId, result.resume.session.sessionId);
  assert.ok(second.resume.session.streamIndex > result.resume.session.streamIndex);
}, slow);

check("eve_remote_invoke_stops_for_an_approval_and_takes_it", async (signal) => {
  const run = await eve(["invoke", "please write-file command"], { agent: agents.careful, signal });
  assert.equal(run.code, 3, said(run));
  const result = printed(run);
  assert.equal(result.status, "input-required");
  assert.equal(result.requests[0].kind, "tool-approval");
  assert.deepEqual(result.requests[0].options.map((one) => one.id), ["approve", "cancel"]);
  const next = await eve(["invoke", "--resume", "approve"], { agent: agents.careful, input: run.stdout, signal });
  assert.equal(next.code, 0, said(next));
  assert.equal(printed(next).outcome.status, "completed");
}, slow);

check("eve_remote_invoke_reports_a_failed_model_call", async (signal) => {
  const run = await eve(["invoke", "please fail"], { signal });
  assert.equal(run.code, 1, said(run));
  const result = printed(run);
  assert.ok(result.status === "failed" || result.outcome?.status === "failed", run.stdout);
}, slow);

check("eve_remote_invoke_with_a_wrong_key_asks_for_credentials", async (signal) => {
  const run = await eve(["invoke", "plain hello"], { key: "not-a-key", signal });
  assert.equal(run.code, 1, said(run));
  assert.equal(printed(run).status, "authentication-required");
}, slow);

check("eve_remote_invoke_by_b_cannot_resume_a_s_session", async (signal) => {
  const run = await eve(["invoke", "plain hello"], { signal });
  assert.equal(run.code, 0, said(run));
  const theirs = await eve(["invoke", "--resume", "plain from B"], { key: keys.b, input: run.stdout, signal });
  assert.notEqual(theirs.code, 0, said(theirs));
  assert.ok(!theirs.stdout.includes("outcome"), "B got an answer out of A's session");
  const mine = await eve(["invoke", "--resume", "plain again"], { input: run.stdout, signal });
  assert.equal(mine.code, 0, said(mine));
}, slow);
