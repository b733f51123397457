// Context: one word in two sentences. Its vector is the same in both until the model has looked around it: layer by layer,
// how far the two part, what each comes near of, and which heads moved it.

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
  let result = null; // the answer: every layer's numbers
  let lastRequest = null; // what it answers, as one string
  let inspectRequest = null; // the same as the library is asked
  let hoveredLayer = null; // the layer that is pointed at

  const selection = makeWordSelection(context);
  const cards = {
    words: makeCard({ name: "words", title: "One word in two sentences", description: "A click on a token marks its word. A is the sentence above.", tools: selection.root }),
    layers: makeCard({ name: "layers", title: "Layer by layer", description: "Pointing at a layer shows it in all cards; a click keeps it." }),
    ways: makeCard({ name: "ways", title: "Their ways through the layers" }),
    parting: makeCard({ name: "parting", title: "How alike they are" }),
    near: makeCard({ name: "near", title: "Nearest in context" }),
    moved: makeCard({ name: "moved", title: "What moved them" }),
    static: makeCard({ name: "static", title: "What each stays near of" }),
  };
  for (const name of ["words", "near", "moved", "static"]) cards[name].root.classList.add("all", "both");
  const rightColumn = el("div", { class: "pile" }, cards.ways.root, cards.parting.root);
  root.replaceChildren(el("div", { class: "panes" }, cards.words.root, cards.layers.root, rightColumn, cards.near.root, cards.moved.root, cards.static.root));

  // ---- what is asked

  async function update() {
    if (!context.model()) return;
    // Nobody has written anything yet: the usual sentence has no second one.
    if (state.get("text") === null && state.get("text_b") === null) return state.set({ text: EXAMPLE_SENTENCES[0], text_b: EXAMPLE_SENTENCES[1] }, { quiet: true });
    await context.track(load());
  }

  async function load() {
    const model = context.model();
    const text = context.text();
    let other = state.get("text_b");
    try {
      let tokens = other === null ? [] : await fetchTokens(model, other);
      const [a, b] = selection.marks(other, tokens);
      const settings = {
        ...(other === null ? {} : { other_text: other }),
        word: a?.word ?? "",
        ...(b && b.key !== a?.key ? { other_word: b.word } : {}),
        ...(a && a.nth > 1 ? { occurrence: a.nth } : {}),
        ...(b && b.nth > 1 ? { other_occurrence: b.nth } : {}),
      };
      const request = { model, text, function: "contextual_embeddings", settings };
      const key = JSON.stringify(request);
      selection.update({ other, tokens });
      if (key === lastRequest && result) return showLayer();
      lastRequest = key;
      result = null;
      for (const card of Object.values(cards)) card.root.dataset.state = "busy";
      await cards.words.fill(async () => {
        const response = await embeddingsRequest.run((signal) => fetchArrays(request, signal));
        // The sentence that was chosen where none was given.
        if (other === null) tokens = await fetchTokens(model, (other = response.other_text));
        selection.update({ other, tokens });
        [result, inspectRequest] = [response, { model, text, view: "contextual-embeddings", settings: { other_text: other, ...settings } }];
        return wordsContent();
      });
      if (key !== lastRequest) return undefined; // something newer was asked
      if (!result) return showNothing();
      hideCards(false);
      await Promise.all(Object.keys(cards).map((name) => name === "words" || (name === "near" || name === "moved" ? fillLayerCard(name) : cards[name].fill(async () => allLayersContent(name)))));
      return updateMarks();
    } catch (error) {
      if (error instanceof StaleResponse) return undefined;
      if (!(error instanceof ApiError)) throw error;
      showNothing();
      return cards.words.fail(error.message);
    }
  }

  /** Nothing to show but why, which the first card says. */
  function showNothing() {
    lastRequest = null;
    hideCards(true);
  }

  /** All cards but the first, hidden while they have nothing to show. */
  function hideCards(isHidden) {
    for (const { root: each } of Object.values(cards).filter((card) => card !== cards.words)) {
      each.hidden = isHidden;
      if (isHidden) each.dataset.state = "empty";
    }
  }

  const tokensByText = new Map(); // the second sentence's tokens, by model and text
  async function fetchTokens(model, text) {
    const key = JSON.stringify([model, text]);
    if (!tokensByText.has(key)) tokensByText.set(key, (await tokensRequest.run((signal) => postJson("trace", { model, text, top: 0 }, signal))).tokens);
    return tokensByText.get(key);
  }

  // ---- what is shown of all layers

  const wordsContent = () => ({
    title: result.title,
    caption: [result.caption, result.missing ? `${result.missing} sentences that are kept here do not fit the model and were left out.` : ""].filter(Boolean).join(" "),
    python: inspectSnippet(inspectRequest),
    files: { svg: () => fetchFile(inspectRequest, "svg"), csv: () => fetchFile(inspectRequest, "csv"), html: () => fetchFile(inspectRequest, "html") },
    mount: () => null,
  });

  /** A card of all layers. */
  function allLayersContent(name) {
    const views = { parting: [result.parting], ways: [result.ways], static: result.static, layers: [layersTable()] }[name];
    if (!views.length) throw new ApiError("The model has no plain word vectors, so a word has no neighbours by itself.");
    return {
      caption: name === "parting" ? null : views.map((view) => view.caption).filter(Boolean).at(-1), // the first card says it
      python: inspectSnippet(inspectRequest),
      tables: () => views.flatMap(viewTables),
      files: { csv: async () => tablesCsv(views.flatMap(viewTables)) },
      mount: (body) => {
        cards[name].renderer()?.destroy?.();
        return name === "layers" ? paintLayers(body) : renderSideBySide(body, views, name);
      },
    };
  }

  /** Views beside each other, each by its own drawer. */
  function renderSideBySide(body, views, name) {
    const containers = views.map(() => el("div", {}));
    body.replaceChildren(el("div", { class: views.length > 1 ? "panes" : "" }, ...views.map((view, i) => el("div", {}, views.length > 1 ? el("h3", {}, view.title) : null, containers[i]))));
    const renderers = views.map((view, i) =>
      renderView(containers[i], view, {
        onPick: (pick) => name === "ways" && pick.point !== null && (pick.pinned ? toggleLayer(view.points[pick.point].label) : hoverLayer(view.points[pick.point].label)),
        onMove: ({ hovered: index }) => name === "parting" && hoverLayer(index === null ? null : result.rows[index].name),
      }),
    );
    if (name === "ways") containers[0].addEventListener("pointerleave", () => hoverLayer(null));
    return { ...renderers[0], follow: (move) => renderers[0].follow?.(move), destroy: () => renderers.forEach((each) => each.destroy?.()) };
  }

  const COLUMNS = ["layer", "cosine, cleared", "as is", "two by chance", "A near B’s neighbours", "B near A’s neighbours"];
  const layerCells = (row) => [row.words, row.cleared, row.cosine, row.chance, ...row.near];
  const layersTable = () => ({ kind: "table", title: "Cosines layer by layer", columns: COLUMNS, rows: result.rows.map(layerCells), bar: COLUMNS[1] });

  function paintLayers(body) {
    const max = Math.max(1e-9, ...result.rows.map((row) => Math.abs(row.cleared)));
    const tableRows = result.rows.map((row, index) =>
      el(
        "tr",
        {
          tabindex: index ? "-1" : "0", "aria-selected": "false", data: { layer: row.name, cleared: row.cleared, cosine: row.cosine },
          onpointerenter: () => hoverLayer(row.name), onpointerleave: () => hoverLayer(null), onfocus: () => hoverLayer(row.name), onblur: () => hoverLayer(null),
          onclick: () => toggleLayer(row.name), onkeydown: (event) => onKeyDown(event, index),
        },
        el("th", { scope: "row" }, row.words),
        el("td", { class: "bars" }, el("span", { class: "bar-room" }, el("span", { class: row.cleared < 0 ? "bar below" : "bar", style: { width: `${((100 * Math.abs(row.cleared)) / max).toFixed(2)}%` } })), el("span", { class: "n" }, cellText(row.cleared))),
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
      toggleLayer(result.rows[index].name);
    } else if (event.key === "Escape" && state.get("after") !== null) {
      event.stopPropagation();
      state.set({ after: null }, { quiet: true });
    }
  }

  // ---- one layer

  const selectedLayer = () => (result?.rows.some((row) => row.name === state.get("after")) ? state.get("after") : result?.least);
  const currentLayer = () => hoveredLayer ?? selectedLayer();
  const layerTitle = (name) => result.rows.find((row) => row.name === name).words;

  function hoverLayer(name) {
    if (!result || hoveredLayer === name) return;
    hoveredLayer = name;
    showLayer();
  }

  function toggleLayer(name) {
    state.set({ after: name === state.get("after") ? null : name }, { quiet: true });
  }

  let shownLayer = null; // the layer that near and moved show

  function showLayer() {
    if (!result) return undefined;
    updateMarks();
    if (shownLayer === `${lastRequest} ${currentLayer()}`) return undefined;
    return Promise.all(["near", "moved"].map(fillLayerCard));
  }

  /** The layer in words, its row, its place on the curve and on the map. */
  function updateMarks() {
    const name = currentLayer();
    const index = result.rows.findIndex((row) => row.name === name);
    const reason = hoveredLayer ? "pointed at" : state.get("after") === name ? "pinned; Esc lets it go" : "where the two are least alike";
    const response = cards.layers.body.querySelector(".readout");
    if (response) response.textContent = `After ${layerTitle(name)}, ${reason}.`;
    for (const row of cards.layers.body.querySelectorAll("tbody tr")) {
      row.setAttribute("aria-selected", String(row.dataset.layer === selectedLayer()));
      row.classList.toggle("pointed", row.dataset.layer === hoveredLayer);
    }
    cards.parting.renderer()?.follow?.({ hovered: index });
    cards.ways.renderer()?.follow?.({ at: result.ways.points.flatMap((each, index) => (each.label === name ? [index] : [])) });
  }

  const fillLayerCard = (name) => cards[name].fill(async () => (name === "near" ? nearestContent() : headsContent()));

  function nearestContent() {
    const name = currentLayer();
    shownLayer = `${lastRequest} ${name}`;
    const views = result.near[name];
    return {
      title: `Nearest in context after ${layerTitle(name)}`,
      python: pythonSnippet(`seen["near"][${pythonLiteral(name)}]`),
      tables: () => views.flatMap(viewTables),
      files: { csv: async () => tablesCsv(views.flatMap(viewTables)) },
      mount: (body) => (Object.assign(body.dataset, { layer: name }), renderSideBySide(body, views.map((view, i) => ({ ...view, title: SIDES[i] })), "near")),
    };
  }

  function headsContent() {
    const name = currentLayer();
    const view = result.heads?.[name];
    if (!view) {
      const why = result.heads ? `No head stands between ${layerTitle(name)} and what comes before it; choose a layer with a number.` : "A recurrent model has no heads: its layers carry what was read before.";
      return { title: "What moved them", mount: (body) => (body.replaceChildren(el("p", { class: "quiet" }, why)), null) };
    }
    const columns = view.columns.map((each) => each.replace("in the first", "ΔE in A").replace("in the second", "ΔE in B").replace("reads most, first", "reads in A").replace("reads most, second", "reads in B"));
    return {
      title: `Heads of ${layerTitle(name)}: how much each adds to the word, and which words it reads`,
      caption: view.caption,
      python: pythonSnippet(`seen["heads"][${pythonLiteral(name)}]`),
      tables: () => viewTables(view),
      files: { csv: async () => tablesCsv(viewTables(view)) },
      mount: (body) => (Object.assign(body.dataset, { layer: name }), renderView(body, { ...view, columns })),
    };
  }

  /** The studio's own function, to be run in its folder. */
  function pythonSnippet(what) {
    const own = Object.entries(inspectRequest.settings).map(([key, value]) => `, ${key}=${pythonLiteral(value)}`).join("");
    return `import clearstory\nfrom clearstory.studio.context_api import words_in_context\n\nopened = clearstory.open(${pythonLiteral(inspectRequest.model)})\nseen = words_in_context(opened.model, opened.tokenizer, ${pythonLiteral(inspectRequest.text)}${own})\nview = ${what}\n`;
  }

  return {
    update,
    destroy: () => {
      for (const each of [embeddingsRequest, tokensRequest]) each.cancel();
      for (const each of Object.values(cards)) each.renderer()?.destroy?.();
    },
  };
}
