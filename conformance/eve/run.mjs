// Collects checks and runs them: a few at a time, each with a time limit, the whole run with one
// too. A check that hangs is a failed check; it must never hang the run.

import { only, parallel, runSeconds } from "./settings.mjs";

const checks = [];

/** Registers one check. `body` gets an AbortSignal that fires when its time is up. */
export function check(name, body, { seconds = 20 } = {}) {
  checks.push({ name, body, seconds });
}

/** Runs all of them and returns how many passed and failed. */
export async function run() {
  const queue = checks.filter((one) => only === undefined || only.test(one.name));
  // The longest go first, so that the run is as long as the longest of them and not longer.
  queue.sort((left, right) => right.seconds - left.seconds);
  const started = Date.now();
  const counts = { passed: 0, failed: 0 };

  const worker = async () => {
    for (let one = queue.shift(); one !== undefined; one = queue.shift()) {
      const left = runSeconds * 1000 - (Date.now() - started);
      const why = left <= 0 ? "the run was over before it began" : await outcome(one, left);
      if (why === undefined) {
        counts.passed += 1;
        console.log(`ok ${one.name}`);
      } else {
        counts.failed += 1;
        console.log(`not ok ${one.name}: ${why}`);
      }
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  if (queue.length === 0 && counts.passed + counts.failed === 0) {
    // A filter that matches nothing must not look like a success.
    console.log("not ok selection: no check has that name");
    counts.failed += 1;
  }
  return counts;
}

/** Undefined when the check passed, else one line that says why it did not. */
async function outcome({ body, seconds }, left) {
  const limit = Math.min(seconds * 1000, left);
  const ending = new AbortController();
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`still running after ${limit / 1000} s`)), limit);
  });
  try {
    await Promise.race([body(ending.signal), late]);
    return undefined;
  } catch (error) {
    return reason(error);
  } finally {
    clearTimeout(timer);
    ending.abort();
  }
}

function reason(error) {
  const text = error instanceof Error ? error.message || error.name : String(error);
  const status = typeof error?.status === "number" ? ` (HTTP ${error.status})` : "";
  const line = `${text}${status}`.replace(/\s+/g, " ").trim();
  return line.length > 500 ? `${line.slice(0, 500)}…` : line;
}
