// Card: the frame of a drawing, with title, description, caption, controls, tables, downloads and a Python snippet.

import { ApiError, StaleResponse } from "./api.js";
import { copyToClipboard, el, downloadFile } from "./dom.js";
import { cellText, toCsv } from "./format.js";

/**
 * A card. fill() loads and draws its content:
 *
 *   const card = makeCard({name: "next", title: "Next token"});
 *   await card.fill(async () => ({
 *     caption: "Entropy 2.3 bits …", python: "clearstory.inspect(…)",
 *     tables: () => [{title, columns, rows}],                    shown by the Numbers button
 *     files: {svg: async () => text, csv: …, html: …},           downloads; a missing one has no button
 *     mount: (body) => renderer,                                 draws, and returns {update, state, svg, csv}
 *   }));
 *
 * While it loads the card shows the elapsed time; an error is shown as a sentence.
 */
export function makeCard({ name, title, description = null, tools: controls = null }) {
  let content = {};
  const heading = el("h2", {}, title);
  const caption = el("p", { class: "caption", hidden: true });
  const problem = el("p", { class: "hint", role: "status", hidden: true });
  const body = el("div", { class: "card-body" });
  const table = el("div", { class: "numbers", hidden: true });
  const buttons = {
    full: button("Full screen", () => toggleFull(), "aria-pressed"),
    numbers: button("Numbers", () => toggleNumbers(), "aria-pressed"),
    svg: button("SVG", () => saveFile("svg", "image/svg+xml")),
    csv: button("CSV", () => saveFile("csv", "text/csv")),
    html: button("HTML", () => saveFile("html", "text/html")),
    python: button("Copy Python", copyPython),
  };
  const toolbar = el("div", { class: "card-tools" }, ...Object.values(buttons));
  const root = el(
    "section",
    { class: "card", data: { card: name, state: "empty" }, "aria-label": title },
    el("header", {}, heading, toolbar),
    description ? el("p", { class: "description" }, description) : null,
    controls,
    caption,
    problem,
    body,
    table,
  );
  updateToolbar();

  function button(text, act, pressed = null) {
    return el("button", { type: "button", class: "tool", onclick: act, ...(pressed ? { [pressed]: "false" } : {}) }, text);
  }

  function updateToolbar() {
    for (const kind of ["svg", "csv", "html"]) buttons[kind].hidden = !content.files?.[kind];
    buttons.numbers.hidden = !content.tables;
    buttons.python.hidden = !content.python;
    if (!table.hidden) showNumbers();
  }

  function toggleFull() {
    const isFull = root.classList.toggle("full");
    buttons.full.setAttribute("aria-pressed", String(isFull));
    document.body.classList.toggle("covered", isFull);
    if (isFull) root.addEventListener("keydown", exitOnEscape);
    else root.removeEventListener("keydown", exitOnEscape);
    buttons.full.focus();
  }

  function exitOnEscape(event) {
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
    table.replaceChildren(...(content.tables?.() ?? []).map(dataTable));
  }

  async function saveFile(kind, type) {
    try {
      downloadFile(`${name}.${kind}`, type, await content.files[kind]());
    } catch (error) {
      if (error instanceof ApiError) fail(error.message, error.isHint);
      else throw error;
    }
  }

  async function copyPython() {
    const copied = await copyToClipboard(content.python);
    buttons.python.textContent = copied ? "Copied" : "Copy manually:";
    if (!copied) caption.replaceChildren(el("code", { class: "python" }, content.python));
    caption.hidden = !copied ? false : caption.hidden;
    setTimeout(() => (buttons.python.textContent = "Copy Python"), 1500);
  }

  /** Shows why there is no content: as a hint if the user can act on it, otherwise as an error. */
  function fail(sentence, isHint = true) {
    problem.className = isHint ? "hint" : "problem";
    problem.setAttribute("role", isHint ? "status" : "alert");
    problem.textContent = sentence;
    problem.hidden = false;
    root.dataset.state = "failed";
  }

  /** Draws what `load` returns. Resolves when it is drawn or has failed; a stale response changes nothing. */
  async function fill(load) {
    const start = performance.now();
    root.dataset.state = "busy";
    const timer = setInterval(() => {
      const seconds = (performance.now() - start) / 1000;
      if (seconds > 0.4) root.dataset.busy = `working, ${seconds.toFixed(0)} s`;
    }, 200);
    const previous = content.renderer;
    try {
      content = await load();
      problem.hidden = true;
      caption.textContent = content.caption ?? "";
      caption.hidden = !content.caption;
      if (content.title) heading.textContent = content.title;
      content.renderer = content.mount(body) ?? null;
      if (previous !== content.renderer) previous?.destroy?.(); // its listeners would keep it and its data in memory
      root.dataset.state = "drawn";
      updateToolbar();
    } catch (error) {
      if (error instanceof StaleResponse) return;
      previous?.destroy?.();
      body.replaceChildren();
      caption.hidden = true;
      content = {};
      updateToolbar();
      if (!(error instanceof ApiError)) throw error;
      fail(error.message, error.isHint);
    } finally {
      clearInterval(timer);
      delete root.dataset.busy;
    }
  }

  /** Shows only a sentence, such as a required input. */
  function showMessage(sentence) {
    content.renderer?.destroy?.();
    content = {};
    updateToolbar();
    caption.hidden = problem.hidden = true;
    body.replaceChildren(el("p", { class: "quiet" }, sentence));
    root.dataset.state = "waiting";
  }

  return { root, body, fill, fail, showMessage, renderer: () => content.renderer ?? null };
}

const MAX_ROWS = 2000;

/** A table of the drawn values, with all digits in the tooltips. */
export function dataTable({ title, columns, rows }) {
  const shown = rows.slice(0, MAX_ROWS);
  const cell = (value) =>
    typeof value === "number"
      ? el("td", { class: "n", title: String(value), data: { value } }, cellText(value))
      : el("td", {}, cellText(value));
  const hiddenRows = rows.length - shown.length;
  return el(
    "div",
    { class: "wide" },
    el(
      "table",
      {},
      el("caption", {}, title + (hiddenRows ? ` (the first ${MAX_ROWS} rows; the CSV has ${hiddenRows} more)` : "")),
      el("thead", {}, el("tr", {}, ...columns.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, ...shown.map((row) => el("tr", {}, ...row.map(cell)))),
    ),
  );
}

/** Tables as CSV, separated by empty lines. */
export const tablesCsv = (tables) => tables.map((each) => toCsv(each.columns, each.rows)).join("\n");

/** Fields behind one button. */
export const options = (...fields) => el("details", { class: "options" }, el("summary", {}, "Settings"), el("div", {}, ...fields));
