// Embeddings page: embedding vectors, nearest neighbours, and the projection of words, also over the checkpoints of a run.

import { fetchFile, latestRequest, fetchArrays, postJson } from "../api.js";
import { makeCard, options, tablesCsv } from "../card.js";
import { mount as map } from "../render/map.js";
import { mount as strip, vectorTable } from "../render/vector_strip.js";
import { el } from "../dom.js";
import { settingLabel } from "../setting_labels.js";
import { inspectSnippet, viewCard } from "../view_card.js";
import { cellText, promptSnippet, viewTables, pythonLiteral } from "../format.js";

/** Views that the page shows in cards of its own. */
const PAGE_CARDS = new Set(["neighbours", "projection"]);
/** Names of the page's inputs in the URL state. */
const URL_NAMES = { word: "word", centre: "uncentred", remove_components: "remove_components", max_token_id: "max_token_id", words: "words", top: "top", layout: "layout", axis_from: "axis_from", axis_to: "axis_to" };

export function mount(root, context, { views }) {
  const { state } = context;
  const [wordRequest, mapRequest, rowsRequest] = [latestRequest(), latestRequest(), latestRequest()];
  let mapView = null; // the drawn projection
  const shown = { word: null, map: null, rows: null };
  const setState = (name, value) => state.set({ [URL_NAMES[name]]: value }, { quiet: true });
  const getState = (name) => state.get(URL_NAMES[name]);
  const getInteger = (name) => (getState(name) === null ? null : Number(getState(name)));

  let timer = 0;
  const pendingChanges = {}; // by field, so that quick edits of two fields both count
  function scheduleChange(name, value) {
    pendingChanges[URL_NAMES[name]] = value;
    clearTimeout(timer);
    timer = setTimeout(() => {
      const changes = { ...pendingChanges };
      for (const each of Object.keys(pendingChanges)) delete pendingChanges[each];
      state.set(changes, { quiet: true });
    }, 300);
  }
  const label = (labelText, input) => el("label", {}, el("span", {}, labelText), input);
  const text = (name, size, placeholder = "") => el("input", { type: "text", name, size, placeholder, oninput: (event) => scheduleChange(name, event.target.value.trim() || null) });
  const number = (name, placeholder, least) => el("input", { type: "number", name, min: least, step: 1, placeholder, oninput: (event) => scheduleChange(name, event.target.value === "" ? null : Number(event.target.value)) });
  const inputs = { word: text("word", 14), words: text("words", 30), remove_components: number("remove_components", "0", 0), max_token_id: number("max_token_id", "all", 1), top: number("top", "4", 0), axis_from: text("axis_from", 12, "man"), axis_to: text("axis_to", 12, "woman") };
  const centre = el("input", { type: "checkbox", name: "centre", onchange: () => setState("centre", centre.checked ? null : 1) });
  const layout = el("select", { name: "layout", onchange: () => setState("layout", layout.value === "pca" ? null : layout.value) }, el("option", { value: "pca" }, "principal components"), el("option", { value: "tsne" }, "t-SNE"));

  const spaceSettings = el("div", { class: "settings" }, label("Word", inputs.word), options(el("label", {}, centre, el("span", {}, settingLabel("centre"))), label(settingLabel("remove_components"), inputs.remove_components), label(settingLabel("max_token_id"), inputs.max_token_id)));
  const description = "Input embeddings normalized to unit length. Low token ids are mostly frequent tokens; a maximum id excludes rare ones.";
  const neighboursCard = makeCard({ name: "neighbours", title: "Nearest neighbours of a word", description, tools: spaceSettings });
  const mapCard = makeCard({ name: "projection", title: "Projection of word vectors", tools: el("div", { class: "settings" }, label("Words", inputs.words), options(label("Neighbours per word", inputs.top), label("Layout", layout))) });
  const rowsCard = makeCard({ name: "embedding-rows", title: "Input embeddings of the sentence" });
  const hasNeighbours = views.includes("neighbours");
  const viewCards = views.filter((name) => !PAGE_CARDS.has(name)).map((name) => viewCard(context, name, name === "semantic-axis" ? { boundSettings: () => ({ words: axisWords() }), emptyMessage: "Give one or more words for each end of the axis; the words are projected onto it." } : {}));
  const axisCard = viewCards.find((card) => card.root.dataset.card === "semantic-axis");
  axisCard?.root.querySelector("header").after(el("div", { class: "settings" }, label("From", inputs.axis_from), label("to", inputs.axis_to)));
  root.replaceChildren(el("div", { class: "cards" }, hasNeighbours && neighboursCard.root, hasNeighbours && mapCard.root, views.includes("embeddings") && rowsCard.root, ...viewCards.map((card) => card.root)));

  /** Settings of the vector space: centring, removed components, candidate tokens. */
  const spaceArguments = () => ({ centre: getState("centre") === null, remove_components: getInteger("remove_components") ?? 0, ...(getInteger("max_token_id") === null ? {} : { max_token_id: getInteger("max_token_id") }) });
  /** The two ends of the axis, once both are given. */
  function axisWords() {
    const axisNames = [state.get("axis_from"), state.get("axis_to")].filter(Boolean);
    return axisNames.length === 2 ? axisNames : [];
  }

  const currentWord = () => getState("word") ?? context.selectedWord();
  const currentWords = () => getState("words") ?? context.text();

  function paintTools() {
    const defaults = { word: currentWord(), words: currentWords() };
    for (const [name, input] of Object.entries(inputs)) if (document.activeElement !== input) input.value = getState(name) ?? defaults[name] ?? "";
    centre.checked = getState("centre") === null;
    layout.value = getState("layout") ?? "pca";
  }

  /** Fills a card unless it already shows this request. */
  function fill(card, name, request, make) {
    const key = JSON.stringify(request);
    if (shown[name] === key) return undefined;
    return context.track(
      card.fill(async () => {
        shown[name] = null;
        const result = await make(request);
        shown[name] = key;
        return result;
      }),
    );
  }

  async function update() {
    paintTools();
    const model = context.model();
    const pending = viewCards.map((card) => card.update());
    if (model && hasNeighbours) {
      pending.push(fill(neighboursCard, "word", { model, text: currentWord(), function: "nearest_embeddings", settings: { ...spaceArguments(), top: 12 } }, showWord));
      pending.push(fill(mapCard, "map", usesRunAxes() ? { model, final_model: state.get("model"), text: currentWords(), top: getInteger("top") ?? 4, ...spaceArguments() } : { model, text: currentWords(), view: "projection", settings: { top: getInteger("top") ?? 4, ...spaceArguments(), ...(getState("layout") ? { layout: getState("layout") } : {}) } }, showMap));
    }
    if (model && views.includes("embeddings")) pending.push(fill(rowsCard, "rows", { ...context.input(), function: "embedding_rows" }, showEmbeddingRows));
    await Promise.all(pending);
  }

  async function showWord(request) {
    const result = await wordRequest.run((signal) => fetchArrays(request, signal));
    const title = `Nearest neighbours of ${result.labels[0]}`;
    const table = { title, columns: ["token", "cosine", "id"], rows: result.labels.map((each, i) => [each, result.cosines[i], result.ids[i]]).slice(1) };
    const vectors = { title: `Vectors of ${result.labels[0]} and its neighbours`, labels: result.labels, values: result.values };
    return {
      title, caption: result.caption,
      python: inspectSnippet({ model: request.model, text: request.text, view: "neighbours", settings: request.settings }),
      tables: () => [table, vectorTable(vectors)],
      files: { csv: async () => tablesCsv([table, vectorTable(vectors)]) },
      mount: (body) => {
        neighboursCard.renderer()?.destroy?.();
        const container = el("div", {});
        body.replaceChildren(el("ol", { class: "choices" }, ...table.rows.map((row, i) => neighbourRow(row, result.words[i + 1]))), container);
        return strip(container, vectors, { onPick: ({ row, pinned }) => pinned && selectWord(result.words[row]) });
      },
    };
  }

  const neighbourRow = ([piece, cosine, id], decodedText) =>
    el(
      "li",
      { class: "choice near", data: { id, cosine } },
      el("button", { type: "button", class: "mono piece-name", title: `token ${id}`, onclick: () => selectWord(decodedText) }, piece),
      el("span", { class: "bar-room" }, el("span", { class: `bar${cosine < 0 ? " below" : ""}`, style: { width: `${(100 * Math.abs(cosine)).toFixed(2)}%` } })),
      el("span", { class: "n" }, cellText(Number(cosine.toFixed(4)))),
    );

  const selectWord = (decodedText) => setState("word", decodedText.trim() || decodedText);

  /** Whether checkpoints are projected on the axes of the run's final model. */
  const usesRunAxes = () => getState("layout") === null && (context.models().find((each) => each.name === state.get("model"))?.steps ?? []).length > 0;

  async function showMap(request) {
    const isCheckpoint = "final_model" in request;
    const view = await mapRequest.run((signal) => postJson(isCheckpoint ? "checkpoint-projection" : "view", request, signal));
    const saveAs = (format) => () => fetchFile(request, format, isCheckpoint ? "checkpoint-projection" : "view");
    return {
      title: view.title, caption: view.caption,
      python: isCheckpoint ? checkpointProjectionSnippet(request) : inspectSnippet(request),
      tables: () => viewTables(view),
      files: { svg: saveAs("svg"), csv: async () => tablesCsv(viewTables(view)), html: saveAs("html") },
      mount: (body) => {
        body.dataset.checkpointAxes = String(isCheckpoint);
        mapView = view;
        const existing = mapCard.renderer();
        if (existing && body.querySelector("svg.map")) return existing.update(view), existing;
        return map(body, view, { onPick: ({ point, pinned }) => pinned && selectWord(mapView.points[point].label.replaceAll("␣", " ")) });
      },
    };
  }

  async function showEmbeddingRows(request) {
    const result = await rowsRequest.run((signal) => fetchArrays(request, signal));
    const vectors = { title: "Input embeddings of the sentence's tokens", ...result };
    return {
      caption: result.caption,
      python: `from clearstory.lens.probes.embeddings import input_embeddings\n${promptSnippet(request)}rows = input_embeddings(opened.model, prompt.ids)\n`,
      tables: () => [vectorTable(vectors)],
      files: { csv: async () => tablesCsv([vectorTable(vectors)]) },
      mount: (body) => {
        rowsCard.renderer()?.destroy?.();
        return strip(body, vectors, { onPick: ({ row, pinned }) => context.pick({ row, pinned }, { row_labels: vectors.labels }) });
      },
    };
  }

  return {
    update,
    destroy: () => {
      for (const asking of [wordRequest, mapRequest, rowsRequest]) asking.cancel();
      for (const card of [neighboursCard, mapCard, rowsCard]) card.renderer()?.destroy?.();
      viewCards.forEach((card) => card.destroy());
    },
  };
}

const checkpointProjectionSnippet = ({ model, final_model, text, top, centre, remove_components, max_token_id }) => `import clearstory
from clearstory.lens.probes.projection import fit_plane, project_on

last, now = clearstory.open(${pythonLiteral(final_model)}), clearstory.open(${pythonLiteral(model)})
plane = fit_plane(last.model, last.tokenizer, ${pythonLiteral(text)}, top=${top}, centre=${pythonLiteral(centre)}, remove_components=${remove_components}, max_token_id=${pythonLiteral(max_token_id)})
view = project_on(now.model, now.tokenizer, plane, centre=${pythonLiteral(centre)}, remove_components=${remove_components})
`;
