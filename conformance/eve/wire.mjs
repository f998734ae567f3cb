// The protocol without the client: plain requests, for what the client hides (headers, blank
// lines, bodies of refusals) or cannot do (operationId, a foreign id with no retries).

import { randomUUID } from "node:crypto";

import { agents, keys, url } from "./settings.mjs";

export const bearer = (key, agent = agents.plain) => ({
  ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
  "x-bailiwick-agent": agent,
});

/** One request, read to its end. `body` is sent as JSON unless it is already text. */
export async function call(method, path, { key = keys.a, agent, body, signal } = {}) {
  const headers = bearer(key === null ? undefined : key, agent);
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(`${url}${path}`, {
    method,
    headers,
    body: body === undefined || typeof body === "string" ? body : JSON.stringify(body),
    redirect: "manual",
    signal,
  });
  const text = await response.text();
  let json;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  return { status: response.status, headers: response.headers, text, json };
}

/**
 * A request that ought to be refused: like `call`, but the body of an acceptance is dropped, so
 * that a stream which should not have opened is reported and not read for ever.
 */
export async function attempt(method, path, { key, agent, body }) {
  const headers = { ...bearer(key, agent), ...(body === undefined ? {} : { "content-type": "application/json" }) };
  const response = await fetch(`${url}${path}`, { method, headers, body: body && JSON.stringify(body), redirect: "manual" });
  if (response.ok) await response.body?.cancel();
  const text = response.ok ? "" : await response.text();
  return { status: response.status, headers: response.headers, text };
}

export const session = (id, action = "") => `/eve/v1/session/${encodeURIComponent(id)}${action}`;

/** The stored events of a session from one bounded read, with the raw lines and the headers. */
export async function stored(id, { query = {}, ...rest } = {}) {
  const search = new URLSearchParams({ follow: "false", ...query });
  const reply = await call("GET", `${session(id, "/stream")}?${search}`, rest);
  const lines = reply.text.split("\n").filter((line) => line.trim() !== "");
  return { ...reply, lines, events: reply.status === 200 ? lines.map((line) => JSON.parse(line)) : [] };
}

/** An open stream, chunk by chunk, each with the milliseconds since it was opened. */
export async function* chunks(id, { query = {}, key = keys.a, agent, signal } = {}) {
  const response = await fetch(`${url}${session(id, "/stream")}?${new URLSearchParams(query)}`, {
    headers: bearer(key, agent),
    signal,
  });
  if (response.status !== 200) throw new Error(`the stream answered ${response.status}`);
  const opened = Date.now();
  const decoder = new TextDecoder();
  for await (const bytes of response.body) {
    yield { at: Date.now() - opened, text: decoder.decode(bytes, { stream: true }) };
  }
}

/** A word that no other session, account or run has. */
export const marker = () => `marker-${randomUUID()}`;

/** An id of the same form that names nothing: the other one with its last letters turned round. */
export function nearby(id) {
  const head = id.slice(0, -10);
  const tail = [...id.slice(-10)].reverse().join("");
  return tail === id.slice(-10) ? `${head}0123456789` : `${head}${tail}`;
}
