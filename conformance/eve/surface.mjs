// Health, inspection and credentials: what a client sees before it has a session.

import assert from "node:assert/strict";

import { clientOf, alice, carefulAlice, once, refused } from "./people.mjs";
import { check } from "./run.mjs";
import { agents } from "./settings.mjs";
import { call, session, stored } from "./wire.mjs";

check("health_body_passes_the_clients_strict_schema", async () => {
  const health = await alice.health();
  assert.equal(health.status, "ready");
});

check("health_needs_no_key_and_answers_head", async () => {
  const get = await call("GET", "/eve/v1/health", { key: null });
  assert.equal(get.status, 200);
  const head = await call("HEAD", "/eve/v1/health", { key: null });
  assert.equal(head.status, 200);
  assert.equal(head.text, "");
});

check("info_body_passes_the_clients_strict_schema", async () => {
  const info = await alice.info();
  assert.equal(info.kind, "eve-agent-info");
  assert.ok(info.agent.name.length > 0, "agent.name is empty");
});

check("info_shows_no_path_of_the_host", async () => {
  const text = JSON.stringify(await alice.info());
  const found = /"\/(home|root|usr|var|tmp|etc|opt|srv|work|proc|run|nix)\/[^"]*"/.exec(text);
  assert.ok(found === null, `info shows ${found?.[0]}`);
});

check("info_tells_which_tool_needs_approval", async () => {
  const tool = (info) => info.tools.static.find((one) => one.name === "write_file");
  assert.equal(tool(await carefulAlice.info())?.requiresApproval, true, `agent ${agents.careful}`);
});

check("info_without_or_with_a_wrong_key_is_401", async () => {
  for (const key of [null, "not-a-key"]) {
    const reply = await call("GET", "/eve/v1/info", { key });
    assert.equal(reply.status, 401, `with ${key === null ? "no" : "a wrong"} key`);
    assert.equal(reply.json?.code, "unauthorized");
    assert.equal(reply.json?.ok, false);
  }
});

check("wrong_key_is_401_as_the_client_sees_it", async () => {
  const control = await alice.sessions.create();
  const id = control.session.state.sessionId;
  const nobody = clientOf("not-a-key");
  const there = nobody.sessions.attach(id);
  const attempts = {
    info: () => nobody.info(),
    create: () => nobody.sessions.create({ message: "plain hello" }),
    send: () => there.send("plain hello"),
    respond: () => there.respond([{ requestId: "x", optionId: "approve" }]),
    cancel: () => there.cancel(),
    clear: () => there.clear(),
    compact: () => there.compact(),
    reset: () => there.reset(),
    stream: () => there.stream(once).next(),
    snapshot: () => there.snapshot(),
  };
  for (const [name, attempt] of Object.entries(attempts)) {
    const error = await refused(attempt(), 401);
    assert.equal(error.code, "unauthorized", name);
    assert.equal(error.message, "Authorization is required for this route.", name);
    assert.match(error.headers["www-authenticate"] ?? "", /^Bearer/, name);
    assert.equal(error.headers["cache-control"], "no-store", name);
  }
});

check("no_key_is_401_before_anything_is_looked_up", async () => {
  const { session: mine } = await alice.sessions.create();
  for (const id of [mine.state.sessionId, "wrun_00000000000000000000000000"]) {
    for (const action of ["", "/cancel", "/clear", "/compact", "/reset"]) {
      const reply = await call("POST", session(id, action), { key: null, body: { message: "plain hello" } });
      assert.equal(reply.status, 401, `POST ${action}`);
    }
    assert.equal((await stored(id, { key: null })).status, 401, "stream");
  }
});

check("an_unknown_route_is_404_and_not_a_crash", async () => {
  assert.equal((await call("GET", "/eve/v1/nothing-here")).status, 404);
  const { status } = await call("DELETE", "/eve/v1/session");
  assert.ok(status === 404 || status === 405, `DELETE answered ${status}`);
});

check("bad_bodies_are_400_with_the_known_words", async () => {
  const { session: mine } = await alice.sessions.create();
  const id = mine.state.sessionId;
  const create = "/eve/v1/session";
  const cases = [
    [create, "{", "Invalid JSON body."],
    [create, "[]", "Expected a JSON object."],
    [create, { message: "" }, "Expected 'message' to be non-empty when provided."],
    [create, { message: 5 }, "Expected 'message' to be a string or an array of text/file parts."],
    [create, { message: "x", continuationToken: "x" }, "Session-ID routes do not accept 'continuationToken'."],
    [create, { message: "x", inputResponses: [] }, "'inputResponses' is only accepted for an existing session."],
    [
      create,
      { clientContext: "x" },
      "Creating a session without a message does not accept 'clientContext', 'callback', or 'outputSchema'.",
    ],
    [session(id), {}, "Expected a non-empty 'message' or a non-empty 'inputResponses' array."],
    [session(id), { inputResponses: [] }, "Expected 'inputResponses' to be a non-empty array."],
    [
      session(id),
      { message: "x", inputResponses: [{ requestId: "x" }] },
      "'message' and 'inputResponses' are mutually exclusive.",
    ],
    [
      session(id),
      { inputResponses: [{ requestId: "x", extra: 1 }] },
      "Expected every 'inputResponses' entry to match the HITL response schema.",
    ],
    [session(id), { message: "x", turnPolicy: "now" }, "Expected 'turnPolicy' to be either 'queue' or 'steer'."],
    [session(id, "/cancel"), { turnId: "" }, "Expected 'turnId' to be a non-empty string."],
    [session(id, "/reset"), { reason: "" }, "Expected 'reason' to be a non-empty string."],
  ];
  for (const [path, body, words] of cases) {
    const reply = await call("POST", path, { body });
    assert.equal(reply.status, 400, `${JSON.stringify(body)} answered ${reply.status}`);
    assert.equal(reply.json?.ok, false);
    assert.equal(reply.json?.error, words);
  }
  const stream = await stored(id, { query: { startIndex: "x" } });
  assert.equal(stream.status, 400);
  assert.equal(stream.json?.error, "Expected startIndex to be an integer.");
});
