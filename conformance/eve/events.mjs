// What an event must look like. The client itself checks only the three append events; the hooks,
// the reducers and everyone's own code read the rest, so all of it is checked here, on every event
// of every stream the checks read.

import assert from "node:assert/strict";

const at = { sequence: "number", turnId: "string" };
const step = { ...at, stepIndex: "number" };

const fields = {
  "session.started": {},
  "turn.started": at,
  "message.received": { ...at, message: "string" },
  "step.started": { ...step, modelId: "string" },
  "reasoning.appended": { ...step, reasoningDelta: "string" },
  "reasoning.completed": { ...step, reasoning: "string" },
  "message.appended": { ...step, messageDelta: "string" },
  "message.completed": { ...step, message: "string", finishReason: "string" },
  "action.input.appended": { ...step, callId: "string", toolName: "string", inputTextDelta: "string" },
  "actions.requested": { ...step, actions: "array" },
  "action.partial": { ...step, result: "object" },
  "action.result": { ...step, result: "object", status: "string" },
  "input.requested": { ...step, requests: "array" },
  "input.resolved": { ...step, resolutions: "array" },
  "approval.candidate": { ...step, candidateId: "string", requestId: "string", outcome: "string" },
  "approval.settled": { ...step, requestId: "string", responderPrincipalId: "string", outcome: "string" },
  "authorization.required": { ...step, name: "string", description: "string" },
  "authorization.completed": { ...step, name: "string", outcome: "string" },
  "task.started": { callId: "string", kind: "string", name: "string", taskId: "string", turnId: "string" },
  "task.settled": { callId: "string", status: "string", taskId: "string", turnId: "string" },
  "agent.started": { callId: "string", name: "string", sessionId: "string", streamPath: "string", turnId: "string" },
  "result.completed": { ...step },
  "step.completed": { ...step, finishReason: "string" },
  "step.failed": { ...step, code: "string", message: "string" },
  "turn.waiting": { ...at, on: "string" },
  "turn.completed": at,
  "turn.cancelled": at,
  "turn.failed": { ...at, code: "string", message: "string" },
  "compaction.requested": { ...step, modelId: "string", sessionId: "string" },
  "compaction.completed": { ...step, modelId: "string", sessionId: "string" },
  "context.cleared": { ...at, sessionId: "string" },
  "session.waiting": { continuationToken: "string", wait: "string" },
  "session.failed": { code: "string", message: "string", sessionId: "string" },
  "session.completed": undefined,
};

// Fields of older stream versions. With version 26 the client refuses an event that has them.
const gone = {
  "message.appended": ["messageOffset", "messageSoFar"],
  "reasoning.appended": ["reasoningOffset", "reasoningSoFar"],
  "action.input.appended": ["inputTextOffset"],
};

const kindOf = (value) => (Array.isArray(value) ? "array" : value === null ? "null" : typeof value);

/** Checks one event by itself. */
export function checkEvent(event) {
  assert.ok(Object.hasOwn(fields, event.type), `unknown event type ${event.type}`);
  assert.match(event.meta?.id ?? "", /^evt_[0-9A-HJKMNP-TV-Z]{26}$/, `${event.type}: meta.id`);
  assert.ok(/^\d{4}-\d\d-\d\dT.*Z$/.test(event.meta?.at ?? ""), `${event.type}: meta.at`);
  const wanted = fields[event.type];
  if (wanted === undefined) return;
  assert.equal(kindOf(event.data), "object", `${event.type}: data`);
  for (const [name, kind] of Object.entries(wanted)) {
    assert.equal(kindOf(event.data[name]), kind, `${event.type}: data.${name}`);
  }
  for (const name of gone[event.type] ?? []) {
    assert.ok(!(name in event.data), `${event.type}: data.${name} belongs to an older version`);
  }
  checkParts(event);
}

function checkParts({ type, data }) {
  if (type === "actions.requested") {
    for (const action of data.actions) {
      assert.equal(typeof action.callId, "string", `${type}: callId`);
      assert.equal(typeof action.kind, "string", `${type}: kind`);
      assert.equal(kindOf(action.input), "object", `${type}: input`);
      if (action.kind === "tool-call") assert.equal(typeof action.toolName, "string", `${type}: toolName`);
    }
  } else if (type === "action.result") {
    assert.equal(typeof data.result.callId, "string", `${type}: result.callId`);
    assert.equal(typeof data.result.kind, "string", `${type}: result.kind`);
    assert.ok("output" in data.result, `${type}: result.output`);
    assert.ok(["completed", "failed", "rejected"].includes(data.status), `${type}: status ${data.status}`);
    if (data.status !== "completed") {
      assert.equal(typeof data.error?.code, "string", `${type}: error.code`);
      assert.equal(typeof data.error?.message, "string", `${type}: error.message`);
    }
  } else if (type === "turn.waiting") {
    assert.ok(["input", "tasks"].includes(data.on), `${type}: on ${data.on}`);
  } else if (type === "session.waiting") {
    assert.equal(data.wait, "next-user-message", `${type}: wait`);
  }
  if (["turn.waiting", "session.waiting", "session.failed"].includes(type) && data.usage !== undefined) {
    for (const name of ["inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens"]) {
      assert.equal(typeof data.usage[name], "number", `${type}: usage.${name}`);
    }
  }
}

/** Checks a whole stream: each event, no id twice, no event before the one it follows. */
export function checkStream(events) {
  const seen = new Set();
  let last = "";
  for (const event of events) {
    checkEvent(event);
    assert.ok(!seen.has(event.meta.id), `meta.id ${event.meta.id} occurs twice`);
    assert.ok(event.meta.id > last, `${event.type}: meta.id is not in order`);
    seen.add(event.meta.id);
    last = event.meta.id;
  }
  return events;
}

export const types = (events) => events.map((event) => event.type);
export const find = (events, type) => events.find((event) => event.type === type);
export const all = (events, type) => events.filter((event) => event.type === type);

// Present or absent as the model and the provider please; never a reason to fail.
const optional = /^(reasoning\.|action\.input\.|action\.partial|task\.|approval\.candidate)/;

/** The kinds of event in order, runs of deltas as one, optional kinds left out. */
export function outline(events) {
  const out = [];
  for (const type of types(events)) {
    if (!optional.test(type) && !(type === "message.appended" && out.at(-1) === type)) out.push(type);
  }
  return out;
}

/** Fails unless the wanted kinds occur in this order, with anything between them. */
export function inOrder(events, wanted) {
  const have = types(events);
  let from = 0;
  for (const type of wanted) {
    const found = have.indexOf(type, from);
    assert.ok(found >= 0, `no ${type} where it belongs in: ${outline(events).join(" ")}`);
    from = found + 1;
  }
}

/** Fails if one of these kinds occurs. */
export function without(events, unwanted) {
  for (const type of unwanted) assert.ok(!types(events).includes(type), `unexpected ${type}`);
}

/** The text that the deltas of one step add up to. */
export const streamed = (events) =>
  all(events, "message.appended")
    .map((event) => event.data.messageDelta)
    .join("");
