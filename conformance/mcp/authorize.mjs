// The suite's `authorization` command against a running server, and the person whom it asks to sign in and
// to consent. Settings and what they mean: README.md.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

const url = process.env.BAILIWICK_URL;
const suite = new URL("node_modules/@modelcontextprotocol/conformance/dist/index.js", import.meta.url).pathname;

/** A port that nobody has just now. */
async function freePort() {
  const server = createServer();
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

/** The value of a page's hidden field. */
function field(page, name) {
  const found = new RegExp(`name="${name}" value="([^"]*)"`).exec(page);
  const signs = (text) => text.replace(/&#(\d+);/g, (_, n) => String.fromCharCode(n));
  return found ? signs(found[1]) : undefined;
}

/** Signs in and consents, as the pages' own forms do. Gives the address to which the browser is sent. */
async function consent(address) {
  const send = (path, cookie, form) =>
    fetch(new URL(path, url), {
      method: form ? "POST" : "GET",
      redirect: "manual",
      headers: cookie ? { cookie } : {},
      body: form && new URLSearchParams(form),
    });
  const asked = address.slice(url.length);
  const led = await send(asked);
  assert.equal(led.status, 303, "whoever is not signed in is led to the login page");
  const next = new URL(led.headers.get("location"), url).searchParams.get("next");
  assert.equal(next, asked);
  const form = { username: process.env.BAILIWICK_USER, password: process.env.BAILIWICK_PASSWORD, next };
  const signedIn = await send("/login", undefined, form);
  assert.equal(signedIn.headers.get("location"), asked);
  const cookie = signedIn.headers.get("set-cookie").split(";")[0];
  const page = await (await send(asked, cookie)).text();
  const names = [
    "_csrf", "response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge",
    "code_challenge_method", "resource",
  ];
  const fields = names.map((name) => [name, field(page, name)]).filter(([, value]) => value !== undefined);
  const back = await send("/oauth/authorize", cookie, { ...Object.fromEntries(fields), may: "write", decision: "allow" });
  assert.equal(back.status, 303, await back.text());
  return back.headers.get("location");
}

const port = await freePort();
const words = ["authorization", "--url", url, "--client-id", process.env.BAILIWICK_CLIENT, "-p", String(port)];
const child = spawn(process.execPath, [suite, ...words], { stdio: ["ignore", "pipe", "inherit"] });
let consents = 0;
const lines = [];
for await (const line of createInterface({ input: child.stdout })) {
  console.log(line);
  lines.push(line);
  if (line.trim().startsWith(`${url}/oauth/authorize?`)) {
    consents += 1;
    await fetch(await consent(line.trim()));
  }
}
const code = child.exitCode ?? (await new Promise((ended) => child.on("exit", ended)));
assert.equal(code, 0, `the suite ended with ${code}`);
assert.equal(consents, 1, "the suite asked for no consent: the scenario of codes was left out");
console.log("ok the suite is content");
