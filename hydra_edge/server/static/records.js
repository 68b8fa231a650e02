// My records: looking for them, keeping them private, forgetting them.

import { call } from "./api.js";
import { byId, el, plural, quote, replace, when } from "./dom.js";

const PAGE = 6;

// Where a record is from, without the folders on the way there.
const origin = (source) => source.replace(/^(\w+:)?.*[/\\](?=.)/, "$1") || "unknown source";

export function startRecords({ task, saying, changed }) {
  let offset = 0, query = "", latest = 0;
  const status = byId("records-status"), problem = byId("records-problem");

  async function show() {
    const mine = (latest += 1);
    const found = await saying(problem, () =>
      call("records", { task: task(), query, offset, limit: PAGE }));
    if (!found || mine !== latest) return;
    if (!found.records.length && offset > 0) {
      offset = Math.max(0, offset - PAGE); // the last one of a page was deleted
      await show();
      return;
    }
    replace(byId("records"), ...found.records.map(row));
    byId("newer").disabled = offset === 0;
    byId("older").disabled = !found.more;
    status.textContent = said(found);
  }

  function said({ records, total }) {
    if (!records.length) return query ? "No record holds these words." : "No records of this task yet.";
    const range = `${offset + 1}–${offset + records.length}`;
    return query ? `Found, best first: ${range}` : `${range} of ${plural(total, "record")}, newest first`;
  }

  function row(record) {
    const title = `“${record.output.slice(0, 60)}”`;
    const item = el("li", { class: "record", "data-id": record.id },
      quote(record.output, "output"), quote(record.input, "input"));
    const toggle = el("button", {
      type: "button", role: "switch", class: "switch", "aria-checked": String(record.private),
      "aria-label": `Private: ${title}`, onclick: () => setPrivate(record, toggle),
    }, el("span", { class: "knob", "aria-hidden": "true" }), el("span", { "aria-hidden": "true" }, "Private"));
    const remove = el("button", {
      type: "button", class: "plain-button", "aria-label": `Delete ${title}`, onclick: () => ask(),
    }, "Delete");
    const actions = el("div", { class: "buttons" },
      el("span", { class: "quiet small grow", title: record.source || null },
        `${when(record.time)} · ${origin(record.source)}`),
      toggle, remove);

    function ask() {
      const keep = el("button", { type: "button", onclick: () => { question.remove(); actions.hidden = false; remove.focus(); } }, "Keep it");
      const sure = el("button", { type: "button", class: "danger", onclick: () => forget(record, [keep, sure]) }, "Delete for good");
      const question = el("div", { class: "buttons sure", role: "group", "aria-label": `Delete ${title}?` },
        el("span", { class: "grow" }, "Delete this record and all that was made of it?"), sure, keep);
      actions.hidden = true;
      item.append(question);
      keep.focus();
    }

    item.append(actions);
    return item;
  }

  async function setPrivate(record, toggle) {
    const wanted = toggle.getAttribute("aria-checked") !== "true";
    const done = await saying(problem, () => call("records/private", { ids: [record.id], private: wanted }));
    if (!done) return;
    toggle.setAttribute("aria-checked", String(wanted));
    if (done.changed > 1) await show(); // others became private with it
    status.textContent = wanted && done.changed > 1
      ? "Private now, and with it others of the same text or made from it; each is switched off by itself."
      : wanted ? "Private now: no remote LLM is ever shown it."
      : "Not private any more: a remote LLM may be shown it.";
  }

  async function forget(record, buttons) {
    for (const button of buttons) button.disabled = true;
    const receipt = await saying(problem, () => call("records/delete", { ids: [record.id] }));
    if (!receipt) {
      for (const button of buttons) button.disabled = false;
      return;
    }
    const gone =
      `Deleted, with ${plural(receipt.pools, "answer pool")}, ${plural(receipt.choices, "choice")} and ` +
      `${plural(receipt.log_entries, "log entry", "log entries")}.`;
    const fitting = receipt.tasks.length
      ? " What had learned from it is still being fitted again; the next delete waits for that." : "";
    await show();
    status.textContent = gone + fitting;
    byId("words").focus();
    const shown = latest;
    await changed(); // which waits for the fits
    if (latest === shown + 1) status.textContent = gone; // nobody looked for others meanwhile
  }

  function reset() {
    offset = 0;
    query = byId("words").value = "";
  }

  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    query = byId("words").value.trim();
    offset = 0;
    show();
  });
  byId("newer").addEventListener("click", () => { offset = Math.max(0, offset - PAGE); show(); });
  byId("older").addEventListener("click", () => { offset += PAGE; show(); });
  return { show, reset };
}
