// People of two accounts sign in to Bailiwick by a certified OpenID provider in a real Chromium, and its tokens
// come with requests.
//
// Settings: BAILIWICK_URL (http://localhost:PORT), BAILIWICK_ROOT_KEY, PROVIDER_URL, CHROMIUM (the program;
// /usr/bin/chromium). Prints `ok NAME` or `not ok NAME: WHY`, and exits 1 on any.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { chromium } from "playwright-core";

const url = process.env.BAILIWICK_URL;
const provider = process.env.PROVIDER_URL;
const resource = "https://bailiwick.example/api";
// Where the provider sends a program's person back to (RFC 8252: any port of the loopback).
const receiver = createServer((_, response) => response.end("back")).listen(0, "127.0.0.1");
await once(receiver, "listening");
const back = `http://127.0.0.1:${receiver.address().port}/callback`;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});
const troubles = [];

/** A window of somebody's own; a violated policy of ours is a failure. */
async function window() {
  const page = await (await browser.newContext()).newPage();
  page.on("console", (message) => {
    const ours = message.location().url.startsWith(url);
    if (ours && message.type() === "error" && !/status of (401|404)/.test(message.text())) troubles.push(message.text());
  });
  page.setDefaultTimeout(15_000);
  // What the provider's own pages bring from elsewhere is not needed here.
  await page.route(/fonts\.(googleapis|gstatic)\.com/, (route) => route.abort());
  return page;
}

const call = async (method, path, headers, body) => {
  const type = body ? { "content-type": "application/json" } : {};
  const reply = await fetch(url + path, { method, headers: { ...headers, ...type }, body: body && JSON.stringify(body) });
  const text = await reply.text();
  return { status: reply.status, body: text ? JSON.parse(text) : undefined };
};
const root = { "x-api-key": process.env.BAILIWICK_ROOT_KEY };
const me = (token) => call("GET", "/api/auth/me", { authorization: `Bearer ${token}` });

/** What a person does on the provider's own page. */
async function atProvider(page, name) {
  await page.waitForURL(`${provider}/interaction/**`);
  await page.locator("input[name=login]").fill(name);
  await page.locator("input[name=password]").fill("anything");
  await page.locator("button[type=submit]").click();
}

async function signIn(page, name) {
  await page.goto(`${url}/keys`);
  await page.getByRole("link", { name: "Sign in with The Test Provider" }).click();
  await atProvider(page, name);
}

/** The tokens of a program that this person lets act for them. */
async function tokens(page, alg, wanted) {
  const verifier = randomBytes(32).toString("base64url");
  const asked = new URLSearchParams({
    client_id: `program-${alg}`,
    response_type: "code",
    redirect_uri: back,
    scope: wanted ? "openid acct api" : "openid acct",
    nonce: "n",
    state: "s",
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
    ...(wanted && { resource: wanted }),
  });
  await page.goto(`${provider}/auth?${asked}`);
  // Alice is signed in there; a program on a machine is asked about each time.
  await page.waitForURL(`${provider}/interaction/**`);
  await page.locator("button[type=submit]").click();
  await page.waitForURL(`${back}**`);
  const code = new URL(page.url()).searchParams.get("code");
  const body = new URLSearchParams({
    grant_type: "authorization_code", code, redirect_uri: back, code_verifier: verifier, client_id: `program-${alg}`,
    ...(wanted && { resource: wanted }),
  });
  const reply = await fetch(`${provider}/token`, { method: "POST", body });
  assert.equal(reply.status, 200, await reply.clone().text());
  return reply.json();
}

const alice = await window();

const checks = {
  "two accounts with their people": async () => {
    for (const [account, admin] of [["acme", "alice"], ["globex", "bob"]]) {
      const made = await call("POST", "/api/v1/admin/accounts", root, { account_id: account, admin_user_id: admin });
      assert.equal(made.status, 200);
    }
    const told = await call("GET", "/api/auth/providers", {});
    assert.deepEqual(told.body.providers.map((one) => one.name), ["test"]);
  },

  "i12 people of both accounts sign in by the provider": async () => {
    const bob = await window();
    for (const [page, name, account] of [[alice, "alice", "acme"], [bob, "bob", "globex"]]) {
      await signIn(page, name);
      await page.waitForURL(`${url}/keys`);
      await page.getByText(`${name}@${account}`).first().waitFor();
      const cookies = await page.context().cookies(url);
      const kept = cookies.map((cookie) => [cookie.name, cookie.httpOnly, cookie.sameSite]);
      assert.deepEqual(kept, [["vibe_session", true, "Lax"]]);
      await page.goto(`${url}/devices`);
      await page.getByText("oidc:test").first().waitFor();
    }
  },

  "i12 whom the provider knows and this server does not gets no login": async () => {
    const mallory = await window();
    await signIn(mallory, "mallory");
    await mallory.getByRole("alert").getByText("this server does not").waitFor();
    await mallory.getByRole("link", { name: "Back to the login page" }).click();
    assert.deepEqual(await mallory.context().cookies(url), []);
  },

  "i12 whoever goes back at the provider is told what to do": async () => {
    const shy = await window();
    await shy.goto(`${url}/login`);
    await shy.getByRole("link", { name: "Sign in with The Test Provider" }).click();
    await shy.waitForURL(`${provider}/interaction/**`);
    await shy.getByRole("link", { name: "Cancel" }).click();
    await shy.getByRole("alert").getByText("did not sign you in").waitFor();
    assert.ok(!(await shy.content()).includes("access_denied"));
  },

  "i12 an answer is of use in no other browser, and not twice": async () => {
    const [thief, victim] = [await window(), await window()];
    await thief.goto(`${url}/login`);
    await thief.getByRole("link", { name: "Sign in with The Test Provider" }).click();
    await thief.waitForURL(`${provider}/interaction/**`);
    const kept = await thief.context().cookies(url);
    assert.deepEqual(kept.map((cookie) => [cookie.name, cookie.httpOnly]), [["bailiwick_flow", true]]);
    await thief.context().clearCookies({ name: "bailiwick_flow" });
    await atProvider(thief, "bob");
    await thief.getByRole("alert").getByText("another browser").waitFor();
    const answer = thief.url();
    assert.ok(answer.startsWith(`${url}/login/oidc/test/callback?code=`), answer);
    await victim.goto(answer);
    await victim.getByRole("alert").getByText("another browser").waitFor();
    // The control: with its cookie the same answer is good, once.
    await thief.context().addCookies(kept);
    await thief.goto(answer);
    await thief.getByRole("heading", { name: "Dashboard" }).waitFor();
    await thief.context().addCookies(kept);
    await thief.goto(answer);
    await thief.getByRole("alert").getByText("begin again").waitFor();
  },

  "i12 identity tokens of each algorithm come with requests": async () => {
    for (const alg of ["RS256", "PS384", "ES256", "EdDSA"]) {
      const { id_token: token } = await tokens(alice, alg);
      const told = await me(token);
      assert.deepEqual([told.status, told.body.username, told.body.account], [200, "alice", "acme"], alg);
      const [head, claims, signature] = token.split(".");
      const forged = Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(claims, "base64url")), account: "globex" }));
      assert.equal((await me(`${head}.${forged.toString("base64url")}.${signature}`)).status, 401, alg);
      const none = Buffer.from('{"alg":"none"}').toString("base64url");
      assert.equal((await me(`${none}.${claims}.`)).status, 401, alg);
    }
  },

  "i12 an access token for this server is taken (RFC 9068)": async () => {
    const { access_token: token } = await tokens(alice, "RS256", resource);
    assert.equal(JSON.parse(Buffer.from(token.split(".")[0], "base64url")).typ, "at+jwt");
    const told = await me(token);
    assert.deepEqual([told.status, told.body.username, told.body.account], [200, "alice", "acme"]);
    const foreign = await call("GET", "/api/v1/admin/accounts/globex/users", { authorization: `Bearer ${token}` });
    assert.equal(foreign.status, 404);
  },

  "i05 i06 i12 who has a passkey is asked for it after the provider, and by no program": async () => {
    const password = "correct horse battery";
    const carol = { user_id: "carol", password };
    assert.equal((await call("POST", "/api/v1/admin/accounts/acme/users", root, carol)).status, 200);
    const [own, free] = [await window(), await window()];
    const cdp = await own.context().newCDPSession(own);
    await cdp.send("WebAuthn.enable", { enableUI: false });
    const like = { protocol: "ctap2", ctap2Version: "ctap2_1", transport: "internal", hasResidentKey: true };
    const options = { ...like, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true };
    const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", { options });
    await signIn(own, "carol");
    await own.waitForURL(`${url}/keys`);
    const { id_token: before } = await tokens(own, "ES256");
    assert.equal((await me(before)).body.username, "carol", "the control");
    await own.goto(`${url}/2fa`);
    await own.locator("#passkey-password").fill(password);
    await own.getByRole("button", { name: "Add a passkey" }).click();
    await own.getByRole("button", { name: "Make the passkey" }).click();
    await own.getByRole("heading", { name: "Recovery codes" }).waitFor();
    await own.getByRole("button", { name: "Sign out" }).click();
    // The provider knows her still, and asks nothing. Here she is nobody until she shows the passkey.
    const again = async () => {
      await own.goto(`${url}/keys`);
      await own.getByRole("link", { name: "Sign in with The Test Provider" }).click();
      await own.waitForURL(`${url}/login/oidc/test/code`);
    };
    await again();
    const half = await own.context().cookies(url);
    assert.ok(!half.some((cookie) => cookie.name === "vibe_session"));
    await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: false });
    await own.getByRole("button", { name: "Use your passkey" }).click();
    await own.getByRole("alert").getByText("Nothing was done").waitFor();
    await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: true });
    await again();
    await own.getByRole("button", { name: "Use your passkey" }).click();
    await own.waitForURL(`${url}/keys`);
    await own.getByText("carol@acme").first().waitFor();
    // Whoever has her account at the provider and not her passkey stays outside, by each door.
    await signIn(free, "carol");
    await free.waitForURL(`${url}/login/oidc/test/code`);
    await free.goto(`${url}/keys`);
    await free.getByRole("heading", { name: "Sign in" }).waitFor();
    for (const token of [before, (await tokens(own, "ES256")).id_token]) assert.equal((await me(token)).status, 401);
  },

  "no page of ours broke its own rules": async () => assert.deepEqual(troubles, []),
};

let failed = false;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`not ok ${name}: ${error.stack}`);
    failed = true;
    break;
  }
}
await browser.close();
process.exit(failed ? 1 : 0);
