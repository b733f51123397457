// Contextual embeddings page: one word in two sentences. Its input embedding is the same in both; this page shows, layer by
// layer, how similar the two contextual embeddings are, their nearest neighbours, and what each head adds to them.

import { fetchFile, latestRequest, fetchArrays, postJson, ApiError, StaleResponse } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { renderView } from "../renderers.js";
import { el } from "../dom.js";
import { inspectSnippet } from "../view_card.js";
import { cellText, viewTables, pythonLiteral } from "../format.js";
import { EXAMPLE_SENTENCES, makeWordSelection } from "./word_selection.js";

const SIDES = ["A", "B"];

export function mount(root, context) {
  const [embeddingsRequest, tokensRequest] = [latestRequest(), latestRequest()];
  const { state } = context;
  let result = null; // the response with the values of all layers
  let lastRequest = null; // the last request as JSON
  let inspectRequest = null; // the corresponding request of the view
  let hoveredLayer = null; // the layer under the pointer

  const selection = makeWordSelection(context);
  const cards = {
    words: makeCard({ name: "words", title: "One word in two sentences", description: "Click a token to select its word. A is the sentence above.", tools: selection.root }),
    layers: makeCard({ name: "layers", title: "Layer by layer", description: "Hover a layer to show it in all cards; click to keep it selected." }),
    trajectories: makeCard({ name: "trajectories", title: "Trajectories through the layers" }),
    similarity: makeCard({ name: "similarity", title: "Similarity per layer" }),
    nearest: makeCard({ name: "nearest", title: "Nearest contextual embeddings" }),
    heads: makeCard({ name: "heads", title: "Head contributions" }),
    static_neighbours: makeCard({ name: "static_neighbours", title: "Similarity to static neighbours" }),
  };
  for (const name of ["words", "nearest", "heads", "static_neighbours"]) cards[name].root.classList.add("all", "both");
  const rightColumn = el("div", { class: "pile" }, cards.trajectories.root, cards.similarity.root);
  root.replaceChildren(el("div", { class: "panes" }, cards.words.root, cards.layers.root, rightColumn, cards.nearest.root, cards.heads.root, cards.static_neighbours.root));

  // ---- requests

  async function update() {
    if (!context.model()) return;
    // Without any text the page starts with its example.
    if (state.get("text") === null && state.get("text_b") === null) return state.set({ text: EXAMPLE_SENTENCES[0], text_b: EXAMPLE_SENTENCES[1] }, { quiet: true });
    await context.track(load());
  }

  async function load() {
    const model = context.model();
    const text = context.text();
    let other = state.get("text_b");
    try {
      let tokens = other === null ? [] : await fetchTokens(model, other);
      const [a, b] = selection.selectedWords(other, tokens);
      const settings = {
        ...(other === null ? {} : { other_text: other }),
        word: a?.word ?? "",
        ...(b && b.key !== a?.key ? { other_word: b.word } : {}),
        ...(a && a.nth > 1 ? { occurrence: a.nth } : {}),
        ...(b && b.nth > 1 ? { other_occurrence: b.nth } : {}),
      };
      const request = { model, text, function: "compare_contexts", settings };
      const key = JSON.stringify(request);
      selection.update({ other, tokens });
      if (key === lastRequest && result) return showLayer();
      lastRequest = key;
      result = null;
      for (const card of Object.values(cards)) card.root.dataset.state = "busy";
      await cards.words.fill(async () => {
        const response = await embeddingsRequest.run((signal) => fetchArrays(request, signal));
        // The example sentence that the server chose.
        if (other === null) tokens = await fetchTokens(model, (other = response.other_text));
        selection.update({ other, tokens });
        [result, inspectRequest] = [response, { model, text, view: "contextual-embeddings", settings: { other_text: other, ...settings } }];
        return wordsContent();
      });
      if (key !== lastRequest) return undefined; // a newer request was sent
      if (!result) return showNothing();
      hideCards(false);
      await Promise.all(Object.keys(cards).map((name) => name === "words" || (name === "nearest" || name === "heads" ? fillLayerCard(name) : cards[name].fill(async () => allLayersContent(name)))));
      return updateMarks();
    } catch (error) {
      if (error instanceof StaleResponse) return undefined;
      if (!(error instanceof ApiError)) throw error;
      showNothing();
      return cards.words.fail(error.message);
    }
  }

  /** Hides all cards except the first one, which shows the reason. */
  function showNothing() {
    lastRequest = null;
    hideCards(true);
  }

  /** Hides or shows all cards except the first one. */
  function hideCards(isHidden) {
    for (const { root: each } of Object.values(cards).filter((card) => card !== cards.words)) {
      each.hidden = isHidden;
      if (isHidden) each.dataset.state = "empty";
    }
  }

  const tokensByText = new Map(); // the second sentence's tokens, by model and text; the view reads it as plain text
  async function fetchTokens(model, text) {
    const key = JSON.stringify([model, text]);
    if (!tokensByText.has(key)) tokensByText.set(key, (await tokensRequest.run((signal) => postJson("trace", { model, text, raw: true, top: 0 }, signal))).tokens);
    return tokensByText.get(key);
  }

  // ---- all layers

  const wordsContent = () => ({
    title: result.title,
    caption: [result.caption, result.missing ? `${result.missing} example sentences do not fit the model's context or vocabulary and were left out.` : ""].filter(Boolean).join(" "),
    python: inspectSnippet(inspectRequest),
    files: { svg: () => fetchFile(inspectRequest, "svg"), csv: () => fetchFile(inspectRequest, "csv"), html: () => fetchFile(inspectRequest, "html") },
    mount: () => null,
  });

  /** The content of a card about all layers. */
  function allLayersContent(name) {
    const views = { similarity: [result.similarity], trajectories: [result.trajectories], static_neighbours: result.static_neighbours, layers: [layersTable()] }[name];
    if (!views.length) throw new ApiError("This model has no static word embeddings to compare with.");
    return {
      caption: name === "similarity" ? null : views.map((view) => view.caption).filter(Boolean).at(-1), // the first card shows it
      python: inspectSnippet(inspectRequest),
      tables: () => views.flatMap(viewTables),
      files: { csv: async () => tablesCsv(views.flatMap(viewTables)) },
      mount: (body) => {
        cards[name].renderer()?.destroy?.();
        return name === "layers" ? paintLayers(body) : renderSideBySide(body, views, name);
      },
    };
  }

  /** Renders views side by side. */
  function renderSideBySide(body, views, name) {
    const containers = views.map(() => el("div", {}));
    body.replaceChildren(el("div", { class: views.length > 1 ? "panes" : "" }, ...views.map((view, i) => el("div", {}, views.length > 1 ? el("h3", {}, view.title) : null, containers[i]))));
    const renderers = views.map((view, i) =>
      renderView(containers[i], view, {
        onPick: (pick) => name === "trajectories" && pick.point !== null && (pick.pinned ? toggleLayer(view.points[pick.point].label) : hoverLayer(view.points[pick.point].label)),
        onMove: ({ hovered: index }) => name === "similarity" && hoverLayer(index === null ? null : result.layers[index].name),
      }),
    );
    if (name === "trajectories") containers[0].addEventListener("pointerleave", () => hoverLayer(null));
    return { ...renderers[0], follow: (move) => renderers[0].follow?.(move), destroy: () => renderers.forEach((each) => each.destroy?.()) };
  }

  const COLUMNS = ["layer", "cosine, standardized", "cosine", "random pair", "A to B’s static neighbours", "B to A’s static neighbours"];
  const layerCells = (row) => [row.title, row.centred, row.cosine, row.chance, ...row.static_similarity];
  const layersTable = () => ({ kind: "table", title: "Cosine similarity per layer", columns: COLUMNS, rows: result.layers.map(layerCells), bar: COLUMNS[1] });

  function paintLayers(body) {
    const max = Math.max(1e-9, ...result.layers.map((row) => Math.abs(row.centred)));
    const tableRows = result.layers.map((row, index) =>
      el(
        "tr",
        {
          tabindex: index ? "-1" : "0", "aria-selected": "false", data: { layer: row.name, centred: row.centred, cosine: row.cosine },
          onpointerenter: () => hoverLayer(row.name), onpointerleave: () => hoverLayer(null), onfocus: () => hoverLayer(row.name), onblur: () => hoverLayer(null),
          onclick: () => toggleLayer(row.name), onkeydown: (event) => onKeyDown(event, index),
        },
        el("th", { scope: "row" }, row.title),
        el("td", { class: "bars" }, el("span", { class: "bar-room" }, el("span", { class: row.centred < 0 ? "bar below" : "bar", style: { width: `${((100 * Math.abs(row.centred)) / max).toFixed(2)}%` } })), el("span", { class: "n" }, cellText(row.centred))),
        ...layerCells(row).slice(2).map((value) => el("td", { class: "n", title: value ?? "" }, value === null ? "–" : value.toFixed(2))),
      ),
    );
    const head = el("tr", {}, ...COLUMNS.map((name, i) => el("th", { scope: "col", class: i > 1 ? "n" : null }, name)));
    body.replaceChildren(el("div", { class: "wide" }, el("table", { class: "rendered layers" }, el("thead", {}, head), el("tbody", {}, ...tableRows))), el("p", { class: "readout", "aria-live": "polite" }));
    updateMarks();
    return { update: () => {}, state: () => ({ layer: currentLayer() }), svg: () => null, csv: () => null };
  }

  function onKeyDown(event, index) {
    const rows = [...cards.layers.body.querySelectorAll("tbody tr")];
    const offset = { ArrowDown: 1, ArrowUp: -1, Home: -index, End: rows.length - 1 - index }[event.key];
    if (offset !== undefined) {
      event.preventDefault();
      rows[index + offset]?.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      toggleLayer(result.layers[index].name);
    } else if (event.key === "Escape" && state.get("context_layer") !== null) {
      event.stopPropagation();
      state.set({ context_layer: null }, { quiet: true });
    }
  }

  // ---- one layer

  const selectedLayer = () => (result?.layers.some((row) => row.name === state.get("context_layer")) ? state.get("context_layer") : result?.least_similar);
  const currentLayer = () => hoveredLayer ?? selectedLayer();
  const layerTitle = (name) => result.layers.find((row) => row.name === name).title;

  function hoverLayer(name) {
    if (!result || hoveredLayer === name) return;
    hoveredLayer = name;
    showLayer();
  }

  function toggleLayer(name) {
    state.set({ context_layer: name === state.get("context_layer") ? null : name }, { quiet: true });
  }

  let shownLayer = null; // the layer shown by the cards `nearest` and `heads`

  function showLayer() {
    if (!result) return undefined;
    updateMarks();
    if (shownLayer === `${lastRequest} ${currentLayer()}`) return undefined;
    return Promise.all(["nearest", "heads"].map(fillLayerCard));
  }

  /** Marks the current layer in the table, on the curve and on the map. */
  function updateMarks() {
    const name = currentLayer();
    const index = result.layers.findIndex((row) => row.name === name);
    const reason = hoveredLayer ? "hovered" : state.get("context_layer") === name ? "pinned; Esc releases it" : "the layer with the lowest similarity";
    const readout = cards.layers.body.querySelector(".readout");
    if (readout) readout.textContent = `After ${layerTitle(name)}, ${reason}.`;
    for (const row of cards.layers.body.querySelectorAll("tbody tr")) {
      row.setAttribute("aria-selected", String(row.dataset.layer === selectedLayer()));
      row.classList.toggle("pointed", row.dataset.layer === hoveredLayer);
    }
    cards.similarity.renderer()?.follow?.({ hovered: index });
    cards.trajectories.renderer()?.follow?.({ hovered: result.trajectories.points.flatMap((each, index) => (each.label === name ? [index] : [])) });
  }

  const fillLayerCard = (name) => cards[name].fill(async () => (name === "nearest" ? nearestContent() : headsContent()));

  function nearestContent() {
    const name = currentLayer();
    shownLayer = `${lastRequest} ${name}`;
    const views = result.nearest[name];
    return {
      title: `Nearest contextual embeddings after ${layerTitle(name)}`,
      python: pythonSnippet(`result["nearest"][${pythonLiteral(name)}]`),
      tables: () => views.flatMap(viewTables),
      files: { csv: async () => tablesCsv(views.flatMap(viewTables)) },
      mount: (body) => (Object.assign(body.dataset, { layer: name }), renderSideBySide(body, views.map((view, i) => ({ ...view, title: SIDES[i] })), "nearest")),
    };
  }

  function headsContent() {
    const name = currentLayer();
    const view = result.heads?.[name];
    if (!view) {
      const why = result.heads ? `There are no heads before ${layerTitle(name)}; choose a numbered layer.` : "A recurrent model has no attention heads.";
      return { title: "Head contributions", mount: (body) => (body.replaceChildren(el("p", { class: "quiet" }, why)), null) };
    }
    const columns = view.columns.map((each) => ({ "first text": "ΔE in A", "second text": "ΔE in B", "attends to, first": "attends to, A", "attends to, second": "attends to, B" })[each] ?? each);
    return {
      title: `Heads of ${layerTitle(name)}: contribution to the word, and the words attended to`,
      caption: view.caption,
      python: pythonSnippet(`result["heads"][${pythonLiteral(name)}]`),
      tables: () => viewTables(view),
      files: { csv: async () => tablesCsv(viewTables(view)) },
      mount: (body) => (Object.assign(body.dataset, { layer: name }), renderView(body, { ...view, columns })),
    };
  }

  /** Python that calls the studio's function, to be run in its folder. */
  function pythonSnippet(expression) {
    const keywords = Object.entries(inspectRequest.settings).map(([key, value]) => `, ${key}=${pythonLiteral(value)}`).join("");
    return `import clearstory\nfrom clearstory.studio.context_api import compare_contexts\n\nopened = clearstory.open(${pythonLiteral(inspectRequest.model)})\nresult = compare_contexts(opened.model, opened.tokenizer, ${pythonLiteral(inspectRequest.text)}${keywords})\nview = ${expression}\n`;
  }

  return {
    update,
    destroy: () => {
      for (const each of [embeddingsRequest, tokensRequest]) each.cancel();
      for (const each of Object.values(cards)) each.renderer()?.destroy?.();
    },
  };
}
