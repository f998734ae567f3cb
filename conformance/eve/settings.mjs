// What the run is pointed at. Everything comes from the environment, so that the harness that
// started the server under test is the only one who knows its address and its keys. This file
// must never print a key.

const required = (name) => {
  const value = process.env[name];
  if (value === undefined || value === "") {
    console.error(`${name} is not set. See README.md.`);
    process.exit(2);
  }
  return value;
};

export const url = required("BAILIWICK_URL").replace(/\/$/, "");

/** Two people in two accounts, and, where the harness has one, a second person in the first account. */
export const keys = {
  a: required("BAILIWICK_KEY_A"),
  b: required("BAILIWICK_KEY_B"),
  a2: process.env.BAILIWICK_KEY_A2 || undefined,
};

/** The agents, by the names the requests carry in `X-Bailiwick-Agent`. Both exist in both accounts. */
export const agents = {
  plain: process.env.BAILIWICK_AGENT || "scripted",
  careful: process.env.BAILIWICK_AGENT_CAREFUL || "careful",
};

/** Only checks whose name matches, for work on one of them. */
export const only = process.env.BAILIWICK_ONLY ? new RegExp(process.env.BAILIWICK_ONLY) : undefined;

/** How many checks run at once. Each has sessions of its own. */
export const parallel = Number(process.env.BAILIWICK_PARALLEL || 6);

/** The whole run ends by then, whatever the server does. */
export const runSeconds = 58;
