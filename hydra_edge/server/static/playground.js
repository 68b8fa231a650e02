// The playground: the LLM's plain answer beside the one that fits, why, and learning from a choice.

import { call } from "./api.js";
import { byId, el, plural, quote, replace, signed, svg } from "./dom.js";

const FIRST_REASONS = 6;
const VISIBLE = 0.001; // a smaller move would be shown as none

export function startPlayground({ task, summary, saying, refresh, fit }) {
  const answers = byId("answers"), problem = byId("play-problem"), status = byId("play-status");
  let running = null;

  async function ask() {
    const query = byId("query").value;
    const given = { query, task: task().name, private: byId("private-run").checked };
    const stop = (running = new AbortController());
    busy(true);
    problem.textContent = "";
    const sides = { plain: side("Without hydra-edge", "plain"), personal: side("As you would", "mine") };
    replace(answers, el("div", { class: "sides" }, sides.plain.card, sides.personal.card));
    status.textContent = "Asking the LLM.";
    const plain = await asked(sides.plain, { ...given, plain: true }, stop);
    if (plain) replace(sides.plain.body, quote(plain.text || "(no text)", "answer"), cost(plain));
    const made = stop.signal.aborted ? null : await asked(sides.personal, given, stop);
    if (made) showAnswer(sides, made, plain);
    if (stop.signal.aborted) status.textContent = problem.textContent = "Cancelled. Nothing was learned.";
    if (running === stop) busy(false);
  }

  async function asked(where, body, stop) {
    where.body.setAttribute("aria-busy", "true");
    const told = await saying(problem, () => call("answer", body, stop.signal));
    where.body.removeAttribute("aria-busy");
    if (!told) replace(where.body, el("p", { class: "quiet" }, "No answer."));
    return told;
  }

  function busy(is) {
    byId("ask-button").disabled = is;
    byId("cancel").hidden = !is;
    clearInterval(busy.timer);
    byId("clock").textContent = "";
    if (!is) {
      running = null;
      return;
    }
    const started = performance.now();
    busy.timer = setInterval(() => {
      byId("clock").textContent = `${Math.round((performance.now() - started) / 1000)} s`;
    }, 1000);
  }

  function side(title, name) {
    const body = el("div", { class: "body" }, el("p", { class: "quiet" }, "…"));
    return { card: el("section", { class: `side ${name}`, "aria-label": title }, el("h3", {}, title), body), body };
  }

  function cost(made) {
    const { prompt_tokens: read, completion_tokens: written, latency_ms: ms } = made.usage;
    const seconds = (ms / 1000).toLocaleString("en", { maximumFractionDigits: 1 });
    const parts = [
      read ? `${plural(read, "token")} read` : "",
      written ? `${plural(written, "token")} written` : "",
      `${seconds} s`,
    ];
    return el("p", { class: "quiet small" }, parts.filter(Boolean).join(", "));
  }

  function showAnswer(sides, made, plain) {
    const remembered = summary().log;
    const chosen = made.candidates.find((candidate) => candidate.chosen);
    const learned = el("div", { class: "learned", role: "status" });
    const keep = el("input", { type: "checkbox", id: "keep", checked: true });
    const learn = (choice) => choose(made, { ...choice, keep: keep.checked }, learned);
    const edit = el("textarea", { id: "edit", rows: "2", dir: "auto" });
    edit.value = made.text;
    const candidates = list(
      made.candidates.map((candidate) => candidateRow(candidate, remembered ? learn : null)),
      "candidates", `All ${plural(made.candidates.length, "candidate")}`);

    replace(sides.personal.body, quote(made.text, "answer"), cost(made),
      made.abstained ? el("p", { class: "quiet small" }, `Too close to call: ${made.head.otherwise === "shared" ? "the shared head's" : "the LLM's first"} choice was kept.`) : null,
      ...made.notes.map((note) => el("p", { class: "quiet small" }, `Note: ${note}`)),
      remembered ? el("div", { class: "buttons" },
        el("button", { type: "button", class: "primary", onclick: () => learn(chosen ? { pick: chosen.pick } : { text: made.text }) }, "This is it"),
        el("button", { type: "button", onclick: () => { candidates.open = true; edit.focus(); } }, "Not like me")) : null);
    if (plain?.text && remembered && plain.text !== made.text) {
      sides.plain.body.append(el("button", {
        type: "button", "aria-label": "Take the plain answer", onclick: () => learn({ text: plain.text }),
      }, "Take this one"));
    }
    const own = remembered ? el("form", { class: "own", onsubmit: (event) => { event.preventDefault(); learn({ text: edit.value }); } },
      el("label", { for: "edit" }, "Or as I would have written it"), edit,
      el("div", { class: "buttons" },
        el("button", {}, "Learn my version"),
        el("span", { class: "check" }, keep, el("label", { for: "keep" }, "Keep it as a record of mine"))))
      : el("p", { class: "quiet" }, "Answers are not remembered (the setting `log` is off), so a choice cannot be learned from.");
    replace(answers, el("div", { class: "sides" }, sides.plain.card, sides.personal.card), learned, own,
      chosen ? why("Why this answer", chosen.reasons) : null, candidates,
      list(made.records.map(recordRow), "shown", `The ${plural(made.records.length, "record")} shown to the LLM`));
    status.textContent = `Answered: ${made.text}`;
  }

  const list = (rows, name, title) => el("details", { class: name }, el("summary", {}, title),
    rows.length ? el("ol", { class: "plain" }, ...rows) : el("p", { class: "quiet" }, "None."));

  function candidateRow(candidate, learn) {
    const ends = { length: " · ends at its limit", cut: " · broken off" }[candidate.finish] ?? "";
    const drawn = candidate.count ? `drawn ${candidate.count}×${candidate.greedy ? ", the LLM's first" : ""}` : "never drawn";
    return el("li", { class: "candidate" },
      el("div", { class: "buttons" },
        el("span", { class: "score" }, signed(candidate.score)),
        el("span", { class: "quiet small grow" }, drawn + ends + (candidate.chosen ? " · chosen" : "")),
        learn ? el("button", { type: "button", "aria-label": `Take candidate ${candidate.pick}`, onclick: () => learn({ pick: candidate.pick }) }, "Take this") : null),
      quote(candidate.text), why("Why this score", candidate.reasons));
  }

  function recordRow(record) {
    return el("li", { class: "candidate" },
      el("div", { class: "buttons" }, el("span", { class: "score" }, signed(record.score)),
        el("span", { class: "quiet small grow" }, record.private ? "private" : "")),
      quote(record.output), quote(record.input, "input"), why("Why it was shown", record.reasons));
  }

  function why(title, reasons) {
    if (!reasons.length) return null;
    const most = Math.max(...reasons.map((reason) => Math.abs(reason.share)));
    const row = (reason) => el("li", { class: "reason" },
      el("span", { class: "number" }, signed(reason.share)), shareBar(reason.share, most),
      el("span", { class: "words" }, reason.words));
    const rest = reasons.slice(FIRST_REASONS);
    const sum = rest.reduce((total, reason) => total + reason.share, 0);
    return el("details", { class: "why" }, el("summary", {}, title),
      el("ul", { class: "plain" }, ...reasons.slice(0, FIRST_REASONS).map(row)),
      rest.length ? el("p", { class: "quiet small" }, `${signed(sum)} from ${rest.length} smaller ones`) : null);
  }

  function shareBar(share, most) {
    const size = (50 * Math.abs(share)) / most;
    return svg("svg", { class: "share", "aria-hidden": "true", focusable: "false" },
      svg("line", { class: "zero", x1: "50%", x2: "50%", y1: 0, y2: 10 }),
      svg("rect", { class: share < 0 ? "against" : "for", x: `${share < 0 ? 50 - size : 50}%`, y: 1, width: `${size}%`, height: 8, rx: 2 }));
  }

  async function choose(made, choice, place) {
    const buttons = [...answers.querySelectorAll("button")];
    for (const button of buttons) button.disabled = true;
    const done = await saying(problem, () => call("choose", { id: made.id, ...choice }));
    for (const button of buttons) button.disabled = false;
    if (!done) return;
    if (done.head_version === null) {
      replace(place, el("h3", {}, done.record_id ? "Kept" : "Taken"),
        el("p", {}, "Your head learned nothing from this choice."
          + (done.record_id ? " It is kept as a record of yours." : "")));
      await refresh({ withGrowth: false });
      return;
    }
    const judged = done.switch === "personal"
      ? "It is what serves you."
      : "Until a fit finds that it helps you more, it learns on without being used.";
    const seen = done.changes.filter((change) => Math.abs(change.mine - change.before) >= VISIBLE);
    replace(place, el("h3", {}, "Learned"),
      el("p", {}, `Your head for answers is now version ${done.head_version}. ${judged}`),
      el("p", { class: "quiet small" }, seen.length ? "What moved most:" : "One choice weighs little here: no weight moved by 0.001."),
      el("ul", { class: "plain" }, ...seen.map((change) => el("li", { class: "change" },
        el("span", { class: "words" }, change.words),
        el("span", { class: "number" }, `${signed(change.before, 3)} → ${signed(change.mine, 3)}`)))),
      done.switch === "personal" ? null : el("button", { type: "button", onclick: fit }, "Judge it now"));
    await refresh({ withGrowth: false });
  }

  function clear() {
    running?.abort();
    replace(answers);
    problem.textContent = status.textContent = "";
  }

  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!running) ask();
  });
  byId("cancel").addEventListener("click", () => running?.abort());
  return { clear };
}
