// Conformance with the eve client: drives a running Bailiwick with the real `eve/client` and the
// real `eve remote`, both from the pinned package. One line a check, then the count; the exit
// code says whether all passed. It changes nothing but sessions it creates itself.

if (Number(process.versions.node.split(".")[0]) < 24) {
  console.error(`eve needs Node 24, this is ${process.version}. Run: npm ci && npm test`);
  process.exit(2);
}

const { run } = await import("./run.mjs");
await import("./surface.mjs");
await import("./turns.mjs");
await import("./approvals.mjs");
await import("./control.mjs");
await import("./stream.mjs");
await import("./tenants.mjs");
await import("./command.mjs");

const { passed, failed } = await run();
console.log(`${passed} passed, ${failed} failed`);
// Streams of failed checks may still be open; nothing of theirs is wanted any more.
process.exit(failed === 0 ? 0 : 1);
