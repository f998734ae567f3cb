// Approvals and questions: the turn stays open, the right person's answer continues it, and
// nothing runs before that.

import assert from "node:assert/strict";

import { all, checkStream, find, inOrder, types, without } from "./events.mjs";
import { alice, bob, carefulAlice, clientOf, firstTurn, nextTurn, refused } from "./people.mjs";
import { check } from "./run.mjs";
import { agents, keys } from "./settings.mjs";
import { call, session, stored } from "./wire.mjs";

/** A turn of the careful agent that waits for the approval of one write_file call. */
async function waiting(name) {
  const turn = await firstTurn(carefulAlice, `please write-file ${name}`);
  assert.equal(turn.status, "waiting");
  assert.equal(turn.events.at(-1).type, "turn.waiting");
  assert.equal(turn.inputRequests.length, 1);
  return { ...turn, request: turn.inputRequests[0] };
}

async function answer(turn, response) {
  const result = await (await turn.session.respond([{ requestId: turn.request.requestId, ...response }])).result();
  checkStream(result.events);
  return result;
}

/** What a file in the sandbox holds, seen by a tool that needs no approval. */
async function fileText(mine, name) {
  const turn = await nextTurn(mine, `please show-file ${name}`);
  return find(turn.events, "action.result").data.result.output;
}

check("an_approval_holds_the_turn_open", async () => {
  const turn = await waiting("held");
  inOrder(turn.events, ["actions.requested", "step.completed", "input.requested", "turn.waiting"]);
  without(turn.events, ["action.result", "turn.completed", "session.waiting"]);
  assert.equal(find(turn.events, "turn.waiting").data.on, "input");
  assert.equal(turn.request.kind, "tool-approval");
  assert.equal(turn.request.display, "confirmation");
  assert.equal(turn.request.allowFreeform, false);
  assert.deepEqual(turn.request.options.map((one) => one.id), ["approve", "cancel"]);
  assert.equal(turn.request.action.kind, "tool-call");
  assert.equal(turn.request.action.toolName, "write_file");
  assert.deepEqual(turn.request.action.input, { path: "/workspace/held.txt", content: "held content" });
  assert.ok(turn.request.prompt.length > 0);
  const { events } = await turn.session.snapshot();
  assert.equal(events.at(-1).type, "turn.waiting");
});

check("an_approved_call_runs", async () => {
  const turn = await waiting("alpha");
  const result = await answer(turn, { optionId: "approve" });
  inOrder(result.events, ["approval.settled", "input.resolved", "action.result", "message.completed", "turn.completed"]);
  assert.equal(find(result.events, "approval.settled").data.outcome, "approved");
  assert.deepEqual(find(result.events, "input.resolved").data.resolutions, [
    {
      kind: "tool-approval",
      outcome: "approved",
      requestId: turn.request.requestId,
      response: { optionId: "approve", requestId: turn.request.requestId },
    },
  ]);
  const done = find(result.events, "action.result").data;
  assert.equal(done.status, "completed", JSON.stringify(done));
  assert.equal(done.result.callId, turn.request.action.callId);
  for (const event of result.events) {
    if (event.data.turnId !== undefined) assert.equal(event.data.turnId, "turn_0", event.type);
  }
  assert.match((await fileText(turn.session, "alpha")).stdout, /^alpha content/);
});

check("a_denied_call_does_not_run", async () => {
  const turn = await waiting("denied");
  const result = await answer(turn, { optionId: "cancel" });
  inOrder(result.events, ["approval.settled", "input.resolved", "action.result", "step.started", "turn.completed"]);
  assert.equal(find(result.events, "approval.settled").data.outcome, "cancelled");
  assert.equal(find(result.events, "input.resolved").data.resolutions[0].outcome, "denied");
  const { error, result: refusal, status } = find(result.events, "action.result").data;
  assert.equal(status, "rejected");
  assert.equal(error.code, "TOOL_EXECUTION_DENIED");
  assert.equal(refusal.callId, turn.request.action.callId);
  assert.equal(refusal.isError, true);
  // The check of an approved call reads its file in the same way and finds it.
  assert.notEqual((await fileText(turn.session, "denied")).exitCode, 0, "the file was written");
});

check("an_approval_may_be_typed", async () => {
  const turn = await waiting("typed");
  const result = await nextTurn(turn.session, "Approve");
  inOrder(result.events, ["approval.settled", "input.resolved", "action.result", "turn.completed", "session.waiting"]);
  assert.equal(find(result.events, "approval.settled").data.outcome, "approved");
  assert.notEqual(find(result.events, "action.result").data.status, "rejected");
});

check("another_message_withdraws_the_approval", async () => {
  const turn = await waiting("ignored");
  const result = await nextTurn(turn.session, "plain never mind");
  inOrder(result.events, ["input.resolved", "action.result", "message.received", "message.completed", "session.waiting"]);
  assert.equal(find(result.events, "input.resolved").data.resolutions[0].outcome, "ignored");
  assert.equal(find(result.events, "action.result").data.status, "rejected");
  assert.equal(find(result.events, "message.received").data.turnId, "turn_0");
  without(result.events, ["approval.settled"]);
});

check("cancelling_the_turn_withdraws_the_approval", async () => {
  const turn = await waiting("withdrawn");
  assert.equal((await turn.session.cancel()).status, "accepted");
  const events = [];
  for await (const event of turn.session.stream()) {
    events.push(event);
    if (event.type === "session.waiting") break;
  }
  checkStream(events);
  inOrder(events, ["input.resolved", "turn.cancelled", "session.waiting"]);
  assert.equal(events[0].data.resolutions[0].outcome, "cancelled");
  const late = await call("POST", session(turn.id), {
    agent: agents.careful,
    body: { inputResponses: [{ requestId: turn.request.requestId, optionId: "approve" }] },
  });
  assert.ok(late.status < 500, `a late answer was ${late.status}`);
  assert.notEqual((await fileText(turn.session, "withdrawn")).exitCode, 0, "a withdrawn call ran");
});

check("an_answer_given_twice_runs_the_call_once", async () => {
  const turn = await waiting("twice");
  const body = { inputResponses: [{ requestId: turn.request.requestId, optionId: "approve" }] };
  const replies = await Promise.all([0, 1].map(() => call("POST", session(turn.id), { agent: agents.careful, body })));
  for (const reply of replies) assert.ok([202, 409].includes(reply.status), `answered ${reply.status}`);
  await nextTurn(turn.session, "plain afterwards");
  const { events } = await stored(turn.id, { agent: agents.careful });
  const results = all(events, "action.result").filter(({ data }) => data.result.callId === turn.request.action.callId);
  assert.equal(results.length, 1);
  assert.equal(all(events, "approval.settled").length, 1);
});

check("a_question_takes_an_option", async () => {
  const turn = await firstTurn(alice, "please ask");
  assert.equal(turn.events.at(-1).type, "turn.waiting");
  assert.equal(turn.events.at(-1).data.on, "input");
  const [request] = turn.inputRequests;
  assert.equal(request.kind, "question");
  assert.equal(request.prompt, "Which colour?");
  assert.equal(request.display, "select");
  assert.equal(request.allowFreeform, true);
  assert.deepEqual(request.options.map((one) => one.label), ["Red", "Blue"]);
  assert.equal(request.action.toolName, "ask_question");
  const result = await answer({ ...turn, request }, { optionId: request.options[1].id });
  inOrder(result.events, ["input.resolved", "action.result", "step.started", "turn.completed", "session.waiting"]);
  assert.equal(find(result.events, "input.resolved").data.resolutions[0].outcome, "answered");
  assert.deepEqual(find(result.events, "action.result").data.result.output, { status: "answered", answer: "Blue" });
});

check("a_question_takes_ones_own_words", async () => {
  const turn = await firstTurn(alice, "please ask");
  const result = await answer({ ...turn, request: turn.inputRequests[0] }, { text: "rather green" });
  assert.deepEqual(find(result.events, "action.result").data.result.output, { status: "answered", answer: "rather green" });
});

check("a_message_answers_the_open_question", async () => {
  const turn = await firstTurn(alice, "please ask");
  const result = await nextTurn(turn.session, "red");
  assert.equal(find(result.events, "action.result").data.result.output.answer, "Red");
});

check("another_tenants_answer_is_404_and_the_request_stays_open", async () => {
  const turn = await waiting("foreign");
  const theirs = clientOf(keys.b, agents.careful).sessions.attach(turn.id);
  for (const optionId of ["approve", "cancel"]) {
    await refused(theirs.respond([{ requestId: turn.request.requestId, optionId }]), 404);
    await refused(theirs.send(optionId), 404);
  }
  await refused(bob.sessions.attach(turn.id).cancel(), 404);
  const before = await turn.session.snapshot();
  assert.equal(before.events.at(-1).type, "turn.waiting");
  assert.deepEqual(types(before.events), types(turn.events), "a foreign attempt left events");
  const result = await answer(turn, { optionId: "approve" });
  assert.equal(find(result.events, "approval.settled").data.outcome, "approved");
  assert.notEqual(find(result.events, "action.result").data.status, "rejected");
});

if (keys.a2 === undefined) {
  console.log("# not run: another_person_of_the_account_cannot_approve (BAILIWICK_KEY_A2 is not set)");
} else {
  check("another_person_of_the_account_cannot_approve", async () => {
    const turn = await waiting("colleague");
    const body = { inputResponses: [{ requestId: turn.request.requestId, optionId: "approve" }] };
    const reply = await call("POST", session(turn.id), { key: keys.a2, agent: agents.careful, body });
    assert.ok([202, 403, 404].includes(reply.status), `answered ${reply.status}`);
    const events = [];
    if (reply.status === 202) {
      // The original accepts the POST and answers on the stream; the request stays open.
      for await (const event of turn.session.stream()) {
        events.push(event);
        if (event.type === "turn.waiting") break;
      }
      assert.match(find(events, "message.completed")?.data.message ?? "", /^Only the person who requested this action/);
    }
    without((await turn.session.snapshot()).events, ["approval.settled", "input.resolved", "action.result"]);
    const result = await answer(turn, { optionId: "approve" });
    assert.equal(find(result.events, "approval.settled").data.outcome, "approved");
  });
}
