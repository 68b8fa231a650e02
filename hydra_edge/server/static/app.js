// The page: who is there, which task is looked at, and what is shown of it.

import { Problem, call, dropToken, hasToken, setToken, takeToken } from "./api.js";
import { byId, el, plural, replace } from "./dom.js";
import { showGrowth, showHeads } from "./learned.js";
import { startPlayground } from "./playground.js";
import { startRecords } from "./records.js";

const page = { summary: null, task: null };
let drawing = new AbortController();

// Runs something and says in words what went wrong, if it did.
export async function saying(problem, work) {
  problem.textContent = "";
  try {
    return await work();
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (!(error instanceof Problem)) console.error(error);
    if (error.status === 401) return askForToken("This token opens nothing (any more).");
    problem.textContent = error instanceof Problem ? error.message : `The page failed: ${error}`;
    return undefined;
  }
}

function askForToken(why) {
  dropToken();
  byId("board").hidden = byId("choice").hidden = true;
  byId("login").hidden = false;
  byId("login-problem").textContent = why;
  byId("token").focus();
}

const current = () => page.summary.tasks.find((task) => task.name === page.task);

async function readSummary() {
  page.summary = await call("summary");
  const { tasks, user, version, records } = page.summary;
  if (!tasks.some((task) => task.name === page.task)) page.task = page.summary.task;
  byId("who").textContent = `${user} · ${plural(records, "record")}`;
  byId("version").textContent = `hydra-edge ${version}`;
  replace(
    byId("task"),
    ...tasks.map((task) =>
      el(
        "option",
        { value: task.name, selected: task.name === page.task },
        `${task.name.replaceAll("_", " ")} (${task.records.toLocaleString("en")})`,
      ),
    ),
  );
  byId("first-run").hidden = records > 0;
  byId("fit").disabled = current().records === 0;
  byId("query-label").textContent = current().input_label;
}

async function showLearned({ withGrowth = true } = {}) {
  const heads = await call("heads", { task: page.task });
  showHeads(byId("helps"), byId("learned"), heads.roles);
  if (!withGrowth) return;
  drawing.abort(); // a curve nobody will see keeps the server busy, for minutes at worst
  drawing = new AbortController();
  const grown = await call("growth", { task: page.task }, drawing.signal);
  showGrowth(byId("growth"), grown.roles);
}

async function showLlm() {
  const line = byId("llm-line");
  try {
    const llm = await call("llm");
    line.textContent = llm.is_remote
      ? `${llm.name} answers. It is remote: the input and the records shown leave this machine.`
      : `${llm.name} answers, on this machine.`;
    byId("where").textContent = llm.is_remote
      ? "What the LLM is sent leaves this machine. Everything else here stays on it."
      : "Everything here stays on this machine.";
    byId("private-line").hidden = !llm.is_remote;
  } catch (error) {
    if (!(error instanceof Problem) || error.status === 401) throw error;
    line.textContent = error.message;
  }
}

// What changed elsewhere on the page is read again. One choice more changes no curve that anybody
// could see, but drawing one keeps the server busy for as long as a fit does.
async function refresh({ withRecords = true, withGrowth = true } = {}) {
  await saying(byId("board-problem"), async () => {
    await readSummary();
    await Promise.all([showLearned({ withGrowth }), withRecords ? records.show() : null]);
  });
}

const records = startRecords({ task: () => page.task, saying, changed: refresh });
const playground = startPlayground({ task: current, summary: () => page.summary, saying, refresh, fit });

async function fit() {
  const status = byId("fit-status");
  byId("fit").disabled = true;
  status.textContent = "Learning…";
  const done = await saying(byId("helps-problem"), () => call("fit", { task: page.task }));
  status.textContent = done ? `Judged anew in ${done.seconds.toFixed(1)} s` : "";
  byId("fit").disabled = false;
  if (done) await refresh({ withRecords: false });
}

async function start() {
  if (!hasToken()) return askForToken("");
  await saying(byId("login-problem"), async () => {
    await readSummary();
    byId("login").hidden = true;
    byId("board").hidden = byId("choice").hidden = false;
    await Promise.all([saying(byId("board-problem"), () => showLearned()), records.show(), showLlm()]);
  });
  document.body.dataset.state = "ready";
  return undefined;
}

byId("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("token").value);
  byId("token").value = "";
  start();
});
byId("task").addEventListener("change", (event) => {
  page.task = event.target.value;
  playground.clear();
  records.reset();
  refresh();
});
byId("fit").addEventListener("click", fit);
byId("look-again").addEventListener("click", () => refresh());
window.addEventListener("hashchange", () => {
  takeToken();
  if (hasToken() && byId("board").hidden) start();
});

takeToken();
start();
