// Two accounts. Everything of A's that B can name is 404 for B, in the same words as an id that
// never existed, and leaves no trace in A's session. Each refusal has its control: the same call
// by A works.

import assert from "node:assert/strict";

import { types } from "./events.mjs";
import { alice, bob, firstTurn, nextTurn, once, refused } from "./people.mjs";
import { check } from "./run.mjs";
import { keys } from "./settings.mjs";
import { attempt, call, chunks, marker, nearby, session, stored } from "./wire.mjs";

/** A session of A with a secret word in it, after one turn. */
async function mine() {
  const word = marker();
  return { ...(await firstTurn(alice, `plain ${word}`)), word };
}

/** What is left of a refusal when ids and times are taken out. */
const shape = ({ status, headers, text }) => ({
  status,
  text: text.replace(/[0-9A-Za-z_-]{16,}/g, "ID"),
  headers: [...headers.keys()].filter((name) => name !== "date" && name !== "content-length").sort(),
});

/** B's call on A's session must look like B's call on no session at all. */
async function hidden(turn, method, path, body) {
  const foreign = await attempt(method, path(turn.id), { key: keys.b, body });
  const unknown = await attempt(method, path(nearby(turn.id)), { key: keys.b, body });
  assert.equal(foreign.status, 404, `${method} ${path(":id").replace("%3A", ":")}`);
  assert.deepEqual(shape(foreign), shape(unknown), "a foreign id and an unknown id are told apart");
  assert.ok(!foreign.text.includes(turn.word), "the refusal shows what A wrote");
}

/** A's session is as it was, and goes on. */
async function untouched(turn) {
  const { events } = await turn.session.snapshot();
  assert.deepEqual(events, turn.events, `B left a trace: ${types(events).join(" ")}`);
  const next = await nextTurn(turn.session, "plain afterwards");
  assert.equal(next.events[0].data.turnId, "turn_1");
}

check("b_cannot_read_a_s_stream", async () => {
  const turn = await mine();
  for (const query of ["", "?follow=false", "?startIndex=-1", "?includeTailIndex=1&streamControlVersion=1"]) {
    await hidden(turn, "GET", (id) => session(id, `/stream${query}`));
  }
  await refused(bob.sessions.attach(turn.id).stream(once).next(), 404);
  assert.equal((await stored(turn.id)).events.length, turn.events.length, "control: A reads it");
  await untouched(turn);
});

check("b_cannot_read_a_running_turn_of_a", async () => {
  const { session: running, response } = await alice.sessions.create({ message: "slow please" });
  const reading = response.result();
  await refused(bob.sessions.attach(running.state.sessionId).stream(once).next(), 404);
  for await (const chunk of chunks(running.state.sessionId)) {
    if (chunk.text.includes("turn.started")) break;
  }
  assert.equal((await reading).status, "waiting");
});

check("b_cannot_send_to_a_s_session", async () => {
  const turn = await mine();
  await hidden(turn, "POST", session, { message: "plain from B" });
  await hidden(turn, "POST", session, { message: "plain from B", turnPolicy: "queue" });
  await refused(bob.sessions.attach(turn.id).send("plain from B"), 404);
  await untouched(turn);
});

check("b_cannot_respond_in_a_s_session", async () => {
  const turn = await mine();
  await hidden(turn, "POST", session, { inputResponses: [{ requestId: "x", optionId: "approve" }] });
  await refused(bob.sessions.attach(turn.id).respond([{ requestId: "x", optionId: "approve" }]), 404);
  await untouched(turn);
});

check("b_cannot_cancel_a_s_turn", async () => {
  const { session: running, response } = await alice.sessions.create({ message: "slow please" });
  const id = running.state.sessionId;
  const reading = response.result();
  for await (const chunk of chunks(id)) {
    if (chunk.text.includes("message.appended")) break;
  }
  await hidden({ id, word: "slow please" }, "POST", (one) => session(one, "/cancel"), {});
  await hidden({ id, word: "slow please" }, "POST", (one) => session(one, "/cancel"), { turnId: "turn_0" });
  await refused(bob.sessions.attach(id).cancel(), 404);
  const { events } = await reading;
  assert.deepEqual(types(events).slice(-2), ["turn.completed", "session.waiting"], "B's cancel had an effect");
});

for (const action of ["clear", "compact", "reset"]) {
  check(`b_cannot_${action}_a_s_session`, async () => {
    const turn = await mine();
    await hidden(turn, "POST", (id) => session(id, `/${action}`), {});
    await refused(bob.sessions.attach(turn.id)[action](), 404);
    await untouched(turn);
    assert.ok(["accepted", "reset"].includes((await turn.session[action]()).status), "control: A may");
  });
}

check("b_cannot_reach_what_hangs_on_a_s_session", async () => {
  const turn = await mine();
  await hidden(turn, "GET", (id) => session(id, "/stubs"));
  await hidden(turn, "GET", (id) => session(id, `/subagents/call_1/${turn.id}/stream`));
});

check("b_cannot_reach_a_s_session_by_saying_so", async () => {
  const turn = await mine();
  const claims = {
    callback: { url: "http://127.0.0.1:1/eve/v1/callback/x", token: "x", callId: "x", subagentName: "x" },
    forwardedPrincipal: { current: { principalId: "a", principalType: "user", authenticator: "x", attributes: {} } },
  };
  for (const [name, value] of Object.entries(claims)) {
    const reply = await call("POST", session(turn.id), { key: keys.b, body: { message: "plain from B", [name]: value } });
    assert.ok([400, 403, 404].includes(reply.status), `${name} answered ${reply.status}`);
    assert.ok(!reply.text.includes(turn.word));
  }
  await untouched(turn);
});

check("nothing_of_a_is_in_what_b_may_read", async () => {
  const turn = await mine();
  const theirs = await firstTurn(bob, "plain hello");
  const seen = JSON.stringify([await bob.info(), (await theirs.session.snapshot()).events]);
  assert.ok(!seen.includes(turn.id), "A's session id");
  assert.ok(!seen.includes(turn.word), "A's words");
  assert.ok(JSON.stringify((await turn.session.snapshot()).events).includes(turn.word), "control: A sees them");
});
