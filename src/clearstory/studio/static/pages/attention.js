// Attention: all heads at once, then one of them: who looks at whom, and the walk from what it reads to what it adds.

import { latestRequest, fetchArrays, StaleResponse } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as tileGrid } from "../render/tile_grid.js";
import { renderView } from "../renderers.js";
import { el } from "../dom.js";
import { viewTables } from "../format.js";
import { inspectSnippet, viewCard } from "../view_card.js";
import { headCombination } from "./head_combination.js";

/** Up to here every token has its row in the drawing; above, the strongest pairs stand in a table as well. */
const MAX_ROWS_WITHOUT_PAIRS = 48;
const MAX_PAIRS = 20;
const MAX_PREFETCHED = 8;

/** Whose attention, in words. */
const PART_LABELS = {
  encoder: "the source, read by the encoder",
  decoder: "what is written, read by the decoder",
  cross: "across: from what is written to the source",
};

export function mount(root, context, { views }) {
  const [patternsRequest, scoresRequest, headRequest] = [latestRequest(), latestRequest(), latestRequest()];
  let patterns = null; // {key, maps, rows, columns, parts, names, kinds, scores}
  let shownRequest = null; // the head that is drawn, as one string
  const prefetched = new Map(); // the numbers of heads that were pointed at, as they were asked for
  let prefetchTimer = 0;
  const { state } = context;
  const part = () => state.get("part");
  const order = () => state.get("order") ?? "place";
  const isSet = (name) => state.get(name) !== null;
  const setOption = (name, value) => (state.set({ [name]: value }, { quiet: true }), redraw());
  const checkbox = (name, words) => {
    const box = el("input", { type: "checkbox", name, checked: isSet(name), onchange: () => setOption(name, box.checked ? 1 : null) });
    return el("label", {}, box, el("span", {}, words));
  };

  const orders = el(
    "select",
    { name: "order", onchange: () => setOption("order", orders.value === "place" ? null : orders.value) },
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
    el("div", { class: "settings" }, el("label", {}, el("span", {}, "In order"), orders), checkbox("hide-first", "Hide the first column"), checkbox("flip", "Flip: columns look")),
  );
  const combination = headCombination(context);
  const patternsCard = makeCard({ name: "mosaic", title: "All heads", tools });
  const headCard = makeCard({ name: "pattern", title: "One head", tools: combination.root });
  const pairsCard = makeCard({ name: "pairs", title: "Strongest pairs" });
  pairsCard.root.hidden = true;
  /** What the page has chosen, of the settings that a view has. */
  const partSettings = (name) => () => {
    const settingNames = context.views().get(name)?.settings.map((row) => row.name) ?? [];
    return Object.fromEntries(["part", "target"].filter((key) => settingNames.includes(key)).map((key) => [key, state.get(key) ?? undefined]));
  };
  const viewCards = views.filter((name) => name !== "heads" && name !== "attention").map((name) => viewCard(context, name, { boundSettings: partSettings(name) }));
  root.replaceChildren(el("div", { class: "cards wide-first" }, patternsCard.root, headCard.root, pairsCard.root, ...viewCards.map((card) => card.root)));

  const requestBase = () => ({ model: context.model(), text: context.text(), settings: { ...(part() ? { part: part() } : {}), ...(isSet("target") ? { target: state.get("target") } : {}) } });

  function selectedHead() {
    const [layer, head] = [state.number("layer"), state.number("head")];
    return layer === null ? null : { layer, head: head ?? 0 };
  }

  async function update() {
    combination.paint();
    if (document.activeElement !== target) target.value = state.get("target") ?? "";
    const key = JSON.stringify(requestBase());
    const updateViewCards = () => Promise.all(viewCards.map((card) => card.update()));
    if (!patterns || patterns.key !== key) {
      patterns = null;
      shownRequest = null;
      prefetched.clear();
      viewCards.forEach((card) => card.cancel());
      await context.track(loadPatterns(key));
    } else {
      patternsCard.renderer()?.choose(selectedHead(), combination.also());
      await context.track(showHead());
    }
    if (JSON.stringify(requestBase()) === key) await updateViewCards(); // a model answers one question at a time, and these came second
  }

  /** All heads: their maps first, and what each is called when that is measured. */
  async function loadPatterns(key) {
    await patternsCard.fill(async () => {
      const result = await patternsRequest.run((signal) => fetchArrays({ ...requestBase(), function: "head_patterns" }, signal));
      patterns = { key, ...result };
      partTools.hidden = result.parts.length < 2;
      partBox.replaceChildren(...result.parts.map((each) => partOption(each, result.parts)));
      return patternsContent();
    });
    if (!patterns || patterns.key !== key) return;
    await showHead();
    context.track(loadScores(key));
  }

  function partOption(each, parts) {
    const box = el("input", { type: "radio", name: "part", value: each, checked: each === (part() ?? parts[0]), onchange: () => state.set({ part: each === parts[0] ? null : each, layer: null, head: null, heads: null }, { quiet: true }) });
    return el("label", {}, box, el("span", {}, PART_LABELS[each]));
  }

  async function loadScores(key) {
    try {
      const result = await scoresRequest.run((signal) => fetchArrays({ ...requestBase(), function: "head_scores" }, signal));
      if (patterns?.key !== key) return;
      Object.assign(patterns, result);
      await patternsCard.fill(async () => patternsContent());
    } catch (error) {
      if (!(error instanceof StaleResponse)) throw error;
    }
  }

  const patternsContent = () => ({
    title: `All ${patterns.maps.shape[0] * patterns.maps.shape[1]} heads: ${patterns.maps.shape[0]} layers of ${patterns.maps.shape[1]}`,
    caption: patternsCaption(),
    python: inspectSnippet({ ...requestBase(), view: "heads" }),
    tables: () => [table()],
    files: { csv: async () => tablesCsv([table()]) },
    mount: (body) => tileGrid(body, data(), { onPick: onTilePick, picked: selectedHead() }),
  });

  const data = () => ({ ...patterns, order: tileOrder(), inPlace: order() === "place" || !patterns.names, hideFirst: isSet("hide-first"), also: combination.also(), title: `${patterns.maps.shape[0]} layers of ${patterns.maps.shape[1]} heads` });

  function redraw() {
    if (!patterns) return;
    patternsCard.renderer()?.update(data(), selectedHead());
    shownRequest = null;
    context.track(showHead());
  }

  /** Every [layer, head], as they are to stand. */
  function tileOrder() {
    const [layers, heads] = patterns.maps.shape;
    /** @type {[number, number][]} */
    const places = Array.from({ length: layers * heads }, (_, i) => (layers > heads ? [i % layers, Math.floor(i / layers)] : [Math.floor(i / heads), i % heads]));
    if (order() === "place" || !patterns.names) return places;
    const typeOf = ([layer, head]) => patterns.kinds.indexOf(patterns.names[layer][head]);
    return places.toSorted((a, b) => typeOf(a) - typeOf(b) || score(b, typeOf(b)) - score(a, typeOf(a)));
  }

  const score = ([layer, head], typeOf) => {
    const [, heads, kinds] = patterns.scores.shape;
    return typeOf < kinds ? patterns.scores.values[(layer * heads + head) * kinds + typeOf] : 0;
  };

  function patternsCaption() {
    if (!patterns.names) return "Each small picture is a head: rows look, columns are looked at. What each does is being measured.";
    const flat = patterns.names.flat();
    const counts = patterns.kinds.map((typeOf) => [typeOf, flat.filter((each) => each === typeOf).length]).filter(([, count]) => count);
    return `Of ${flat.length} heads ${counts.map(([typeOf, count]) => `${count} ${typeOf}`).join(", ")}.`;
  }

  function table() {
    const [layers, heads] = patterns.maps.shape;
    const kinds = patterns.kinds?.slice(0, -1) ?? [];
    const rows = [];
    for (let layer = 0; layer < layers; layer++)
      for (let head = 0; head < heads; head++)
        rows.push([layer, head, patterns.names?.[layer][head] ?? null, ...kinds.map((_, typeOf) => score([layer, head], typeOf))]);
    return { title: "Heads and their measures", columns: ["layer", "head", "pattern", ...kinds], rows };
  }

  function onTilePick({ layer, head, pinned, add }) {
    if (!pinned) return prefetch({ layer, head });
    if (add) combination.toggle(layer, head);
    else state.set({ layer, head, heads: null }, { quiet: true });
  }

  const headRequestOf = (what, headSettings) => ({ ...requestBase(), what, settings: { ...requestBase().settings, ...headSettings } });

  /** A head that is pointed at for a moment is asked for: a click shows it at once. */
  function prefetch(head) {
    clearTimeout(prefetchTimer);
    prefetchTimer = setTimeout(() => {
      const request = headRequestOf("head", head);
      const key = JSON.stringify(request);
      if (prefetched.has(key) || !patterns) return;
      prefetched.set(key, fetchArrays(request));
      prefetched.get(key).catch(() => prefetched.delete(key));
      if (prefetched.size > MAX_PREFETCHED) prefetched.delete(prefetched.keys().next().value);
    }, 40);
  }

  /** The chosen head's weights, exact, or those of several as one map. */
  async function showHead() {
    const heads = combination.chosen();
    const headSettings = heads ? { heads, reduce: combination.reduce() } : (selectedHead() ?? {});
    const request = headRequestOf(heads ? "together" : "head", headSettings);
    const key = JSON.stringify(request);
    if (key === shownRequest) return headCard.renderer()?.point?.({ row: rowsAreTokens() ? context.hoveredToken.get() : null, pinned: pinnedRow() });
    shownRequest = key;
    return headCard.fill(async () => {
      let result;
      try {
        result = await headRequest.run((signal) => prefetched.get(key) ?? fetchArrays(request, signal));
      } catch (error) {
        prefetched.delete(key);
        shownRequest = null;
        throw error;
      }
      const view = toGridView(result);
      pairsCard.root.hidden = result.rows.length <= MAX_ROWS_WITHOUT_PAIRS && result.columns.length <= MAX_ROWS_WITHOUT_PAIRS;
      if (!pairsCard.root.hidden) pairsCard.fill(async () => pairsContent(strongestPairs(result)));
      return {
        title: `${heads ? result.title : `Layer ${result.layer}, head ${result.head}`}: each ${isSet("flip") ? "column takes from the rows" : "row takes from the columns"}`,
        caption: result.caption,
        python: inspectSnippet({ ...requestBase(), view: heads ? "combined-heads" : "attention", settings: { ...requestBase().settings, ...(heads ? headSettings : { layer: result.layer, head: result.head }) } }),
        tables: () => viewTables(view),
        files: { csv: async () => tablesCsv(viewTables(view)) },
        mount: (body) => {
          Object.assign(body.dataset, { layer: result.layer ?? "", head: result.head ?? "", heads: heads?.join(";") ?? "" });
          return renderView(body, withoutFirstColumn(view), { onPick: (each) => context.pick(each, view), picked: { row: pinnedRow() } });
        },
      };
    });
  }

  const rowsAreTokens = () => patterns && patterns.rows.length === context.tokens().length;
  const pinnedRow = () => (rowsAreTokens() ? (state.pinned()[0] ?? null) : null);

  function toGridView(result) {
    const [rows, columns] = result.weights.shape;
    const values = Array.from({ length: rows }, (_, row) => [...result.weights.values.subarray(row * columns, (row + 1) * columns)]);
    const view = { kind: "grid", title: result.title ?? `Attention of ${result.words}, head ${result.head}`, readers: isSet("flip") ? "reads" : "is read by", row_labels: result.rows, column_labels: result.columns, values, unit: "weight", caption: result.caption };
    return isSet("flip") ? { ...view, row_labels: result.columns, column_labels: result.rows, values: result.columns.map((_, column) => values.map((row) => row[column])) } : view;
  }

  /** The same without its first column, if that is hidden: drawn so, never in the numbers. */
  function withoutFirstColumn(view) {
    if (!isSet("hide-first")) return view;
    const isHidden = isSet("flip") ? (_, row) => row === 0 : (column) => column === 0;
    return { ...view, values: view.values.map((row, r) => row.map((value, c) => (isHidden(c, r) ? 0 : value))) };
  }

  function strongestPairs(result) {
    const columns = result.weights.shape[1];
    const weights = isSet("hide-first") ? result.weights.values.map((weight, place) => (place % columns ? weight : 0)) : result.weights.values;
    const threshold = weights.toSorted().at(-MAX_PAIRS) ?? 0; // numbers are sorted as such, places by a function: fifty times as long
    const places = [];
    weights.forEach((weight, place) => weight >= threshold && weight && places.push(place));
    places.sort((a, b) => weights[b] - weights[a]);
    return places.slice(0, MAX_PAIRS).map((place) => [result.rows[Math.floor(place / columns)], result.columns[place % columns], result.weights.values[place]]);
  }

  const pairsContent = (rows) => {
    const view = { kind: "table", title: `The ${MAX_PAIRS} strongest pairs${isSet("hide-first") ? " outside of the first column" : ""}`, columns: ["looks", "at", "weight"], rows, bar: "weight" };
    return { title: view.title, tables: () => viewTables(view), files: { csv: async () => tablesCsv(viewTables(view)) }, mount: (body) => renderView(body, view) };
  };

  const unsubscribe = context.hoveredToken.on(() => headCard.renderer()?.point?.({ row: rowsAreTokens() ? context.hoveredToken.get() : null, pinned: pinnedRow() }));
  return {
    update,
    destroy: () => {
      unsubscribe();
      clearTimeout(prefetchTimer);
      for (const asking of [patternsRequest, scoresRequest, headRequest]) asking.cancel();
      for (const card of [patternsCard, headCard]) card.renderer()?.destroy?.();
      viewCards.forEach((card) => card.destroy());
    },
  };
}
