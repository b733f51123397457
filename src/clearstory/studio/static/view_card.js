// Viewcard: any view of the library as a card: its settings as a form, its drawing, its numbers, its files.

import { fetchFile, latestRequest, postJson } from "./api.js";
import { makeCard, tablesCsv } from "./card.js";
import { renderView } from "./renderers.js";
import { el } from "./dom.js";
import { viewTables, pythonLiteral, visibleWhitespace } from "./format.js";

/** Views that are not about the sentence but about a text of their own, and what that is at first. */
const ABOUT = {
  neighbours: { label: "Word", usual: (context) => context.word() },
  projection: { label: "Words", usual: (context) => context.text() },
  analogy: { label: "Analogy", usual: () => "king - man + woman" },
  "semantic-axis": { label: "Words", usual: (context) => context.text() },
  "dependency-heads": { label: "A .conllu file", usual: () => "" },
};

/** What must be filled in before a view can be shown. */
const NEEDS = { "dependency-heads": "about", "semantic-axis": "words", "activation-patching": "other_text", "contextual-embeddings": "other_text", interventions: "edit" };

/** Above so many tokens a view waits until it is asked for: its grids have a row and a column for each. */
const LONG = { head: 128 };

/** What a view is asked for by the chips that are pinned: an encoder hides them from itself. */
const PINNED = {
  "fill-mask": (context) => {
    const [own, read] = [context.tokens().length, context.traced()?.read?.pieces.length];
    const pinned = context.state.pinned();
    return pinned.length && read === own + 2 ? { mask: pinned.map((place) => place + 1) } : {}; // behind [CLS]
  },
};

/** Settings that all cards share, through the page's address. */
const SHARED = new Set(["layer", "head"]);

/** Settings that a page has no use for: the card's own buttons do it, or nothing is ever cut off. */
const LEFT_OUT = new Set(["truncate"]);

/**
 * A card of the view `name`; update() asks again where model, text or settings have changed. A card below the window
 * asks when it comes into sight. `bound()` gives settings that the page keeps; they have no field in the form. `drawn` draws in
 * place of the kind's own drawer, `onPick(pick, view, asked)` hears what is pointed at, `empty` is said where something
 * must be given first; nothing is asked while `wait()`. update({again: true}) asks in any case: the model has learnt on.
 */
export function viewCard(context, name, { settings = {}, bound = null, title = null, drawn = renderView, onPick = context.pick, empty = null, wait = () => /** @type {boolean} */ (false) } = {}) {
  const asking = latestRequest();
  const about = ABOUT[name];
  const known = context.views().get(name);
  const own = {}; // what was set in the card's form
  let aboutText = null; // what was typed in place of the usual text
  let asked = null; // what was asked last, as one string
  let seen = false;
  const long = () => context.tokens().length > (LONG[name] ?? Infinity);
  let wished = false; // a slow view, or one of a long text, waits until it is asked for
  const tools = el("form", { class: "settings", onsubmit: (event) => event.preventDefault() });
  const compute = el("button", { type: "button", class: "strong", onclick: () => ((wished = true), update()) }, "Compute");
  const stop = el("button", { type: "button", onclick: () => hush() }, "Stop");
  const computeBox = el("span", { class: "buttons" }, compute, stop);
  const card = makeCard({ name, title: title ?? name, says: known?.says.replaceAll("`", "") ?? null, tools });
  const watcher = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) sight();
  }, { rootMargin: "300px" });
  watcher.observe(card.root);
  fields();

  function fields() {
    const rows = (known?.settings ?? []).filter((row) => !LEFT_OUT.has(row.name) && !(row.name in { ...settings, ...bound?.() }));
    tools.replaceChildren(...(about ? [aboutField()] : []), ...rows.map(field));
    tools.append(computeBox);
    offer();
  }

  /** Whether it waits until it is asked for; then there are buttons for that. */
  function offer() {
    computeBox.hidden = !known?.slow && !long();
    tools.hidden = tools.children.length === 1 && computeBox.hidden;
    return !computeBox.hidden;
  }

  function aboutField() {
    const input = el("input", { type: "text", name: "about", size: 24, oninput: () => later("about", () => (aboutText = input.value)) });
    input.value = aboutText ?? about.usual(context);
    return el("label", {}, el("span", {}, about.label), input);
  }

  function field(row) {
    const value = valueOf(row);
    if (row.kind === "switch") {
      const box = el("input", { type: "checkbox", name: row.name, checked: Boolean(value), onchange: () => put(row, box.checked) });
      return el("label", {}, box, el("span", {}, row.name));
    }
    if (row.kind === "choice") {
      const select = el("select", { name: row.name, onchange: () => put(row, select.value || null) });
      if (row.default === null) select.append(el("option", { value: "" }, "as usual"));
      select.append(...row.choices.map((each) => el("option", { value: each, selected: each === value }, each)));
      return el("label", {}, el("span", {}, row.name), select);
    }
    const number = row.kind === "whole" || row.kind === "number";
    const input = el("input", {
      type: number ? "number" : "text", step: row.kind === "whole" ? "1" : "any", name: row.name,
      placeholder: row.kind === "list" ? "one; another" : row.default === null ? "usual" : String(row.default), size: number ? 6 : 16,
      oninput: () => later(row.name, () => put(row, read(row, input.value))),
    });
    input.value = value === null || value === undefined || value === row.default ? "" : value;
    return el("label", {}, el("span", {}, row.name), input);
  }

  function read(row, text) {
    if (text === "") return null;
    if (row.kind === "list") return text.split(";").map((each) => each.trim()).filter(Boolean);
    return row.kind === "whole" || row.kind === "number" ? Number(text) : text;
  }

  function valueOf(row) {
    return SHARED.has(row.name) ? context.state.number(row.name) : (own[row.name] ?? row.default);
  }

  let waiting = 0;
  let gathering = false;
  const changes = new Map(); // by field: two that are filled in quickly both count
  function later(field, change) {
    changes.set(field, change);
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      gathering = true;
      for (const each of changes.values()) each();
      changes.clear();
      gathering = false;
      update();
    }, 250);
  }

  function put(row, value) {
    if (SHARED.has(row.name)) context.state.set({ [row.name]: value }, { quiet: true });
    else {
      if (value === null) delete own[row.name];
      else own[row.name] = value;
      update();
    }
  }

  /** What the library is asked. */
  function question() {
    const said = { ...settings, ...(own.mask ? {} : PINNED[name]?.(context)), ...bound?.() };
    for (const row of known?.settings ?? []) {
      const value = SHARED.has(row.name) ? context.state.number(row.name) : own[row.name];
      if (value !== null && value !== undefined && !(row.name in said)) said[row.name] = value;
    }
    return { model: context.model(), text: aboutText ?? about?.usual(context) ?? context.text(), view: name, settings: said };
  }

  const inSight = () => card.root.getBoundingClientRect().top < innerHeight + 300;

  /** Asks, if there is something new to ask and the card is in sight. Resolves when it is painted. */
  function update({ again = false } = {}) {
    if (again) asked = null;
    if (!context.model() || !card.root.isConnected || gathering || wait()) return Promise.resolve();
    for (const key of SHARED) {
      const input = tools.elements[key];
      if (input && document.activeElement !== input) input.value = context.state.number(key) ?? "";
    }
    const box = tools.elements.about;
    if (box && aboutText === null && document.activeElement !== box) box.value = about.usual(context);
    const wanted = question();
    if (JSON.stringify(wanted) === asked) {
      point();
      return Promise.resolve();
    }
    seen = seen || inSight();
    if (missing(wanted)) return Promise.resolve();
    if (offer() && !wished) return hush();
    return seen ? ask(wanted) : Promise.resolve();
  }

  /** Whether something must be filled in first; then the card says what, and asks nothing. */
  function missing(wanted) {
    const need = NEEDS[name];
    const given = need === "about" ? wanted.text : wanted.settings[need];
    if (!need || (given ?? "").length) return false;
    asked = null;
    asking.drop();
    card.wait(empty ?? `Fill in ‘${need === "about" ? about.label : need}’ above to see this.`);
    return true;
  }

  /** A slow view that is not asked for says so. */
  function hush() {
    wished = false;
    asked = null;
    asking.drop(); // of what was asked before the settings changed
    card.wait(known?.slow ? "This reads the text once for each part of the model, which takes a while: Compute begins it." : `${context.tokens().length} tokens make long tables, which take a while: Compute begins it.`);
    return Promise.resolve();
  }

  function sight() {
    if (seen) return;
    seen = true;
    update();
  }

  function ask(wanted) {
    asked = JSON.stringify(wanted);
    wished = false; // another text is another wish
    return context.track(
      card.fill(async () => {
        let view;
        try {
          view = await asking.ask((signal) => postJson("view", wanted, signal));
        } catch (error) {
          asked = null;
          throw error;
        }
        return filled(view, wanted);
      }),
    );
  }

  let shown = null; // the view that is drawn

  /** Whether its rows are the sentence's tokens, so that pinning a chip is pinning a row. */
  const ownRows = () => shown?.row_labels?.length === context.tokens().length;

  /** The pinned chip, or the one that is pointed at, as the drawing's row. */
  function point() {
    if (!ownRows()) return;
    card.renderer()?.point?.({ row: context.preview.get(), pinned: context.state.pinned()[0] ?? null });
  }
  const unhear = context.preview.on(point);

  const filled = (view, wanted) => ({
    title: view.title,
    caption: view.caption,
    python: inspectSnippet(wanted),
    tables: () => viewTables(view),
    files: {
      svg: () => fetchFile(wanted, "svg"),
      csv: async () => (view.kind in { table: 1, grid: 1, curve: 1, highlighted_text: 1 } ? tablesCsv(viewTables(view)) : fetchFile(wanted, "csv")),
      html: () => fetchFile(wanted, "html"),
    },
    mount: (body) => {
      shown = view;
      const picked = { stage: context.state.get("stage"), row: ownRows() ? (context.state.pinned()[0] ?? null) : null };
      const renderer = drawn(body, view, { onPick: (pick) => onPick(pick, view, wanted), picked });
      body.dataset.kind = view.kind;
      return renderer;
    },
  });

  /** Another text is being read: what was asked of the old one is not wanted. */
  const drop = () => (asking.drop(), (asked = null));

  return { root: card.root, update, drop, end: () => (unhear(), watcher.disconnect(), card.renderer()?.end?.(), asking.drop()) };
}

/** The call that gives these numbers, to be run in the studio's folder. */
export function inspectSnippet({ model, text, view, settings }) {
  const own = Object.entries(settings).filter(([, value]) => value !== undefined).map(([name, value]) => `, ${name}=${pythonLiteral(value)}`);
  return `import clearstory\n\nview = clearstory.inspect(${pythonLiteral(model)}, ${pythonLiteral(text)}, view=${pythonLiteral(view)}${own.join("")})\n`;
}

/** What is said of a text that is shown in the middle of words. */
export const quoted = (text) => `“${visibleWhitespace(text)}”`;
