// Attention: all heads at once, then one of them: who looks at whom, and the walk from what it reads to what it adds.

import { latestRequest, fetchArrays, StaleResponse } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as mosaic } from "../render/tile_grid.js";
import { renderView } from "../renderers.js";
import { el } from "../dom.js";
import { viewTables } from "../format.js";
import { inspectSnippet, viewCard } from "../view_card.js";
import { headCombination } from "./head_combination.js";

/** Up to here every token has its row in the drawing; above, the strongest pairs stand in a table as well. */
const FEW = 48;
const PAIRS = 20;
const MOST_NEAR = 8;

/** Whose attention, in words. */
const PARTS = {
  encoder: "the source, read by the encoder",
  decoder: "what is written, read by the decoder",
  cross: "across: from what is written to the source",
};

export function mount(root, context, { views }) {
  const [all, measuring, one] = [latestRequest(), latestRequest(), latestRequest()];
  let seen = null; // {key, maps, rows, columns, parts, names, kinds, scores}
  let shown = null; // the head that is drawn, as one string
  const near = new Map(); // the numbers of heads that were pointed at, as they were asked for
  let waiting = 0;
  const { state } = context;
  const part = () => state.get("part");
  const order = () => state.get("order") ?? "place";
  const on = (name) => state.get(name) !== null;
  const put = (name, value) => (state.set({ [name]: value }, { quiet: true }), repaint());
  const tick = (name, words) => {
    const box = el("input", { type: "checkbox", name, checked: on(name), onchange: () => put(name, box.checked ? 1 : null) });
    return el("label", {}, box, el("span", {}, words));
  };

  const orders = el(
    "select",
    { name: "order", onchange: () => put("order", orders.value === "place" ? null : orders.value) },
    el("option", { value: "place" }, "by layer"),
    el("option", { value: "kind" }, "by pattern"),
  );
  orders.value = order();
  const partBox = el("span", { class: "parts", role: "radiogroup", "aria-label": "Whose attention" });
  const target = el("input", { type: "text", name: "target", size: 28, placeholder: "nothing yet", onchange: () => state.set({ target: target.value }, { quiet: true }) });
  const partTools = el("div", { class: "settings", hidden: true }, el("span", { class: "soft" }, "Whose"), partBox, el("label", {}, el("span", {}, "Written so far"), target));
  const tools = el(
    "div",
    {},
    partTools,
    el("div", { class: "settings" }, el("label", {}, el("span", {}, "In order"), orders), tick("hide-first", "Hide the first column"), tick("flip", "Flip: columns look")),
  );
  const several = headCombination(context);
  const over = makeCard({ name: "mosaic", title: "All heads", tools });
  const pattern = makeCard({ name: "pattern", title: "One head", tools: several.root });
  const pairs = makeCard({ name: "pairs", title: "Strongest pairs" });
  pairs.root.hidden = true;
  /** What the page has chosen, of the settings that a view has. */
  const bound = (name) => () => {
    const has = context.views().get(name)?.settings.map((row) => row.name) ?? [];
    return Object.fromEntries(["part", "target"].filter((key) => has.includes(key)).map((key) => [key, state.get(key) ?? undefined]));
  };
  const rest = views.filter((name) => name !== "heads" && name !== "attention").map((name) => viewCard(context, name, { bound: bound(name) }));
  root.replaceChildren(el("div", { class: "cards wide-first" }, over.root, pattern.root, pairs.root, ...rest.map((card) => card.root)));

  const asked = () => ({ model: context.model(), text: context.text(), settings: { ...(part() ? { part: part() } : {}), ...(on("target") ? { target: state.get("target") } : {}) } });

  function chosen() {
    const [layer, head] = [state.number("layer"), state.number("head")];
    return layer === null ? null : { layer, head: head ?? 0 };
  }

  async function update() {
    several.paint();
    if (document.activeElement !== target) target.value = state.get("target") ?? "";
    const key = JSON.stringify(asked());
    const others = () => Promise.all(rest.map((card) => card.update()));
    if (!seen || seen.key !== key) {
      seen = null;
      shown = null;
      near.clear();
      rest.forEach((card) => card.drop());
      await context.track(first(key));
    } else {
      over.renderer()?.choose(chosen(), several.also());
      await context.track(showHead());
    }
    if (JSON.stringify(asked()) === key) await others(); // a model answers one question at a time, and these came second
  }

  /** All heads: their maps first, and what each is called when that is measured. */
  async function first(key) {
    await over.fill(async () => {
      const made = await all.ask((signal) => fetchArrays({ ...asked(), what: "mosaic" }, signal));
      seen = { key, ...made };
      partTools.hidden = made.parts.length < 2;
      partBox.replaceChildren(...made.parts.map((each) => choice(each, made.parts)));
      return filled();
    });
    if (!seen || seen.key !== key) return;
    await showHead();
    context.track(measured(key));
  }

  function choice(each, parts) {
    const box = el("input", { type: "radio", name: "part", value: each, checked: each === (part() ?? parts[0]), onchange: () => state.set({ part: each === parts[0] ? null : each, layer: null, head: null, heads: null }, { quiet: true }) });
    return el("label", {}, box, el("span", {}, PARTS[each]));
  }

  async function measured(key) {
    try {
      const made = await measuring.ask((signal) => fetchArrays({ ...asked(), what: "measures" }, signal));
      if (seen?.key !== key) return;
      Object.assign(seen, made);
      await over.fill(async () => filled());
    } catch (error) {
      if (!(error instanceof StaleResponse)) throw error;
    }
  }

  const filled = () => ({
    title: `All ${seen.maps.shape[0] * seen.maps.shape[1]} heads: ${seen.maps.shape[0]} layers of ${seen.maps.shape[1]}`,
    caption: looked(),
    python: inspectSnippet({ ...asked(), view: "heads" }),
    tables: () => [table()],
    files: { csv: async () => tablesCsv([table()]) },
    mount: (body) => mosaic(body, data(), { onPick: pick, picked: chosen() }),
  });

  const data = () => ({ ...seen, order: placed(), inPlace: order() === "place" || !seen.names, hideFirst: on("hide-first"), also: several.also(), title: `${seen.maps.shape[0]} layers of ${seen.maps.shape[1]} heads` });

  function repaint() {
    if (!seen) return;
    over.renderer()?.update(data(), chosen());
    shown = null;
    context.track(showHead());
  }

  /** Every [layer, head], as they are to stand. */
  function placed() {
    const [layers, heads] = seen.maps.shape;
    /** @type {[number, number][]} */
    const places = Array.from({ length: layers * heads }, (_, i) => (layers > heads ? [i % layers, Math.floor(i / layers)] : [Math.floor(i / heads), i % heads]));
    if (order() === "place" || !seen.names) return places;
    const kind = ([layer, head]) => seen.kinds.indexOf(seen.names[layer][head]);
    return places.toSorted((a, b) => kind(a) - kind(b) || score(b, kind(b)) - score(a, kind(a)));
  }

  const score = ([layer, head], kind) => {
    const [, heads, kinds] = seen.scores.shape;
    return kind < kinds ? seen.scores.values[(layer * heads + head) * kinds + kind] : 0;
  };

  function looked() {
    if (!seen.names) return "Each small picture is a head: rows look, columns are looked at. What each does is being measured.";
    const flat = seen.names.flat();
    const counts = seen.kinds.map((kind) => [kind, flat.filter((each) => each === kind).length]).filter(([, count]) => count);
    return `Of ${flat.length} heads ${counts.map(([kind, count]) => `${count} ${kind}`).join(", ")}.`;
  }

  function table() {
    const [layers, heads] = seen.maps.shape;
    const kinds = seen.kinds?.slice(0, -1) ?? [];
    const rows = [];
    for (let layer = 0; layer < layers; layer++)
      for (let head = 0; head < heads; head++)
        rows.push([layer, head, seen.names?.[layer][head] ?? null, ...kinds.map((_, kind) => score([layer, head], kind))]);
    return { title: "Heads and their measures", columns: ["layer", "head", "pattern", ...kinds], rows };
  }

  function pick({ layer, head, pinned, add }) {
    if (!pinned) return soon({ layer, head });
    if (add) several.toggle(layer, head);
    else state.set({ layer, head, heads: null }, { quiet: true });
  }

  const wantedOf = (what, own) => ({ ...asked(), what, settings: { ...asked().settings, ...own } });

  /** A head that is pointed at for a moment is asked for: a click shows it at once. */
  function soon(head) {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const wanted = wantedOf("head", head);
      const key = JSON.stringify(wanted);
      if (near.has(key) || !seen) return;
      near.set(key, fetchArrays(wanted));
      near.get(key).catch(() => near.delete(key));
      if (near.size > MOST_NEAR) near.delete(near.keys().next().value);
    }, 40);
  }

  /** The chosen head's weights, exact, or those of several as one map. */
  async function showHead() {
    const heads = several.chosen();
    const own = heads ? { heads, reduce: several.reduce() } : (chosen() ?? {});
    const wanted = wantedOf(heads ? "together" : "head", own);
    const key = JSON.stringify(wanted);
    if (key === shown) return pattern.renderer()?.point?.({ row: ownRows() ? context.preview.get() : null, pinned: pinnedRow() });
    shown = key;
    return pattern.fill(async () => {
      let made;
      try {
        made = await one.ask((signal) => near.get(key) ?? fetchArrays(wanted, signal));
      } catch (error) {
        near.delete(key);
        shown = null;
        throw error;
      }
      const view = gridOf(made);
      pairs.root.hidden = made.rows.length <= FEW && made.columns.length <= FEW;
      if (!pairs.root.hidden) pairs.fill(async () => listed(pairsOf(made)));
      return {
        title: `${heads ? made.title : `Layer ${made.layer}, head ${made.head}`}: each ${on("flip") ? "column takes from the rows" : "row takes from the columns"}`,
        caption: made.caption,
        python: inspectSnippet({ ...asked(), view: heads ? "combined-heads" : "attention", settings: { ...asked().settings, ...(heads ? own : { layer: made.layer, head: made.head }) } }),
        tables: () => viewTables(view),
        files: { csv: async () => tablesCsv(viewTables(view)) },
        mount: (body) => {
          Object.assign(body.dataset, { layer: made.layer ?? "", head: made.head ?? "", heads: heads?.join(";") ?? "" });
          return renderView(body, drawn(view), { onPick: (each) => context.pick(each, view), picked: { row: pinnedRow() } });
        },
      };
    });
  }

  const ownRows = () => seen && seen.rows.length === context.tokens().length;
  const pinnedRow = () => (ownRows() ? (state.pinned()[0] ?? null) : null);

  function gridOf(made) {
    const [rows, columns] = made.weights.shape;
    const values = Array.from({ length: rows }, (_, row) => [...made.weights.values.subarray(row * columns, (row + 1) * columns)]);
    const view = { kind: "grid", title: made.title ?? `Attention of ${made.words}, head ${made.head}`, readers: on("flip") ? "reads" : "is read by", row_labels: made.rows, column_labels: made.columns, values, unit: "weight", caption: made.caption };
    return on("flip") ? { ...view, row_labels: made.columns, column_labels: made.rows, values: made.columns.map((_, column) => values.map((row) => row[column])) } : view;
  }

  /** The same without its first column, if that is hidden: drawn so, never in the numbers. */
  function drawn(view) {
    if (!on("hide-first")) return view;
    const blank = on("flip") ? (_, row) => row === 0 : (column) => column === 0;
    return { ...view, values: view.values.map((row, r) => row.map((value, c) => (blank(c, r) ? 0 : value))) };
  }

  function pairsOf(made) {
    const columns = made.weights.shape[1];
    const weights = on("hide-first") ? made.weights.values.map((weight, place) => (place % columns ? weight : 0)) : made.weights.values;
    const least = weights.toSorted().at(-PAIRS) ?? 0; // numbers are sorted as such, places by a function: fifty times as long
    const places = [];
    weights.forEach((weight, place) => weight >= least && weight && places.push(place));
    places.sort((a, b) => weights[b] - weights[a]);
    return places.slice(0, PAIRS).map((place) => [made.rows[Math.floor(place / columns)], made.columns[place % columns], made.weights.values[place]]);
  }

  const listed = (rows) => {
    const view = { kind: "table", title: `The ${PAIRS} strongest pairs${on("hide-first") ? " outside of the first column" : ""}`, columns: ["looks", "at", "weight"], rows, bar: "weight" };
    return { title: view.title, tables: () => viewTables(view), files: { csv: async () => tablesCsv(viewTables(view)) }, mount: (body) => renderView(body, view) };
  };

  const unhear = context.preview.on(() => pattern.renderer()?.point?.({ row: ownRows() ? context.preview.get() : null, pinned: pinnedRow() }));
  return {
    update,
    end: () => {
      unhear();
      clearTimeout(waiting);
      for (const asking of [all, measuring, one]) asking.drop();
      for (const card of [over, pattern]) card.renderer()?.end?.();
      rest.forEach((card) => card.end());
    },
  };
}
