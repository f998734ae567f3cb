// The console in a real Chromium: a person sets a new server up on a phone, adds a second factor, decides
// an approval, and looks after users and logins; and a page of another origin gets nowhere.
//
// Settings: BAILIWICK_URL (http://localhost:PORT), BAILIWICK_SCREENSHOTS (a folder; none are kept without),
// CHROMIUM (the program; /usr/bin/chromium). Prints `ok NAME` or `not ok NAME: WHY`, and exits 1 on any.

import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import { mkdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const url = process.env.BAILIWICK_URL;
const shots = process.env.BAILIWICK_SCREENSHOTS;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const password = "correct horse battery";
const phone = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

if (shots) mkdirSync(shots, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});

const troubles = [];

/** A window whose console is watched: a violated policy or a thrown error is a failure. */
async function window(options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on("pageerror", (error) => troubles.push(`${page.url()}: ${error.message}`));
  page.on("console", (message) => {
    const text = message.text();
    // A page that was refused is what some checks ask for.
    if (message.type() === "error" && !/status of (400|401|403|404|409|429)/.test(text)) troubles.push(`${page.url()}: ${text}`);
  });
  page.setDefaultTimeout(30_000);
  return page;
}

/** What an authenticator app shows (RFC 6238). */
function code(secret, steps = 0) {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  let bits = "";
  for (const letter of secret.trim()) bits += alphabet.indexOf(letter).toString(2).padStart(5, "0");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => Number.parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps));
  const digest = createHmac("sha1", key).update(counter).digest();
  const at = digest[19] & 15;
  return String((digest.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}

/** Looks at the page as a person with needs would, and keeps a picture. */
async function look(page, name) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `${name} is ${wide} pixels wider than the screen`);
  if (shots) await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
  await page.evaluate(axe);
  for (const colorScheme of ["dark", "light"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    const found = await page.evaluate((tags) => globalThis.axe.run(document, { runOnly: tags }), tags);
    const grave = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
    const told = grave.map((one) => `${one.id}: ${one.nodes.map((node) => node.target).join(", ")}`);
    assert.deepEqual(told, [], `${name}, ${colorScheme}`);
    if (shots && colorScheme === "dark") await page.screenshot({ path: `${shots}/${name}-dark.png`, fullPage: true });
  }
}

async function signIn(page, user, secret, steps) {
  await page.goto(`${url}/login`);
  await page.getByLabel("User").fill(user);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  if (secret) {
    await page.getByLabel("Password").fill(password);
    await page.getByLabel("Code").fill(code(secret, steps));
    await page.getByRole("button", { name: "Sign in", exact: true }).click();
  }
  await page.getByRole("heading", { name: "Dashboard" }).waitFor();
}

const api = async (method, path, key, body) => {
  const headers = { "x-api-key": key, "content-type": "application/json", "x-bailiwick-agent": "careful" };
  const reply = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
  const text = await reply.text();
  assert.ok(reply.ok, `${method} ${path}: ${reply.status} ${text}`);
  return text ? JSON.parse(text) : undefined;
};

const person = await window(phone);
let secret;
let recovery;
let key;

const checks = {
  "i08 a new server is set up on a phone": async () => {
    await person.goto(`${url}/spaces`);
    await person.getByRole("link", { name: "Set it up" }).click();
    assert.equal(new URL(person.url()).pathname, "/setup");
    await look(person, "setup");
    await person.getByLabel("Your user name").fill("ann");
    await person.getByLabel("Password").fill(password);
    await person.getByRole("button", { name: "Make me the admin" }).click();
    await person.getByText("You are the admin").waitFor();
    await look(person, "login");
  },

  "i01 a login by keyboard alone": async () => {
    await person.keyboard.type("ann");
    await person.keyboard.press("Tab");
    await person.keyboard.type("wrong password");
    await person.keyboard.press("Enter");
    await person.getByRole("alert").getByText("Invalid username or password.").waitFor();
    assert.equal(await person.getByLabel("User").inputValue(), "ann");
    await person.getByLabel("Password").focus();
    await person.keyboard.type(password);
    await person.keyboard.press("Enter");
    await person.getByRole("heading", { name: "Dashboard" }).waitFor();
    const [cookie] = await person.context().cookies();
    assert.deepEqual([cookie.name, cookie.httpOnly, cookie.sameSite], ["vibe_session", true, "Lax"]);
    assert.equal(await person.evaluate(() => document.cookie), "");
    await person.keyboard.press("Tab");
    assert.equal(await person.evaluate(() => document.activeElement.textContent), "Skip to the content");
    await look(person, "dashboard");
  },

  "i05 an authenticator app is set up and asked for": async () => {
    await person.getByRole("link", { name: "Second factors" }).click();
    await look(person, "2fa");
    await person.locator("#password").fill(password);
    await person.getByRole("button", { name: "Set up an app" }).click();
    secret = await person.locator(".once").innerText();
    assert.ok(await person.locator(".qr svg").isVisible());
    await look(person, "2fa-begun");
    await person.getByLabel("The code that it shows now").fill(code(secret));
    await person.getByRole("button", { name: "Confirm" }).click();
    await person.getByRole("heading", { name: "Recovery codes" }).waitFor();
    recovery = await person.locator(".codes li").allInnerTexts();
    assert.equal(recovery.length, 10);
    await look(person, "2fa-codes");
    await person.getByRole("button", { name: "Sign out" }).click();
    await person.getByText("You are signed out.").waitFor();
    await person.getByLabel("User").fill("ann");
    await person.getByLabel("Password").fill(password);
    await person.getByRole("button", { name: "Sign in", exact: true }).click();
    await person.getByLabel("Code").waitFor();
    await look(person, "login-code");
    await person.getByLabel("Password").fill(password);
    await person.getByLabel("Code").fill("000000");
    await person.getByRole("button", { name: "Sign in", exact: true }).click();
    await person.getByRole("alert").getByText("This code is wrong").waitFor();
    await person.getByLabel("Password").fill(password);
    await person.getByLabel("Code").fill(recovery[0]);
    await person.getByRole("button", { name: "Sign in", exact: true }).click();
    await person.getByRole("heading", { name: "Dashboard" }).waitFor();
  },

  "i06 a passkey is made, and signs in after the password and alone": async () => {
    const cdp = await person.context().newCDPSession(person);
    await cdp.send("WebAuthn.enable", { enableUI: false });
    const like = { protocol: "ctap2", ctap2Version: "ctap2_1", transport: "internal", hasResidentKey: true };
    const options = { ...like, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true };
    const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", { options });
    await person.goto(`${url}/2fa`);
    await person.locator("#passkey-password").fill(password);
    await person.locator("#passkey-code").fill(recovery[2]);
    await person.getByRole("button", { name: "Add a passkey" }).click();
    await look(person, "passkey-begun");
    await person.getByLabel("What you call it").fill("this phone");
    await person.getByRole("button", { name: "Make the passkey" }).click();
    await person.getByText("The passkey is kept.").waitFor();
    await person.locator("strong", { hasText: "this phone" }).waitFor();
    await look(person, "2fa-passkey");
    const { credentials } = await cdp.send("WebAuthn.getCredentials", { authenticatorId });
    assert.deepEqual(credentials.map((one) => [one.rpId, one.isResidentCredential]), [["localhost", true]]);
    // The same authenticator makes no second one.
    await person.locator("#passkey-password").fill(password);
    await person.locator("#passkey-code").fill(recovery[3]);
    await person.getByRole("button", { name: "Add a passkey" }).click();
    await person.getByRole("button", { name: "Make the passkey" }).click();
    await person.getByRole("alert").getByText("has a passkey of yours already").waitFor();
    // After the password.
    await person.getByRole("button", { name: "Sign out" }).click();
    await person.getByLabel("User").fill("ann");
    await person.getByLabel("Password").fill(password);
    await person.getByRole("button", { name: "Sign in", exact: true }).click();
    await person.getByText("One more thing").waitFor();
    await look(person, "login-passkey");
    await person.getByRole("button", { name: "Use your passkey" }).click();
    await person.getByRole("heading", { name: "Dashboard" }).waitFor();
    // Alone, on the way to another page; not without a finger.
    await person.getByRole("button", { name: "Sign out" }).click();
    await person.goto(`${url}/devices`);
    await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: false });
    await person.getByRole("button", { name: "Sign in with a passkey" }).click();
    await person.getByRole("alert").getByText("Nothing was done").waitFor();
    await look(person, "login-cancelled");
    await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: true });
    await person.getByRole("button", { name: "Sign in with a passkey" }).click();
    await person.getByRole("heading", { name: "Devices" }).waitFor();
    // Taken away it opens nothing.
    await person.goto(`${url}/2fa`);
    await person.locator("summary", { hasText: "Remove this phone" }).click();
    const removal = person.locator("li", { hasText: "this phone" });
    await removal.getByLabel("Password").fill(password);
    await removal.getByLabel("Code").fill(recovery[1]);
    await removal.getByRole("button", { name: "Remove" }).click();
    await person.getByText("The passkey is removed.").waitFor();
    const other = await window(phone);
    const theirs = await other.context().newCDPSession(other);
    await theirs.send("WebAuthn.enable", { enableUI: false });
    const copy = await theirs.send("WebAuthn.addVirtualAuthenticator", { options });
    await theirs.send("WebAuthn.addCredential", { authenticatorId: copy.authenticatorId, credential: credentials[0] });
    await other.goto(`${url}/login`);
    await other.getByRole("button", { name: "Sign in with a passkey" }).click();
    await other.getByRole("alert").getByText("This passkey was not accepted.").waitFor();
    await other.context().close();
  },

  "i15 a key is made and shown once": async () => {
    await person.getByRole("link", { name: "API keys", exact: true }).click();
    await person.getByLabel("Name").fill("from the phone");
    await person.getByRole("button", { name: "Make", exact: true }).click();
    key = await person.locator(".once").innerText();
    assert.match(key, /^bwk_/);
    await look(person, "keys");
    await person.reload().catch(() => {});
    await person.goto(`${url}/keys`);
    assert.equal(await person.locator(".once").count(), 0);
  },

  "i09 a program is let in, and its application is ended": async () => {
    const program = createServer((_, reply) => reply.setHeader("content-type", "text/html").end("<p>back at the program</p>"));
    await new Promise((ready) => program.listen(0, "127.0.0.1", ready));
    const redirect = `http://127.0.0.1:${program.address().port}/callback`;
    const client = await (
      await fetch(`${url}/oauth/register`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ client_name: "Probe", redirect_uris: [redirect], token_endpoint_auth_method: "none" }),
      })
    ).json();
    const verifier = "a-verifier-that-is-long-enough-for-rfc-7636-and-more";
    const asked = {
      response_type: "code", client_id: client.client_id, redirect_uri: redirect, state: "s",
      code_challenge: createHash("sha256").update(verifier).digest("base64url"), code_challenge_method: "S256",
    };
    await person.goto(`${url}/oauth/authorize?${new URLSearchParams(asked)}`);
    await person.getByRole("heading", { name: "Let Probe act for you?" }).waitFor();
    await look(person, "consent");
    await person.getByLabel("only read what you can read").check();
    await person.getByRole("button", { name: "Allow" }).click();
    await person.getByText("back at the program").waitFor();
    const back = new URL(person.url());
    assert.equal(back.searchParams.get("state"), "s");
    const exchange = { grant_type: "authorization_code", code: back.searchParams.get("code"), redirect_uri: redirect, client_id: client.client_id, code_verifier: verifier };
    const made = await (await fetch(`${url}/oauth/token`, { method: "POST", body: new URLSearchParams(exchange) })).json();
    const me = () => fetch(`${url}/api/auth/me`, { headers: { authorization: `Bearer ${made.access_token}` } });
    assert.equal((await me()).status, 200);
    await person.goto(`${url}/applications`);
    await person.getByText("Probe").first().waitFor();
    await look(person, "applications");
    person.once("dialog", (dialog) => dialog.accept());
    await person.getByRole("button", { name: /End/ }).first().click();
    await person.locator(".notice.good").waitFor();
    assert.equal((await me()).status, 401);
    program.close();
  },

  "t04 an approval is decided from the phone": async () => {
    const tools = ["read_file", "write_file"];
    await api("PUT", "/api/v1/agents/careful", key, { tools, require_approval: ["write_file"], sandbox: { backend: "virtual" } });
    const session = await api("POST", "/eve/v1/session", key, { message: "write-file alpha" });
    for (let n = 0; ; n += 1) {
      await person.goto(`${url}/approvals`);
      if ((await person.getByRole("button", { name: "Approve" }).count()) > 0) break;
      assert.ok(n < 50, "no approval came");
      await person.waitForTimeout(100);
    }
    await person.getByText(session.sessionId).waitFor();
    await look(person, "approvals");
    await person.getByRole("button", { name: "Approve" }).click();
    await person.getByText("Approved. The call runs once.").waitFor();
    assert.equal(await person.getByRole("button", { name: "Approve" }).count(), 0);
  },

  "a02 a space is made and somebody is let in": async () => {
    await person.goto(`${url}/users`);
    await person.getByLabel("Name").fill("ben");
    await person.getByLabel("First password").fill(password);
    await person.getByRole("button", { name: "Add", exact: true }).click();
    await person.getByRole("heading", { name: "ben can begin" }).waitFor();
    await look(person, "users");
    await person.goto(`${url}/spaces`);
    await person.getByLabel("Name").fill("Garden");
    await person.getByRole("button", { name: "Make", exact: true }).click();
    await person.getByRole("heading", { name: "Garden", exact: true }).waitFor();
    await person.getByLabel("User").fill("nobody-of-that-name");
    await person.getByRole("button", { name: "Let in" }).click();
    await person.getByRole("alert").waitFor();
    await person.getByLabel("User").fill("ben");
    await person.getByRole("button", { name: "Let in" }).click();
    await person.getByRole("cell", { name: "ben" }).or(person.locator("td", { hasText: "ben" })).first().waitFor();
    await look(person, "space");
    for (const name of ["spaces", "agents", "usage", "settings", "devices"]) {
      await person.goto(`${url}/${name}`);
      await look(person, name);
    }
  },

  "i10 ending a login elsewhere ends it at once": async () => {
    const other = await window({ viewport: { width: 1280, height: 800 } });
    await signIn(other, "ann", secret, 1);
    await look(other, "desktop-dashboard");
    for (const name of ["users", "audit", "keys"]) {
      await other.goto(`${url}/${name}`);
      if (name === "audit") await other.getByText("live", { exact: true }).waitFor();
      await look(other, `desktop-${name}`);
    }
    await person.goto(`${url}/devices`);
    const row = person.locator("tbody tr", { hasNotText: "this one" }).first();
    await row.getByRole("button").click();
    await person.getByText("That login has ended.").waitFor();
    await other.goto(`${url}/spaces`);
    assert.equal(new URL(other.url()).pathname, "/login");
    await other.context().close();
  },

  "e02 the audit log is live": async () => {
    await person.goto(`${url}/audit`);
    await person.getByText("live", { exact: true }).waitFor();
    await look(person, "audit");
    await api("POST", "/api/v1/spaces", key, { name: "seen at once" });
    await person.locator("tr.new", { hasText: "space.create" }).waitFor();
    await person.getByLabel("Action").fill("auth.login");
    await person.getByRole("button", { name: "Show" }).click();
    await person.locator("tbody tr").first().waitFor();
    const actions = await person.locator('td[data-is="action"]').allInnerTexts();
    assert.ok(actions.length > 0 && actions.every((action) => action.startsWith("auth.login")), actions.join());
  },

  "r03 a member is led away from what is for admins": async () => {
    const member = await window({ ...phone, colorScheme: "dark" });
    await signIn(member, "ben");
    assert.equal(await member.getByRole("link", { name: "Users" }).count(), 0);
    await member.goto(`${url}/users`);
    await member.getByText("That page is for admins of this account.").waitFor();
    await member.context().close();
  },

  "i09 a page of another origin changes nothing": async () => {
    const names = async () => (await api("GET", "/api/v1/spaces", key)).result.map((space) => space.name);
    const before = await names();
    const form = `<form method="post" action="${url}/spaces"><input name="name" value="forged"></form>`;
    const script = "<script>document.forms[0].submit()</script>";
    const body = (path) => (path === "/" ? form + script : "<p>quiet</p>");
    const evil = createServer(({ url }, reply) => reply.setHeader("content-type", "text/html").end(body(url)));
    await new Promise((ready) => evil.listen(0, "127.0.0.1", ready));
    const { port } = evil.address();
    // The same site with another port, to which the cookie goes; and another site, to which it does not.
    for (const host of ["localhost", "127.0.0.1"]) {
      const [reply] = await Promise.all([
        person.waitForResponse((reply) => reply.request().method() === "POST" && reply.url() === `${url}/spaces`),
        person.goto(`http://${host}:${port}/`),
      ]);
      assert.ok([303, 403].includes(reply.status()), `${host}: ${reply.status()}`);
      assert.equal((await reply.allHeaders())["x-bailiwick-reason"] ?? "", host === "localhost" ? "cross_site" : "");
    }
    // Nor does a script of theirs read or write anything.
    await person.goto(`http://localhost:${port}/quiet`);
    const tried = await person.evaluate(async (url) => {
      const ask = (method) => fetch(`${url}/api/v1/spaces`, { method, credentials: "include", body: method === "POST" ? "{}" : undefined });
      const results = await Promise.allSettled([ask("GET"), ask("POST")]);
      return results.map((result) => result.status);
    }, url);
    assert.deepEqual(tried, ["rejected", "rejected"]);
    troubles.splice(0, troubles.length, ...troubles.filter((trouble) => !/CORS|Failed to load|net::ERR_FAILED/.test(trouble)));
    evil.close();
    assert.deepEqual(await names(), before);
    // The control: the same form from our own page.
    await person.goto(`${url}/spaces`);
    await person.getByLabel("Name").fill("not forged");
    await person.getByRole("button", { name: "Make", exact: true }).click();
    await person.getByRole("heading", { name: "not forged" }).waitFor();
  },

  "u01 the pages work without a script": async () => {
    const plain = await window({ ...phone, javaScriptEnabled: false });
    await signIn(plain, "ben");
    for (const name of ["spaces", "agents", "approvals", "audit", "usage", "keys", "devices", "2fa", "settings"]) {
      const reply = await plain.goto(`${url}/${name}`);
      assert.equal(reply.status(), 200, name);
    }
    await plain.context().close();
  },

  "u01 no policy was violated and nothing was thrown": async () => assert.deepEqual(troubles, []),
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`not ok ${name}: ${error.stack}`);
    if (shots) await person.screenshot({ path: `${shots}/failed-${failed}.png` }).catch(() => {});
    break;
  }
}
await browser.close();
process.exit(failed === 0 ? 0 : 1);
