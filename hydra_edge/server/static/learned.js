// What serves and whether it helps; what each weight became; how it grew with the history.

import { el, plural, replace, signed, svg } from "./dom.js";

const ROLES = { reranker: "Which records to show", adapter: "Which answer to give" };
const SWITCHES = {
  personal: ["on", "Your own head is on", "my head"],
  shared: ["shared", "The head shared by all users is on", "shared head"],
  baseline: ["off", "No head is on: plain order, first answer", "prompt-only RAG"],
};
const NAMES = {
  unpersonalized: "no personalization",
  "prompt-only RAG": "plain retrieval (BM25)",
  "shared head": "shared head",
  "my head": "your own head",
};
const FIRST_WEIGHTS = 6;
const MOVED = 0.005; // less rounds to nothing

// What somebody opened stays open when it is drawn again.
const openRoles = (place) =>
  new Set([...place.querySelectorAll("details[open]")].map((opened) => opened.dataset.role));

function table(titles, rows) {
  return el(
    "table",
    {},
    el("thead", {}, el("tr", {}, ...titles.map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell) => el("td", {}, cell))))),
  );
}

export function showHeads(helps, learned, roles) {
  replace(helps, ...roles.map(verdict));
  const open = openRoles(learned);
  replace(learned, legend(), ...roles.map((role) => weightsOf(role, open.has(role.role))));
}

function verdict(role) {
  const [state, words, used] = SWITCHES[role.switch];
  const own = role.version === null
    ? "You have no head of your own for this yet."
    : `Your own: version ${role.version}, learned from ${plural(role.n_queries, "query", "queries")}.`;
  const measured = role.rows.filter((row) => row.utility !== null);
  const most = Math.max(...measured.map((row) => row.utility), 1e-9);
  return el(
    "div",
    { class: "verdict", "data-role": role.role, "data-version": role.version ?? "" },
    el("h3", {}, ROLES[role.role]),
    el("p", { class: `badge ${state}` }, words),
    el("p", { class: "quiet small" }, own),
    measured.length
      ? el("dl", { class: "bars" }, ...measured.flatMap((row) => utilityBar(row, most, row.name === used)))
      : el("p", { class: "quiet" }, role.rows[0]?.note || "Not judged yet."),
    ...gains(role.gains),
    role.reason ? el("p", { class: "quiet small" }, `The gate: ${role.reason}`) : null,
  );
}

function utilityBar(row, most, inUse) {
  const name = NAMES[row.name] ?? row.name;
  const mine = row.name === "my head" ? " mine" : "";
  const bar = svg("svg", { class: "bar", "aria-hidden": "true", focusable: "false" },
    svg("rect", { class: "track", width: "100%", height: "100%", rx: 3 }),
    svg("rect", { class: `fill${mine}`, width: `${(100 * row.utility) / most}%`, height: "100%", rx: 3 }),
  );
  const count = row.n === null ? "" : ` (n = ${row.n})`;
  return [
    el("dt", {}, name, inUse ? el("strong", {}, " (in use)") : null),
    el("dd", {}, bar, el("span", { class: "number" }, row.utility.toFixed(3)),
      el("span", { class: "visually-hidden" }, ` utility${count}`)),
  ];
}

function gains(known) {
  const named = [
    ["Your head over the shared one", known.personal_over_shared],
    ["The shared head over none", known.shared_over_baseline],
  ];
  return named.filter(([, gain]) => gain !== null && gain.mean !== null).map(([name, gain]) => {
    let sure = "expected, counting what other users gained";
    if (gain.confidence > 0.5) {
      sure = gain.low === null
        ? "too few to be sure of anything"
        : `${Math.round(gain.confidence * 100)} % sure of ${signed(gain.low, 3)} or more`;
    }
    return el("p", { class: "small" }, `${name}: ${signed(gain.mean, 3)} (${sure}, n = ${gain.n})`);
  });
}

function legend() {
  const mark = (shape) => svg("svg", { class: "mark", "aria-hidden": "true", focusable: "false", viewBox: "0 0 20 12" }, shape);
  return el(
    "p",
    { class: "legend small quiet" },
    mark(svg("circle", { class: "dot", cx: 10, cy: 6, r: 4 })), "yours",
    mark(svg("line", { class: "whisker", x1: 2, x2: 18, y1: 6, y2: 6 })), "how sure",
    mark(svg("line", { class: "people", x1: 10, x2: 10, y1: 1, y2: 11 })), "other people",
  );
}

function weightsOf(role, isOpen) {
  const own = role.weights.some((weight) => Math.abs(weight.moved) >= MOVED);
  const size = (weight) => Math.abs(own ? weight.moved : weight.population);
  const sorted = [...role.weights].sort((a, b) => size(b) - size(a));
  const reach = (weight) => Math.max(Math.abs(weight.mine) + weight.std, Math.abs(weight.population));
  const most = Math.max(...sorted.slice(0, FIRST_WEIGHTS).map(reach), 1e-9);
  const rest = sorted.slice(FIRST_WEIGHTS);
  const restMost = Math.max(...rest.map(reach), most);
  return el(
    "div",
    { class: "weights" },
    el("h3", {}, ROLES[role.role]),
    el("p", { class: "quiet small" }, own
      ? "Furthest from what other people do, first. Right of the line speaks for, left against."
      : role.version === null
        ? "No evidence of yours yet: these are what people in general go by."
        : "Your evidence so far leaves these where they are for people in general."),
    el("ul", { class: "plain" }, ...sorted.slice(0, FIRST_WEIGHTS).map((w) => weightRow(w, most))),
    rest.length
      ? el("details", { "data-role": role.role, open: isOpen },
          el("summary", {}, `The other ${rest.length}`),
          el("ul", { class: "plain" }, ...rest.map((w) => weightRow(w, restMost))))
      : null,
  );
}

function weightRow(weight, most) {
  const at = (value) => `${50 + (47 * Math.max(-most, Math.min(most, value))) / most}%`;
  const said = `yours ${signed(weight.mine)}, give or take ${weight.std.toFixed(2)}; ` +
    `other people ${signed(weight.population)}`;
  const chart = svg("svg", { class: "weight", role: "img", "aria-label": said },
    svg("line", { class: "zero", x1: "50%", x2: "50%", y1: 0, y2: 20 }),
    svg("line", { class: "people", x1: at(weight.population), x2: at(weight.population), y1: 3, y2: 17 }),
    svg("line", { class: "whisker", x1: at(weight.mine - weight.std), x2: at(weight.mine + weight.std), y1: 10, y2: 10 }),
    svg("circle", { class: "dot", cx: at(weight.mine), cy: 10, r: 4.5 }),
  );
  return el("li", { class: "weight-row" },
    el("span", { class: "words" }, weight.words), chart,
    el("span", { class: "number", "aria-hidden": "true" }, signed(weight.mine)));
}

export function showGrowth(place, roles) {
  const open = openRoles(place);
  replace(place, ...roles.map(({ role, growth }) => el("div", {},
    el("h3", {}, ROLES[role]),
    growth === null
      ? el("p", { class: "quiet" }, role === "reranker"
          ? "Too few records to draw anything yet."
          : "Too few answers judged yet. hydra-edge fit-head asks the LLM for some; choices count too.")
      : curve(growth, open.has(role)))));
}

const key = (name, words) =>
  el("span", { class: "named" }, el("span", { class: `key ${name}` }), words);

function curve(growth, isOpen) {
  const width = 320, height = 150, left = 36, right = 8, top = 8, bottom = 24;
  const values = growth.points.flatMap((p) => [p.utility - p.gain_std, p.utility + p.gain_std]);
  const all = [...values, growth.shared, growth.baseline];
  const low = Math.min(...all), high = Math.max(...all), room = Math.max(high - low, 0.01) * 0.1;
  const last = growth.points.at(-1).queries;
  const x = (queries) => left + ((width - left - right) * queries) / Math.max(last, 1);
  const y = (value) => top + ((height - top - bottom) * (high + room - value)) / (high - low + 2 * room);
  const path = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
  const upper = growth.points.map((p) => [x(p.queries), y(p.utility + p.gain_std)]);
  const lower = growth.points.map((p) => [x(p.queries), y(p.utility - p.gain_std)]).reverse();
  const level = (value, name) => svg("line", { class: name, x1: left, x2: width - right, y1: y(value), y2: y(value) });
  const label = (text, at, down, anchor) => svg("text", { x: at, y: down, "text-anchor": anchor }, text);
  const end = growth.points.at(-1);
  const said = `Utility of your own head: ${growth.points[0].utility.toFixed(3)} with no query learned, ` +
    `${end.utility.toFixed(3)} with ${end.queries}. Shared head ${growth.shared.toFixed(3)}, ` +
    `none ${growth.baseline.toFixed(3)}.`;
  return el("figure", {},
    svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": said },
      svg("path", { class: "band", d: `${path([...upper, ...lower])}Z` }),
      level(growth.baseline, "none"), level(growth.shared, "people"),
      svg("path", { class: "line", d: path(growth.points.map((p) => [x(p.queries), y(p.utility)])) }),
      ...growth.points.map((p) => svg("circle", { class: "dot", cx: x(p.queries), cy: y(p.utility), r: 2.5 })),
      label(high.toFixed(2), left - 5, y(high) + 4, "end"), label(low.toFixed(2), left - 5, y(low) + 4, "end"),
      label("0", left, height - 8, "middle"), label(`${last} queries`, width - right, height - 8, "end")),
    el("figcaption", { class: "small quiet" },
      key("line", "your head, give or take its error"), key("people", "shared head"), key("none", "none")),
    el("p", { class: "small quiet" },
      `Each point learned from the first so many queries and is judged on the ${growth.held_out} latest, ` +
      "which none of them has seen."),
    el("details", { "data-role": growth.role, open: isOpen }, el("summary", {}, "As a table"),
      table(["queries", "utility", "over shared", "±"],
      growth.points.map((p) => [`${p.queries}`, p.utility.toFixed(3), signed(p.gain, 3), p.gain_std.toFixed(3)]))));
}
