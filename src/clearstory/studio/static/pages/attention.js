// Attention page: the patterns of all heads, the weights of one head or of several combined, and the attention views.

import { latestRequest, fetchArrays, StaleResponse } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as tileGrid } from "../render/tile_grid.js";
import { renderView } from "../renderers.js";
import { el } from "../dom.js";
import { viewTables } from "../format.js";
import { inspectSnippet, viewCard } from "../view_card.js";
import { headCombination } from "./head_combination.js";

/** Above this many tokens the strongest pairs are also listed in a table. */
const MAX_ROWS_WITHOUT_PAIRS = 48;
const MAX_PAIRS = 20;
const MAX_PREFETCHED = 8;

/** Labels of the attention parts of an encoder-decoder. */
const PART_LABELS = {
  encoder: "encoder self-attention (source)",
  decoder: "decoder self-attention (target)",
  cross: "cross-attention (target to source)",
};

export function mount(root, context, { views }) {
  const [patternsRequest, scoresRequest, headRequest] = [latestRequest(), latestRequest(), latestRequest()];
  let allHeads = null; // {key, patterns, rows, columns, parts, names, kinds, scores}
  let shownRequest = null; // the last request as JSON
  let shownHead = null; // {layer, head} that the page shows while none is chosen
  const prefetched = new Map(); // responses for hovered heads by request
  let prefetchTimer = 0;
  const { state } = context;
  const part = () => state.get("part");
  const order = () => state.get("order") ?? "layer";
  const isSet = (name) => state.get(name) !== null;
  const setOption = (name, value) => (state.set({ [name]: value }, { quiet: true }), redraw());
  const checkbox = (name, words) => {
    const box = el("input", { type: "checkbox", name, checked: isSet(name), onchange: () => setOption(name, box.checked ? 1 : null) });
    return el("label", {}, box, el("span", {}, words));
  };

  const orders = el(
    "select",
    { name: "order", onchange: () => setOption("order", orders.value === "layer" ? null : orders.value) },
    el("option", { value: "layer" }, "by layer"),
    el("option", { value: "type" }, "by head type"),
  );
  orders.value = order();
  const partBox = el("span", { class: "parts", role: "radiogroup", "aria-label": "Attention part" });
  const target = el("input", { type: "text", name: "target", size: 28, placeholder: "empty", onchange: () => state.set({ target: target.value }, { quiet: true }) });
  const partTools = el("div", { class: "settings", hidden: true }, el("span", { class: "soft" }, "Part"), partBox, el("label", {}, el("span", {}, "Generated target"), target));
  const tools = el(
    "div",
    {},
    partTools,
    el("div", { class: "settings" }, el("label", {}, el("span", {}, "Order"), orders), checkbox("hide-first", "Hide the first column"), checkbox("flip", "Transpose (columns are queries)")),
  );
  const combination = headCombination(context);
  const patternsCard = makeCard({ name: "all-heads", title: "All heads", tools });
  const headCard = makeCard({ name: "head-pattern", title: "One head", tools: combination.root });
  const pairsCard = makeCard({ name: "pairs", title: "Strongest pairs" });
  pairsCard.root.hidden = true;
  /** The part, the target and, while none is chosen, the head of the page, for views that have these settings. */
  const pageSettings = (name) => () => {
    const values = { part: state.get("part") ?? undefined, target: state.get("target") ?? undefined, ...(isSet("layer") && isSet("head") ? {} : (selectedHead() ?? shownHead)) };
    const settingNames = context.views().get(name)?.settings.map((row) => row.name) ?? [];
    return Object.fromEntries(Object.entries(values).filter(([key]) => settingNames.includes(key)));
  };
  const viewCards = views.filter((name) => name !== "heads" && name !== "attention").map((name) => viewCard(context, name, { boundSettings: pageSettings(name) }));
  root.replaceChildren(el("div", { class: "cards wide-first" }, patternsCard.root, headCard.root, pairsCard.root, ...viewCards.map((card) => card.root)));

  const requestBase = () => ({ ...context.input(), settings: { ...(part() ? { part: part() } : {}), ...(isSet("target") ? { target: state.get("target") } : {}) } });

  function selectedHead() {
    const [layer, head] = [state.number("layer"), state.number("head")];
    return layer === null ? null : { layer, head: head ?? 0 };
  }

  async function update() {
    combination.paint();
    if (document.activeElement !== target) target.value = state.get("target") ?? "";
    const key = JSON.stringify(requestBase());
    const updateViewCards = () => Promise.all(viewCards.map((card) => card.update()));
    if (!allHeads || allHeads.key !== key) {
      allHeads = shownRequest = shownHead = null;
      prefetched.clear();
      viewCards.forEach((card) => card.cancel());
      await context.track(loadPatterns(key));
    } else {
      patternsCard.renderer()?.choose(selectedHead() ?? shownHead, combination.headSet());
      await context.track(showHead());
    }
    if (JSON.stringify(requestBase()) === key) await updateViewCards(); // the server handles one request per model at a time, so these come last
  }

  /** Loads the patterns of all heads, then their types and scores. */
  async function loadPatterns(key) {
    await patternsCard.fill(async () => {
      const result = await patternsRequest.run((signal) => fetchArrays({ ...requestBase(), function: "head_patterns" }, signal));
      allHeads = { key, ...result };
      shownHead = (part() === null && context.keptHead()) || { layer: result.selected[0], head: result.selected[1] };
      partTools.hidden = result.parts.length < 2;
      partBox.replaceChildren(...result.parts.map((each) => partOption(each, result.parts)));
      return patternsContent();
    });
    if (!allHeads || allHeads.key !== key) return;
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
      if (allHeads?.key !== key) return;
      Object.assign(allHeads, result);
      await patternsCard.fill(async () => patternsContent());
    } catch (error) {
      if (!(error instanceof StaleResponse)) throw error;
    }
  }

  const patternsContent = () => ({
    title: `All ${allHeads.patterns.shape[0] * allHeads.patterns.shape[1]} heads: ${allHeads.patterns.shape[0]} layers of ${allHeads.patterns.shape[1]}`,
    caption: patternsCaption(),
    python: inspectSnippet({ ...requestBase(), view: "heads" }),
    tables: () => [table()],
    files: { csv: async () => tablesCsv([table()]) },
    mount: (body) => tileGrid(body, data(), { onPick: onTilePick, picked: selectedHead() ?? shownHead }),
  });

  const data = () => ({ ...allHeads, order: tileOrder(), inPlace: order() === "layer" || !allHeads.names, hideFirst: isSet("hide-first"), alsoSelected: combination.headSet(), title: `${allHeads.patterns.shape[0]} layers of ${allHeads.patterns.shape[1]} heads` });

  function redraw() {
    if (!allHeads) return;
    patternsCard.renderer()?.update(data(), selectedHead() ?? shownHead);
    shownRequest = null;
    context.track(showHead());
  }

  /** Every [layer, head] in display order. */
  function tileOrder() {
    const [layers, heads] = allHeads.patterns.shape;
    /** @type {[number, number][]} */
    const positions = Array.from({ length: layers * heads }, (_, i) => (layers > heads ? [i % layers, Math.floor(i / layers)] : [Math.floor(i / heads), i % heads]));
    if (order() === "layer" || !allHeads.names) return positions;
    const typeOf = ([layer, head]) => allHeads.kinds.indexOf(allHeads.names[layer][head]);
    return positions.toSorted((a, b) => typeOf(a) - typeOf(b) || score(b, typeOf(b)) - score(a, typeOf(a)));
  }

  const score = ([layer, head], type) => {
    const [, heads, kinds] = allHeads.scores.shape;
    return type < kinds ? allHeads.scores.values[(layer * heads + head) * kinds + type] : 0;
  };

  function patternsCaption() {
    if (!allHeads.names) return "Each tile is a head: rows are queries, columns are keys. Head types are being computed.";
    const flat = allHeads.names.flat();
    const counts = allHeads.kinds.map((type) => [type, flat.filter((each) => each === type).length]).filter(([, count]) => count);
    return `Of ${flat.length} heads ${counts.map(([type, count]) => `${count} ${type}`).join(", ")}. ${inductionNote()}`.trim();
  }

  /** Where the score of induction comes from: the text rarely repeats anything. */
  const inductionNote = () => (allHeads.kinds.includes("induction") ? "Induction is measured on random tokens that are repeated, not on this sentence; all other types on this sentence." : "");

  function table() {
    const [layers, heads] = allHeads.patterns.shape;
    const kinds = allHeads.kinds?.slice(0, -1) ?? [];
    const rows = [];
    for (let layer = 0; layer < layers; layer++)
      for (let head = 0; head < heads; head++)
        rows.push([layer, head, allHeads.names?.[layer][head] ?? null, ...kinds.map((_, type) => score([layer, head], type))]);
    return { title: "Head types and scores", columns: ["layer", "head", "type", ...kinds], rows };
  }

  function onTilePick({ layer, head, pinned, add }) {
    if (!pinned) return prefetch({ layer, head });
    if (add) combination.toggle(layer, head);
    else state.set({ layer, head, heads: null }, { quiet: true });
  }

  const headRequestOf = (name, headSettings) => ({ ...requestBase(), function: name, settings: { ...requestBase().settings, ...headSettings } });

  /** Requests the weights of a head that is hovered for a moment, so that a click shows it at once. */
  function prefetch(head) {
    clearTimeout(prefetchTimer);
    prefetchTimer = setTimeout(() => {
      const request = headRequestOf("head_pattern", head);
      const key = JSON.stringify(request);
      if (prefetched.has(key) || !allHeads) return;
      prefetched.set(key, fetchArrays(request));
      prefetched.get(key).catch(() => prefetched.delete(key));
      if (prefetched.size > MAX_PREFETCHED) prefetched.delete(prefetched.keys().next().value);
    }, 40);
  }

  /** Shows the exact weights of the selected head, or of several heads combined. */
  async function showHead() {
    const heads = combination.chosen();
    const headSettings = heads ? { heads, reduce: combination.reduce() } : (selectedHead() ?? shownHead);
    const request = headRequestOf(heads ? "combined_pattern" : "head_pattern", headSettings);
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
        title: `${heads ? result.title : `Layer ${result.layer}, head ${result.head}`}: ${isSet("flip") ? "columns are queries, rows are keys" : "rows are queries, columns are keys"}`,
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

  const rowsAreTokens = () => allHeads !== null && context.rowsAreTokens(allHeads.rows);
  const pinnedRow = () => (rowsAreTokens() ? (state.pinned()[0] ?? null) : null);

  function toGridView(result) {
    const [rows, columns] = result.weights.shape;
    const values = Array.from({ length: rows }, (_, row) => [...result.weights.values.subarray(row * columns, (row + 1) * columns)]);
    const view = { kind: "grid", title: result.title ?? `Attention of ${result.layer_name}, head ${result.head}`, readers: isSet("flip") ? "attends to" : "is attended to by", row_labels: result.rows, column_labels: result.columns, values, unit: "weight", caption: result.caption };
    return isSet("flip") ? { ...view, row_labels: result.columns, column_labels: result.rows, values: result.columns.map((_, column) => values.map((row) => row[column])) } : view;
  }

  /** The view with its first key hidden, for drawing only: the tables keep it. */
  function withoutFirstColumn(view) {
    if (!isSet("hide-first")) return view;
    const isHidden = isSet("flip") ? (_, row) => row === 0 : (column) => column === 0;
    return { ...view, values: view.values.map((row, r) => row.map((value, c) => (isHidden(c, r) ? 0 : value))) };
  }

  function strongestPairs(result) {
    const columns = result.weights.shape[1];
    const weights = isSet("hide-first") ? result.weights.values.map((weight, index) => (index % columns ? weight : 0)) : result.weights.values;
    const threshold = weights.toSorted().at(-MAX_PAIRS) ?? 0; // sorting numbers is fifty times as fast as sorting indices with a comparator
    const indices = [];
    weights.forEach((weight, index) => weight >= threshold && weight && indices.push(index));
    indices.sort((a, b) => weights[b] - weights[a]);
    return indices.slice(0, MAX_PAIRS).map((index) => [result.rows[Math.floor(index / columns)], result.columns[index % columns], result.weights.values[index]]);
  }

  const pairsContent = (rows) => {
    const view = { kind: "table", title: `The ${MAX_PAIRS} strongest pairs${isSet("hide-first") ? " without the first column" : ""}`, columns: ["query", "key", "weight"], rows, bar: "weight" };
    return { title: view.title, tables: () => viewTables(view), files: { csv: async () => tablesCsv(viewTables(view)) }, mount: (body) => renderView(body, view) };
  };

  const unsubscribe = context.hoveredToken.on(() => headCard.renderer()?.point?.({ row: rowsAreTokens() ? context.hoveredToken.get() : null, pinned: pinnedRow() }));
  return {
    update,
    destroy: () => {
      unsubscribe();
      clearTimeout(prefetchTimer);
      for (const each of [patternsRequest, scoresRequest, headRequest]) each.cancel();
      for (const card of [patternsCard, headCard]) card.renderer()?.destroy?.();
      viewCards.forEach((card) => card.destroy());
    },
  };
}
