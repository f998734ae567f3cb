// Turns: what a message brings about, from the reply of the POST to the boundary.

import assert from "node:assert/strict";
import { once as emitted } from "node:events";
import { createServer } from "node:http";

import { EveAgentStore, createTextWithFileContent, defaultMessageReducer } from "eve/client";

import { all, checkStream, find, inOrder, outline, streamed, types, without } from "./events.mjs";
import { alice, bob, carefulAlice, firstTurn, nextTurn } from "./people.mjs";
import { check } from "./run.mjs";
import { keys } from "./settings.mjs";
import { call, marker, session, stored } from "./wire.mjs";

/** What the hooks of the frameworks make of a stream. */
const projected = (events) => {
  const reducer = defaultMessageReducer();
  return events.reduce((data, event) => reducer.reduce(data, event), reducer.initial()).messages;
};

check("create_and_follow_up_replies_are_as_documented", async () => {
  const created = await call("POST", "/eve/v1/session", { body: { message: "plain hello" } });
  assert.equal(created.status, 202);
  const id = created.json.sessionId;
  assert.deepEqual(created.json, { ok: true, sessionId: id, status: "accepted" });
  assert.equal(created.headers.get("x-eve-session-id"), id);
  assert.equal(created.headers.get("cache-control"), "no-store");
  await alice.sessions.attach(id).send("plain again").then((response) => response.result());
  const sent = await call("POST", session(id), { body: { message: "plain hello" } });
  assert.equal(sent.status, 202);
  assert.ok(sent.json.deliveryId?.length > 0, "no deliveryId");
  assert.deepEqual(sent.json, { ok: true, sessionId: id, status: "accepted", deliveryId: sent.json.deliveryId });
  assert.equal(sent.headers.get("x-eve-session-id"), id);
});

check("plain_turn", async () => {
  const word = marker();
  const turn = await firstTurn(alice, `plain ${word}`);
  assert.equal(turn.status, "waiting");
  assert.equal(turn.sessionId, turn.id);
  assert.deepEqual(outline(turn.events), [
    "session.started",
    "turn.started",
    "message.received",
    "step.started",
    "message.appended",
    "message.completed",
    "step.completed",
    "turn.completed",
    "session.waiting",
  ]);
  const received = find(turn.events, "message.received").data;
  assert.deepEqual(
    { message: received.message, parts: received.parts, sequence: received.sequence, turnId: received.turnId },
    { message: `plain ${word}`, parts: [{ type: "text", text: `plain ${word}` }], sequence: 0, turnId: "turn_0" },
  );
  const runtime = find(turn.events, "session.started").data.runtime;
  if (runtime !== undefined) {
    assert.equal(typeof runtime.agentId, "string");
    assert.equal(typeof runtime.eveVersion, "string");
  }
  const completed = find(turn.events, "message.completed").data;
  assert.equal(completed.finishReason, "stop");
  assert.equal(completed.message, streamed(turn.events));
  assert.equal(turn.message, completed.message);
  assert.ok(turn.message.length > 0, "an empty answer");
  assert.equal(find(turn.events, "session.waiting").data.continuationToken, turn.id);
});

check("a_follow_up_is_the_next_turn_and_carries_its_own_delivery", async () => {
  const first = await firstTurn(alice, "plain one");
  const ids = (events) => new Set(events.map((event) => JSON.stringify(event.meta.deliveryIds)));
  assert.equal(ids(first.events).size, 1, "the first turn's events differ in deliveryIds");
  const reply = await call("POST", session(first.id), { body: { message: "plain two" } });
  const { events } = await first.session.send("plain three", { turnPolicy: "queue" }).then((response) => response.result());
  const turn = checkStream(events);
  assert.equal(turn[0].type, "turn.started");
  assert.equal(turn[0].data.turnId, "turn_2", "the turn of the message between is missing");
  const every = (await stored(first.id)).events.filter((event) => event.data?.turnId === "turn_1");
  for (const event of every) assert.deepEqual(event.meta.deliveryIds, [reply.json.deliveryId], event.type);
  inOrder(every, ["turn.started", "message.received", "message.completed", "turn.completed"]);
});

check("tool_turn", async () => {
  const turn = await firstTurn(alice, "please use-bash");
  assert.equal(turn.status, "waiting");
  inOrder(turn.events, ["step.started", "actions.requested", "action.result", "step.started", "message.completed"]);
  const [action] = find(turn.events, "actions.requested").data.actions;
  assert.equal(action.kind, "tool-call");
  assert.equal(action.toolName, "bash");
  assert.deepEqual(action.input, { command: "echo hello-from-bash" });
  const { result, status } = find(turn.events, "action.result").data;
  assert.equal(status, "completed");
  assert.equal(result.callId, action.callId);
  assert.equal(result.kind, "tool-result");
  assert.equal(result.output.exitCode, 0);
  assert.equal(result.output.stdout, "hello-from-bash\n");
  assert.deepEqual(all(turn.events, "step.started").map((event) => event.data.stepIndex), [0, 1]);
  assert.equal(find(turn.events, "step.completed").data.finishReason, "tool-calls");
  const part = projected(turn.events).at(-1).parts.find((one) => one.toolCallId === action.callId);
  assert.equal(part.state, "output-available");
});

check("a_command_that_fails_is_a_result_and_not_a_failure", async () => {
  const turn = await firstTurn(alice, "please bash-exit-3");
  const { result, status } = find(turn.events, "action.result").data;
  assert.equal(status, "completed");
  assert.equal(result.output.exitCode, 3);
  assert.equal(result.output.stderr, "bad\n");
  assert.equal(turn.status, "waiting");
});

check("parallel_tools_run_in_one_step", async () => {
  const turn = await firstTurn(alice, "please parallel");
  const actions = all(turn.events, "actions.requested").flatMap((event) => event.data.actions);
  assert.deepEqual(actions.map((one) => one.input.command).sort(), ["echo one", "echo two"]);
  const results = all(turn.events, "action.result");
  assert.equal(results.length, 2);
  for (const { data } of results) {
    const { command } = actions.find((one) => one.callId === data.result.callId).input;
    assert.equal(data.result.output.stdout, `${command.slice(5)}\n`);
    assert.equal(data.stepIndex, 0);
  }
  assert.equal(turn.status, "waiting");
});

check("structured_turn_ends_in_a_result", async () => {
  const outputSchema = {
    type: "object",
    properties: { colour: { type: "string" }, count: { type: "number" } },
    required: ["colour", "count"],
    additionalProperties: false,
  };
  const turn = await firstTurn(alice, "please structured", { outputSchema });
  assert.deepEqual(turn.data, { colour: "red", count: 3 });
  inOrder(turn.events, ["step.started", "result.completed", "turn.completed", "session.waiting"]);
  const plain = await nextTurn(turn.session, "plain afterwards");
  assert.equal(plain.data, undefined, "the schema outlived its turn");
});

check("client_context_is_for_one_turn_and_never_on_the_stream", async () => {
  const turn = await firstTurn(alice, "recall", { clientContext: { page: "ctx-magenta" } });
  assert.equal(turn.message, "recalled ctx-magenta");
  const shown = turn.events.filter((event) => !event.type.startsWith("message.") || event.type === "message.received");
  assert.ok(!JSON.stringify(shown).includes("ctx-magenta"), "the context is on the stream");
  const next = await nextTurn(turn.session, "recall");
  assert.equal(next.message, "recalled nothing");
});

check("an_attachment_shows_as_metadata_and_reaches_the_sandbox", async () => {
  const bytes = new TextEncoder().encode("attached-content-7c1f");
  const file = { bytes, filename: "note.txt", mediaType: "text/plain" };
  const turn = await firstTurn(alice, createTextWithFileContent({ ...file, text: "please read-attachment" }));
  const { message, parts } = find(turn.events, "message.received").data;
  assert.equal(message, "please read-attachment\n[file: note.txt (text/plain)]");
  assert.deepEqual(parts, [
    { type: "text", text: "please read-attachment" },
    { type: "file", mediaType: "text/plain", filename: "note.txt", size: bytes.length },
  ]);
  const raw = (await stored(turn.id)).text;
  assert.ok(!raw.includes(Buffer.from(bytes).toString("base64")), "the bytes are on the stream");
  assert.match(find(turn.events, "action.result").data.result.output.stdout, /attached-content-7c1f/);
});

check("a_part_that_is_no_part_is_400", async () => {
  const cases = [
    [{ type: "text", text: "" }, "Text parts require a non-empty 'text' string."],
    [{ type: "file", data: "" }, "File parts require a non-empty 'mediaType' string."],
    [{ type: "file", mediaType: "text/plain" }, "File parts require a 'data' string (base64, data URL, or URL)."],
    [{ type: "image" }, "Unsupported message part type \"image\". Use 'text' or 'file'."],
  ];
  for (const [part, words] of cases) {
    const reply = await call("POST", "/eve/v1/session", { body: { message: [part] } });
    assert.equal(reply.status, 400);
    assert.equal(reply.json?.error, words);
  }
});

check("a_failed_model_call_is_told_and_shows_no_insides", async () => {
  const turn = await firstTurn(alice, "please fail");
  inOrder(turn.events, ["step.started", "step.failed", "turn.failed"]);
  const boundary = turn.events.at(-1).type;
  const { terminal } = find(turn.events, "turn.failed").data;
  assert.equal(boundary, terminal === true ? "session.failed" : "session.waiting");
  without(turn.events, ["turn.completed", "message.completed"]);
  const text = JSON.stringify(turn.events);
  assert.ok(!/\\n\s+at |\/(home|root|usr|work)\/|node_modules|src\/[a-z_]+\.rs/.test(text), "the stream shows a stack or a path");
});

check("prewarm_is_silent_until_the_first_message", async () => {
  const { session: warm } = await alice.sessions.create();
  const id = warm.state.sessionId;
  const empty = await stored(id);
  assert.equal(empty.status, 200);
  assert.equal(empty.headers.get("x-eve-stream-tail-index"), "-1");
  assert.deepEqual(empty.events, []);
  assert.deepEqual((await warm.snapshot()).events, []);
  const turn = await nextTurn(warm, "plain first");
  assert.deepEqual(types(turn.events).slice(0, 3), ["session.started", "turn.started", "message.received"]);
  assert.equal(find(turn.events, "turn.started").data.turnId, "turn_0");
});

check("the_same_operation_is_the_same_session", async () => {
  const operationId = marker();
  const create = (key) => call("POST", "/eve/v1/session", { key, body: { message: "plain once", operationId } });
  const [one, two] = await Promise.all([create(keys.a), create(keys.a)]);
  assert.equal(one.status, 202);
  assert.equal(two.status, 202);
  assert.equal(one.json.sessionId, two.json.sessionId, "at the same time");
  const mine = alice.sessions.attach(one.json.sessionId);
  await nextTurn(mine, "plain more", { turnPolicy: "queue" });
  assert.equal((await create(keys.a)).json.sessionId, one.json.sessionId, "later");
  assert.equal(all((await mine.snapshot()).events, "turn.started").length, 2, "a repetition ran a turn");
  const other = await create(keys.b);
  assert.equal(other.status, 202);
  assert.notEqual(other.json.sessionId, one.json.sessionId, "another person got the session");
});

check("the_store_behind_the_hooks_runs_turns_and_approvals", async () => {
  const store = new EveAgentStore({ client: carefulAlice, followIdle: false, reducer: defaultMessageReducer() });
  await store.send({ message: "plain hello" });
  assert.equal(store.snapshot.status, "ready", String(store.snapshot.error));
  assert.deepEqual(store.snapshot.data.messages.map((one) => one.role), ["user", "assistant"]);
  await store.send({ message: "please write-file gamma" });
  const open = Object.values(store.snapshot.conversation.inputs).filter((one) => one.status === "open");
  assert.equal(open.length, 1);
  const { requestId } = open[0].request;
  await store.send({ inputResponses: [{ requestId, optionId: "cancel" }] });
  assert.equal(store.snapshot.status, "ready", String(store.snapshot.error));
  const part = store.snapshot.data.messages.at(-1).parts.find((one) => one.approval?.id === requestId);
  assert.equal(part.state, "output-denied");
  const retired = await store.retire();
  assert.equal(retired.status, "reset");
});

check("a_callback_is_never_called_on_the_loopback", async () => {
  const calls = [];
  const listener = createServer((request, reply) => {
    calls.push(request.url);
    reply.end();
  });
  listener.listen(0, "127.0.0.1");
  await emitted(listener, "listening");
  try {
    const target = `http://127.0.0.1:${listener.address().port}/eve/v1/callback/token`;
    await fetch(target);
    assert.equal(calls.length, 1, "control: the listener listens");
    const callback = { url: target, token: "token", callId: "call_1", subagentName: "someone" };
    const reply = await call("POST", "/eve/v1/session", { body: { message: "plain hello", callback } });
    assert.ok([202, 400, 403].includes(reply.status), `answered ${reply.status}`);
    if (reply.status === 202) {
      await alice.sessions.attach(reply.json.sessionId).send("plain again").then((response) => response.result());
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    assert.equal(calls.length, 1, "the server called an address its caller chose");
  } finally {
    listener.close();
    listener.closeAllConnections();
  }
});

check("two_accounts_run_the_same_agent_side_by_side", async () => {
  const [left, right] = await Promise.all([firstTurn(alice, "please use-bash"), firstTurn(bob, "please use-bash")]);
  assert.notEqual(left.id, right.id);
  for (const turn of [left, right]) assert.equal(find(turn.events, "action.result").data.status, "completed");
});
