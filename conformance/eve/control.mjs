// Steering, queueing, cancelling, and the controls of a session: clear, compact, reset.

import assert from "node:assert/strict";

import { all, checkStream, find, inOrder, outline, types, without } from "./events.mjs";
import { alice, firstTurn, nextTurn, readRest, readUntil } from "./people.mjs";
import { check } from "./run.mjs";
import { call, session, stored } from "./wire.mjs";

/** A running turn, read until an event of this kind. */
async function running(message, type) {
  const { session: mine, response } = await alice.sessions.create({ message });
  const iterator = response[Symbol.asyncIterator]();
  const begun = await readUntil(iterator, type);
  return { begun, id: mine.state.sessionId, iterator, mine, response };
}

/** Reads a session on from the client's cursor to the next boundary between turns. */
async function untilWaiting(mine) {
  const events = [];
  for await (const event of mine.stream()) {
    events.push(event);
    if (event.type === "session.waiting") return checkStream(events);
  }
  assert.fail("the stream ended without session.waiting");
}

check("cancel_while_text_streams", async () => {
  const turn = await running("slow please", "message.appended");
  assert.deepEqual(await turn.mine.cancel(), { sessionId: turn.id, status: "accepted" });
  const rest = await readRest(turn.iterator);
  assert.deepEqual(types(rest).slice(-2), ["turn.cancelled", "session.waiting"]);
  without(rest, ["turn.completed", "turn.failed", "message.completed"]);
  const next = await nextTurn(turn.mine, "plain afterwards");
  assert.equal(find(next.events, "turn.started").data.turnId, "turn_1");
  assert.equal(next.status, "waiting");
});

check("cancel_while_a_tool_runs", async () => {
  const turn = await running("slow-tool please", "actions.requested");
  const asked = Date.now();
  assert.equal((await turn.response.cancel()).status, "accepted");
  const rest = await readRest(turn.iterator);
  assert.deepEqual(types(rest).slice(-2), ["turn.cancelled", "session.waiting"]);
  without(rest, ["turn.completed", "message.completed"]);
  assert.ok(Date.now() - asked < 8000, "the command was waited for");
});

check("cancel_names_its_turn", async () => {
  const turn = await running("slow please", "message.appended");
  const stale = await call("POST", session(turn.id, "/cancel"), { body: { turnId: "turn_99" } });
  assert.ok([200, 202].includes(stale.status), `answered ${stale.status}`);
  const rest = await readRest(turn.iterator);
  without(rest, ["turn.cancelled"]);
  assert.deepEqual(types(rest).slice(-2), ["turn.completed", "session.waiting"]);
});

check("cancel_of_an_idle_session_harms_nothing", async () => {
  const turn = await firstTurn(alice, "plain hello");
  const { status } = await turn.session.cancel();
  assert.ok(["accepted", "no_active_turn"].includes(status));
  const next = await nextTurn(turn.session, "plain afterwards");
  assert.equal(next.message.length > 0, true);
});

check("a_message_before_the_answer_begins_steers_the_turn", async () => {
  const turn = await running("ponder please", "step.started");
  const second = (await turn.mine.send("plain second")).result();
  const rest = await readRest(turn.iterator);
  inOrder(rest, ["step.completed", "message.received", "step.started", "message.completed", "turn.completed", "session.waiting"]);
  assert.equal(find(rest, "step.completed").data.finishReason, "other");
  assert.equal(all(rest, "message.completed").length, 1, "the interrupted call answered too");
  without(rest, ["turn.started"]);
  assert.equal(find(rest, "message.received").data.turnId, "turn_0");
  const { events } = await second;
  assert.equal(events[0].type, "message.received");
  assert.equal(events[0].meta.deliveryIds.length, 2, "a steered turn belongs to both messages");
  assert.equal(events.at(-1).type, "session.waiting");
  assert.deepEqual(types(events), types(rest).slice(types(rest).indexOf("message.received")));
});

check("a_message_while_a_tool_runs_steers_after_it", async () => {
  const turn = await running("slow-tool please", "actions.requested");
  const second = (await turn.mine.send("plain second")).result();
  const rest = await readRest(turn.iterator);
  inOrder(rest, ["action.result", "message.received", "step.started", "message.completed", "turn.completed", "session.waiting"]);
  assert.equal(find(rest, "action.result").data.result.output.stdout, "late\n");
  without(rest, ["turn.started"]);
  assert.equal((await second).events.at(-1).type, "session.waiting");
});

// The queued one comes at a moment when it would have steered.
for (const [name, message, moment, options] of [
  ["a_message_while_the_answer_streams_is_the_next_turn", "slow please", "message.appended", {}],
  ["a_queued_message_is_the_next_turn", "ponder please", "step.started", { turnPolicy: "queue" }],
]) {
  check(name, async () => {
    const turn = await running(message, moment);
    const second = (await turn.mine.send("plain second", options)).result();
    const rest = await readRest(turn.iterator);
    without(rest, ["turn.started", "message.received"]);
    assert.deepEqual(types(rest).slice(-2), ["turn.completed", "session.waiting"]);
    const { events } = await second;
    assert.deepEqual(outline(checkStream(events)).slice(0, 3), ["turn.started", "message.received", "step.started"]);
    assert.equal(events[0].data.turnId, "turn_1");
    assert.equal(new Set(events.flatMap((event) => event.meta.deliveryIds)).size, 1);
  });
}

check("clear_forgets_the_history_and_keeps_the_session", async () => {
  const turn = await firstTurn(alice, "plain word-cobalt");
  assert.equal((await nextTurn(turn.session, "recall")).message, "recalled word-cobalt");
  assert.deepEqual(await turn.session.clear(), { sessionId: turn.id, status: "accepted" });
  const events = await untilWaiting(turn.session);
  inOrder(events, ["context.cleared", "session.waiting"]);
  assert.equal(find(events, "context.cleared").data.sessionId, turn.id);
  const after = await nextTurn(turn.session, "recall");
  assert.equal(after.message, "recalled nothing");
});

check("compact_is_accepted_and_the_session_goes_on", async () => {
  const turn = await firstTurn(alice, "plain one");
  await nextTurn(turn.session, "plain two");
  assert.deepEqual(await turn.session.compact(), { sessionId: turn.id, status: "accepted" });
  const events = await untilWaiting(turn.session);
  assert.ok(
    [["session.waiting"], ["compaction.requested", "compaction.completed", "session.waiting"]].some(
      (known) => JSON.stringify(known) === JSON.stringify(types(events)),
    ),
    types(events).join(" "),
  );
  const after = await nextTurn(turn.session, "plain three");
  assert.equal(find(after.events, "turn.started").data.turnId, "turn_2");
});

check("reset_ends_the_session_for_good", async () => {
  const turn = await firstTurn(alice, "plain hello");
  assert.deepEqual(await turn.session.reset({ reason: "done" }), { previousSessionId: turn.id, status: "reset" });
  assert.deepEqual(await turn.session.reset(), { status: "no_active_session" });
  const late = await call("POST", session(turn.id), { body: { message: "plain again" } });
  assert.ok([404, 409, 410].includes(late.status), `a message was answered ${late.status}`);
  if (late.status === 409) assert.equal(late.json.code, "session_not_active");
  assert.deepEqual(await turn.session.cancel(), { status: "no_active_turn" });
  assert.deepEqual(await turn.session.clear(), { status: "no_active_session" });
  assert.deepEqual(await turn.session.compact(), { status: "no_active_session" });
  const history = await stored(turn.id);
  assert.ok([200, 404, 410].includes(history.status), `the stream was ${history.status}`);
  if (history.status === 200) {
    // History that is kept must say that the session is over, or a client would wait for ever.
    assert.ok(["session.completed", "session.failed"].includes(history.events.at(-1)?.type), "kept, but not ended");
  }
});

check("reset_stops_a_running_turn", async () => {
  const turn = await running("slow please", "message.appended");
  assert.equal((await turn.mine.reset()).status, "reset");
  const late = await call("POST", session(turn.id), { body: { message: "plain again" } });
  assert.ok([404, 409, 410].includes(late.status), `a message was answered ${late.status}`);
  assert.deepEqual(await turn.mine.cancel(), { status: "no_active_turn" });
  await turn.iterator.return();
});
