// What the console's pages do beyond links and forms. They work without it; this makes them live.
"use strict";

// Asks before what cannot be undone.
document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.ask;
  if (question && !window.confirm(question)) event.preventDefault();
});

// On a phone the navigation is a row that scrolls; where one is should be in sight.
document.querySelector(".nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// What gives something away takes no click that was meant for what was there before: not for a second after it
// came into sight.
for (const button of document.querySelectorAll("button[data-hold]")) {
  let timer;
  const hold = () => {
    button.disabled = true;
    clearTimeout(timer);
    timer = setTimeout(() => (button.disabled = document.hidden || !document.hasFocus()), 1000);
  };
  hold();
  window.addEventListener("focus", hold);
  window.addEventListener("blur", hold);
  document.addEventListener("visibilitychange", hold);
}

// Passkeys: the form's fields come from the authenticator, and then it is sent as any other.
for (const form of document.querySelectorAll("form[data-passkey]")) {
  const trouble = form.querySelector(".trouble");
  const tell = (text) => {
    trouble.textContent = text;
    trouble.hidden = !text;
  };
  if (!window.PublicKeyCredential?.parseRequestOptionsFromJSON) {
    if (!form.hidden) tell("This browser cannot use passkeys.");
    continue;
  }
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    tell("");
    try {
      let options = form.dataset.options && JSON.parse(form.dataset.options);
      if (!options) {
        const reply = await fetch(form.dataset.begin, { method: "POST" });
        if (!reply.ok) throw new Error(`the server answered ${reply.status}`);
        const begun = await reply.json();
        form.elements.ceremony.value = begun.ceremony;
        options = begun.options;
      }
      const publicKey =
        form.dataset.passkey === "create"
          ? PublicKeyCredential.parseCreationOptionsFromJSON(options)
          : PublicKeyCredential.parseRequestOptionsFromJSON(options);
      const credential = await navigator.credentials[form.dataset.passkey]({ publicKey });
      form.elements.credential.value = JSON.stringify(credential.toJSON());
      form.submit();
    } catch (error) {
      const taken = error.name === "InvalidStateError";
      const gone = error.name === "NotAllowedError";
      tell(taken ? "This authenticator has a passkey of yours already." : gone ? "Nothing was done: it was cancelled, or took too long." : `That did not work: ${error.message}`);
    }
  });
}

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
