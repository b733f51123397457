// Card: a frame around something drawn: its title, what to look for, and what can be done with its numbers.

import { ApiError, StaleResponse } from "./api.js";
import { copyToClipboard, el, downloadFile } from "./dom.js";
import { cellText, toCsv } from "./format.js";

/**
 * A card. `draw` fills it:
 *
 *   const card = makeCard({name: "next", title: "Next token"});
 *   await card.fill(async () => ({
 *     caption: "Entropy 2.3 bits …", python: "clearstory.inspect(…)",
 *     tables: () => [{title, columns, rows}],                    what stands in Numbers, and in the CSV
 *     files: {svg: async () => text, csv: …, html: …},           what can be kept; a missing one has no button
 *     mount: (body) => drawer,                                   draws, and gives {update, state, svg, csv}
 *   }));
 *
 * While it works the card says so, and for how long; what goes wrong stands in it as a sentence.
 */
export function makeCard({ name, title, says = null, tools = null }) {
  let filled = {};
  const heading = el("h2", {}, title);
  const look = el("p", { class: "look", hidden: true });
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const body = el("div", { class: "card-body" });
  const table = el("div", { class: "numbers", hidden: true });
  const buttons = {
    full: button("Full screen", () => toggleFull(), "aria-pressed"),
    numbers: button("Numbers", () => toggleNumbers(), "aria-pressed"),
    svg: button("SVG", () => keepFile("svg", "image/svg+xml")),
    csv: button("CSV", () => keepFile("csv", "text/csv")),
    html: button("HTML", () => keepFile("html", "text/html")),
    python: button("Copy Python", copyPython),
  };
  const bar = el("div", { class: "card-tools" }, ...Object.values(buttons));
  const root = el(
    "section",
    { class: "card", data: { card: name, state: "empty" }, "aria-label": title },
    el("header", {}, heading, bar),
    says ? el("p", { class: "says" }, says) : null,
    tools,
    look,
    problem,
    body,
    table,
  );
  refresh();

  function button(text, act, pressed = null) {
    return el("button", { type: "button", class: "tool", onclick: act, ...(pressed ? { [pressed]: "false" } : {}) }, text);
  }

  function refresh() {
    for (const kind of ["svg", "csv", "html"]) buttons[kind].hidden = !filled.files?.[kind];
    buttons.numbers.hidden = !filled.tables;
    buttons.python.hidden = !filled.python;
    if (!table.hidden) showNumbers();
  }

  function toggleFull() {
    const on = root.classList.toggle("full");
    buttons.full.setAttribute("aria-pressed", String(on));
    document.body.classList.toggle("covered", on);
    if (on) root.addEventListener("keydown", leave);
    else root.removeEventListener("keydown", leave);
    buttons.full.focus();
  }

  function leave(event) {
    if (event.key === "Escape") {
      event.stopPropagation();
      toggleFull();
    }
  }

  function toggleNumbers() {
    table.hidden = !table.hidden;
    buttons.numbers.setAttribute("aria-pressed", String(!table.hidden));
    if (!table.hidden) showNumbers();
  }

  function showNumbers() {
    table.replaceChildren(...(filled.tables?.() ?? []).map(dataTable));
  }

  async function keepFile(kind, type) {
    try {
      downloadFile(`${name}.${kind}`, type, await filled.files[kind]());
    } catch (error) {
      if (error instanceof ApiError) fail(error.message);
      else throw error;
    }
  }

  async function copyPython() {
    const done = await copyToClipboard(filled.python);
    buttons.python.textContent = done ? "Copied" : "Copy it by hand:";
    if (!done) look.replaceChildren(el("code", { class: "python" }, filled.python));
    look.hidden = !done ? false : look.hidden;
    setTimeout(() => (buttons.python.textContent = "Copy Python"), 1500);
  }

  function fail(sentence) {
    problem.textContent = sentence;
    problem.hidden = false;
    root.dataset.state = "failed";
  }

  /** Draws what `make` gives. Resolves when it is painted or has failed; a stale answer changes nothing. */
  async function fill(make) {
    const began = performance.now();
    root.dataset.state = "busy";
    const ticking = setInterval(() => {
      const seconds = (performance.now() - began) / 1000;
      if (seconds > 0.4) root.dataset.busy = `working, ${seconds.toFixed(0)} s`;
    }, 200);
    const before = filled.renderer;
    try {
      filled = await make();
      problem.hidden = true;
      look.textContent = filled.caption ?? "";
      look.hidden = !filled.caption;
      if (filled.title) heading.textContent = filled.title;
      filled.renderer = filled.mount(body) ?? null;
      if (before !== filled.renderer) before?.end?.(); // or what it listens to keeps it, and all of its numbers
      root.dataset.state = "drawn";
      refresh();
    } catch (error) {
      if (error instanceof StaleResponse) return;
      before?.end?.();
      body.replaceChildren();
      look.hidden = true;
      filled = {};
      refresh();
      if (!(error instanceof ApiError)) throw error;
      fail(error.message);
    } finally {
      clearInterval(ticking);
      delete root.dataset.busy;
    }
  }

  /** Shows nothing but a sentence: what must be done first. */
  function wait(sentence) {
    filled.renderer?.end?.();
    filled = {};
    refresh();
    look.hidden = problem.hidden = true;
    body.replaceChildren(el("p", { class: "quiet" }, sentence));
    root.dataset.state = "waiting";
  }

  return { root, body, fill, fail, wait, renderer: () => filled.renderer ?? null };
}

const MOST_ROWS = 2000;

/** Numbers as a table: what is drawn, for those who do not see it, with every digit in the titles. */
export function dataTable({ title, columns, rows }) {
  const shown = rows.slice(0, MOST_ROWS);
  const cell = (value) =>
    typeof value === "number"
      ? el("td", { class: "n", title: String(value), data: { value } }, cellText(value))
      : el("td", {}, cellText(value));
  const left = rows.length - shown.length;
  return el(
    "div",
    { class: "wide" },
    el(
      "table",
      {},
      el("caption", {}, title + (left ? ` (the first ${MOST_ROWS} rows; the CSV has ${left} more)` : "")),
      el("thead", {}, el("tr", {}, ...columns.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, ...shown.map((row) => el("tr", {}, ...row.map(cell)))),
    ),
  );
}

/** The CSV of some tables, one below the other. */
export const tablesCsv = (tables) => tables.map((each) => toCsv(each.columns, each.rows)).join("\n");
