// What the console's pages do beyond links and forms. They work without it; this makes them live.
"use strict";

// Asks before what cannot be undone.
document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.ask;
  if (question && !window.confirm(question)) event.preventDefault();
});

// On a phone the navigation is a row that scrolls; where one is should be in sight.
document.querySelector(".nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// The audit log's tail: new events are put on top as they are written.
const table = document.querySelector("[data-tail]");
if (table) {
  const state = document.querySelector("#tail-state");
  const say = (on) => {
    state.classList.toggle("on", on);
    state.textContent = on ? "live" : "not connected";
  };
  const source = new EventSource(table.dataset.tail);
  source.addEventListener("open", () => say(true));
  source.addEventListener("error", () => say(false));
  const cell = (text, name, tag) => {
    const td = document.createElement("td");
    if (name) td.dataset.is = name;
    const inner = tag ? td.appendChild(document.createElement("span")) : td;
    if (tag) inner.className = tag;
    inner.textContent = text;
    return td;
  };
  const tags = { OK: "tag good", DENIED: "tag bad", FAIL: "tag warn" };
  source.addEventListener("audit", (message) => {
    const event = JSON.parse(message.data);
    const row = document.createElement("tr");
    row.className = "new";
    const time = event.at.replace("T", " ").replace(/\.\d+Z$/, "");
    row.append(
      cell(String(event.seq), "number"), cell(time, "time (UTC)"), cell(event.actor, "who"), cell(event.action, "action"),
      cell(event.resource, "on"), cell(event.result, "result", tags[event.result] ?? "tag"), cell(event.address, "from"),
    );
    table.querySelector("tr.nothing")?.remove();
    table.prepend(row);
    while (table.rows.length > 500) table.deleteRow(-1);
  });
}
