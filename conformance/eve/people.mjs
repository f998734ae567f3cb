// The people of the test, each with the real client, and the few moves most checks begin with.

import assert from "node:assert/strict";
import { Client } from "eve/client";

import { checkStream } from "./events.mjs";
import { agents, keys, url } from "./settings.mjs";

export const clientOf = (key, agent = agents.plain, host = url) =>
  new Client({ host, auth: { bearer: key }, headers: { "x-bailiwick-agent": agent } });

export const alice = clientOf(keys.a);
export const carefulAlice = clientOf(keys.a, agents.careful);
export const bob = clientOf(keys.b);

/** Refusals at once: without it the client asks again for 40 seconds when a stream is 404. */
export const once = { streamReconnectPolicy: { reconnect: false } };

/** A new session and its first turn, read to the boundary. */
export async function firstTurn(client, message, options = {}) {
  const { session, response } = await client.sessions.create({ message, ...options });
  const result = await response.result();
  checkStream(result.events);
  return { session, id: session.state.sessionId, ...result };
}

/** One more turn of a session, read to the boundary. */
export async function nextTurn(session, message, options = {}) {
  const result = await (await session.send(message, options)).result();
  checkStream(result.events);
  return result;
}

/** Reads a running response until an event of this kind and returns what it read. */
export async function readUntil(iterator, type) {
  const events = [];
  for (;;) {
    const { value, done } = await iterator.next();
    assert.ok(!done, `the turn ended before ${type}: ${events.map((event) => event.type).join(" ")}`);
    events.push(value);
    if (value.type === type) return events;
  }
}

/** Reads a running response to its boundary. */
export async function readRest(iterator) {
  const events = [];
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) events.push(next.value);
  return events;
}

/** Fails unless the promise is refused by the server with this status; returns the client's error. */
export async function refused(promise, status) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    assert.equal(error?.name, "ClientError", `expected a refusal by the server, had: ${error}`);
    assert.equal(error.status, status);
    return error;
  }
  assert.fail(`expected HTTP ${status}, but it was accepted: ${JSON.stringify(value)}`);
}
