// Embeddings: what stands for a word before anything else is known of it: its numbers, its nearest words, and where it
// stands among others while a model learns.

import { fetchFile, latestRequest, fetchArrays, postJson } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as map } from "../render/map.js";
import { mount as strip, vectorTable } from "../render/vector_strip.js";
import { el } from "../dom.js";
import { inspectSnippet, viewCard } from "../view_card.js";
import { cellText, viewTables, pythonLiteral } from "../format.js";

/** Views that the page's own cards show. */
const OWN = new Set(["neighbours", "projection"]);
/** What the page keeps in the address, and under which names. */
const NAMES = { word: "word", centre: "raw", remove_components: "remove_components", max_token_id: "max_token_id", words: "map", top: "top", layout: "layout", one: "one", other: "other" };

export function mount(root, context, { views }) {
  const { state } = context;
  const [asksWord, asksMap, asksRows] = [latestRequest(), latestRequest(), latestRequest()];
  let mapped = null; // the map that is drawn
  const shown = { word: null, map: null, rows: null };
  const put = (name, value) => state.set({ [NAMES[name]]: value }, { quiet: true });
  const get = (name) => state.get(NAMES[name]);
  const whole = (name) => (get(name) === null ? null : Number(get(name)));

  let waiting = 0;
  const typed = {}; // by field: two that are filled in quickly both count
  function later(name, value) {
    typed[NAMES[name]] = value;
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const changes = { ...typed };
      for (const each of Object.keys(typed)) delete typed[each];
      state.set(changes, { quiet: true });
    }, 300);
  }
  const label = (words, input) => el("label", {}, el("span", {}, words), input);
  const text = (name, size, placeholder = "") => el("input", { type: "text", name, size, placeholder, oninput: (event) => later(name, event.target.value.trim() || null) });
  const number = (name, placeholder, least) => el("input", { type: "number", name, min: least, step: 1, placeholder, oninput: (event) => later(name, event.target.value === "" ? null : Number(event.target.value)) });
  const inputs = { word: text("word", 14), words: text("words", 30), remove_components: number("remove_components", "0", 0), max_token_id: number("max_token_id", "all", 1), top: number("top", "4", 0), one: text("one", 12, "man"), other: text("other", 12, "woman") };
  const centre = el("input", { type: "checkbox", name: "centre", onchange: () => put("centre", centre.checked ? null : 1) });
  const layout = el("select", { name: "layout", onchange: () => put("layout", layout.value === "pca" ? null : layout.value) }, el("option", { value: "pca" }, "principal components"), el("option", { value: "tsne" }, "t-SNE"));

  const spaces = el("div", { class: "settings" }, label("Word", inputs.word), el("label", {}, centre, el("span", {}, "Take away what all words share")), label("and main directions", inputs.remove_components), label("among the lowest ids", inputs.max_token_id));
  const says = "The vectors are those by which the model predicts words, each of length 1. Low ids are mostly frequent tokens: fewer of them leave rare ones out.";
  const word = makeCard({ name: "neighbours", title: "A word and its nearest", says, tools: spaces });
  const places = makeCard({ name: "projection", title: "Words by their vectors", tools: el("div", { class: "settings" }, label("Words", inputs.words), label("nearest of each", inputs.top), label("laid out by", layout)) });
  const matrix = makeCard({ name: "matrix", title: "The sentence as the model first sees it" });
  const able = views.includes("neighbours");
  const rest = views.filter((name) => !OWN.has(name)).map((name) => viewCard(context, name, name === "semantic-axis" ? { bound: () => ({ words: ends() }), empty: "Name a word, or several, for each end: the words are then laid out between the two." } : {}));
  const axis = rest.find((card) => card.root.dataset.card === "semantic-axis");
  axis?.root.querySelector("header").after(el("div", { class: "settings" }, label("From", inputs.one), label("to", inputs.other)));
  root.replaceChildren(el("div", { class: "cards" }, able && word.root, able && places.root, views.includes("embeddings") && matrix.root, ...rest.map((card) => card.root)));

  /** How words are compared: what is taken away first, and among how many. */
  const space = () => ({ centre: get("centre") === null, remove_components: whole("remove_components") ?? 0, ...(whole("max_token_id") === null ? {} : { max_token_id: whole("max_token_id") }) });
  /** The ends of the axis, once both are named. */
  function ends() {
    const named = [state.get("one"), state.get("other")].filter(Boolean);
    return named.length === 2 ? named : [];
  }

  const theWord = () => get("word") ?? context.word();
  const theWords = () => get("words") ?? context.text();

  function paintTools() {
    const usual = { word: theWord(), words: theWords() };
    for (const [name, input] of Object.entries(inputs)) if (document.activeElement !== input) input.value = get(name) ?? usual[name] ?? "";
    centre.checked = get("centre") === null;
    layout.value = get("layout") ?? "pca";
  }

  /** Fills a card unless it shows this already. */
  function fill(card, name, wanted, make) {
    const key = JSON.stringify(wanted);
    if (shown[name] === key) return undefined;
    return context.track(
      card.fill(async () => {
        shown[name] = null;
        const made = await make(wanted);
        shown[name] = key;
        return made;
      }),
    );
  }

  async function update() {
    paintTools();
    const model = context.model();
    const waits = rest.map((card) => card.update());
    if (model && able) {
      waits.push(fill(word, "word", { model, text: theWord(), what: "near", settings: { ...space(), top: 12 } }, showWord));
      waits.push(fill(places, "map", filmed() ? { model, last: state.get("model"), text: theWords(), top: whole("top") ?? 4, ...space() } : { model, text: theWords(), view: "projection", settings: { top: whole("top") ?? 4, ...space(), ...(get("layout") ? { layout: get("layout") } : {}) } }, showMap));
    }
    if (model && views.includes("embeddings")) waits.push(fill(matrix, "rows", { model, text: context.text(), what: "rows" }, showRows));
    await Promise.all(waits);
  }

  async function showWord(wanted) {
    const made = await asksWord.ask((signal) => fetchArrays(wanted, signal));
    const title = `Nearest to ${made.labels[0]}`;
    const table = { title, columns: ["token", "cosine", "id"], rows: made.labels.map((each, i) => [each, made.cosines[i], made.ids[i]]).slice(1) };
    const vectors = { title: `The vectors of ${made.labels[0]} and its nearest`, labels: made.labels, values: made.values };
    return {
      title, caption: made.caption,
      python: inspectSnippet({ model: wanted.model, text: wanted.text, view: "neighbours", settings: wanted.settings }),
      tables: () => [table, vectorTable(vectors)],
      files: { csv: async () => tablesCsv([table, vectorTable(vectors)]) },
      mount: (body) => {
        word.renderer()?.end?.();
        const field = el("div", {});
        body.replaceChildren(el("ol", { class: "choices" }, ...table.rows.map((row, i) => near(row, made.words[i + 1]))), field);
        return strip(field, vectors, { onPick: ({ row, pinned }) => pinned && choose(made.words[row]) });
      },
    };
  }

  const near = ([piece, cosine, id], written) =>
    el(
      "li",
      { class: "choice near", data: { id, cosine } },
      el("button", { type: "button", class: "mono piece-name", title: `token ${id}`, onclick: () => choose(written) }, piece),
      el("span", { class: "bar-room" }, el("span", { class: `bar${cosine < 0 ? " below" : ""}`, style: { width: `${(100 * Math.abs(cosine)).toFixed(2)}%` } })),
      el("span", { class: "n" }, cellText(Number(cosine.toFixed(4)))),
    );

  const choose = (written) => put("word", written.trim() || written);

  /** Whether checkpoints are laid out on the axes of the run's end. */
  const filmed = () => get("layout") === null && (context.models().find((each) => each.name === state.get("model"))?.steps ?? []).length > 0;

  async function showMap(wanted) {
    const film = "last" in wanted;
    const view = await asksMap.ask((signal) => postJson(film ? "film" : "view", wanted, signal));
    const kept = (format) => () => fetchFile(wanted, format, film ? "film" : "view");
    return {
      title: view.title, caption: view.caption,
      python: film ? filmSnippet(wanted) : inspectSnippet(wanted),
      tables: () => viewTables(view),
      files: { svg: kept("svg"), csv: async () => tablesCsv(viewTables(view)), html: kept("html") },
      mount: (body) => {
        body.dataset.film = String(film);
        mapped = view;
        const old = places.renderer();
        if (old && body.querySelector("svg.map")) return old.update(view), old;
        return map(body, view, { onPick: ({ point, pinned }) => pinned && choose(mapped.points[point].label.replaceAll("␣", " ")) });
      },
    };
  }

  async function showRows(wanted) {
    const made = await asksRows.ask((signal) => fetchArrays(wanted, signal));
    const vectors = { title: "The embedding's rows of the sentence's tokens", ...made };
    return {
      caption: made.caption,
      python: `import clearstory\nfrom clearstory.lens.probes.x_vectors import rows_of\n\nopened = clearstory.open(${pythonLiteral(wanted.model)})\nrows = rows_of(opened.model, opened.tokenizer.encode(${pythonLiteral(wanted.text)}))\n`,
      tables: () => [vectorTable(vectors)],
      files: { csv: async () => tablesCsv([vectorTable(vectors)]) },
      mount: (body) => {
        matrix.renderer()?.end?.();
        return strip(body, vectors, { onPick: ({ row, pinned }) => context.pick({ row, pinned }, { row_labels: vectors.labels }) });
      },
    };
  }

  return {
    update,
    end: () => {
      for (const asking of [asksWord, asksMap, asksRows]) asking.drop();
      for (const card of [word, places, matrix]) card.renderer()?.end?.();
      rest.forEach((card) => card.end());
    },
  };
}

const filmSnippet = ({ model, last, text, top, centre, remove_components, max_token_id }) => `import clearstory
from clearstory.lens.probes.projection import plane_of, words_on

last, now = clearstory.open(${pythonLiteral(last)}), clearstory.open(${pythonLiteral(model)})
plane = plane_of(last.model, last.tokenizer, ${pythonLiteral(text)}, top=${top}, centre=${pythonLiteral(centre)}, remove_components=${remove_components}, max_token_id=${pythonLiteral(max_token_id)})
view = words_on(now.model, now.tokenizer, plane, centre=${pythonLiteral(centre)}, remove_components=${remove_components})
`;
