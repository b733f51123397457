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
  const [asking, tracing] = [latestRequest(), latestRequest()];
  const { state } = context;
  let seen = null; // the answer: every layer's numbers
  let asked = null; // what it answers, as one string
  let wanted = null; // the same as the library is asked
  let looked = null; // the layer that is pointed at

  const marking = makeWordSelection(context);
  const cards = {
    words: makeCard({ name: "words", title: "One word in two sentences", says: "A click on a token marks its word. A is the sentence above.", tools: marking.root }),
    layers: makeCard({ name: "layers", title: "Layer by layer", says: "Pointing at a layer shows it in all cards; a click keeps it." }),
    ways: makeCard({ name: "ways", title: "Their ways through the layers" }),
    parting: makeCard({ name: "parting", title: "How alike they are" }),
    near: makeCard({ name: "near", title: "Nearest in context" }),
    moved: makeCard({ name: "moved", title: "What moved them" }),
    static: makeCard({ name: "static", title: "What each stays near of" }),
  };
  for (const name of ["words", "near", "moved", "static"]) cards[name].root.classList.add("all", "both");
  const right = el("div", { class: "pile" }, cards.ways.root, cards.parting.root);
  root.replaceChildren(el("div", { class: "panes" }, cards.words.root, cards.layers.root, right, cards.near.root, cards.moved.root, cards.static.root));

  // ---- what is asked

  async function update() {
    if (!context.model()) return;
    // Nobody has written anything yet: the usual sentence has no second one.
    if (state.get("text") === null && state.get("text_b") === null) return state.set({ text: EXAMPLE_SENTENCES[0], text_b: EXAMPLE_SENTENCES[1] }, { quiet: true });
    await context.track(ask());
  }

  async function ask() {
    const model = context.model();
    const text = context.text();
    let other = state.get("text_b");
    try {
      let tokens = other === null ? [] : await pieces(model, other);
      const [a, b] = marking.marks(other, tokens);
      const settings = {
        ...(other === null ? {} : { other_text: other }),
        word: a?.word ?? "",
        ...(b && b.key !== a?.key ? { other_word: b.word } : {}),
        ...(a && a.nth > 1 ? { occurrence: a.nth } : {}),
        ...(b && b.nth > 1 ? { other_occurrence: b.nth } : {}),
      };
      const question = { model, text, what: "context", settings };
      const key = JSON.stringify(question);
      marking.update({ other, tokens });
      if (key === asked && seen) return showLayer();
      asked = key;
      seen = null;
      for (const card of Object.values(cards)) card.root.dataset.state = "busy";
      await cards.words.fill(async () => {
        const said = await asking.ask((signal) => fetchArrays(question, signal));
        // The sentence that was chosen where none was given.
        if (other === null) tokens = await pieces(model, (other = said.other_text));
        marking.update({ other, tokens });
        [seen, wanted] = [said, { model, text, view: "contextual-embeddings", settings: { other_text: other, ...settings } }];
        return overview();
      });
      if (key !== asked) return undefined; // something newer was asked
      if (!seen) return blank();
      veil(false);
      await Promise.all(Object.keys(cards).map((name) => name === "words" || (name === "near" || name === "moved" ? fill(name) : cards[name].fill(async () => whole(name)))));
      return mark();
    } catch (error) {
      if (error instanceof StaleResponse) return undefined;
      if (!(error instanceof ApiError)) throw error;
      blank();
      return cards.words.fail(error.message);
    }
  }

  /** Nothing to show but why, which the first card says. */
  function blank() {
    asked = null;
    veil(true);
  }

  /** All cards but the first, hidden while they have nothing to show. */
  function veil(on) {
    for (const { root: each } of Object.values(cards).filter((card) => card !== cards.words)) {
      each.hidden = on;
      if (on) each.dataset.state = "empty";
    }
  }

  const traced = new Map(); // the second sentence's tokens, by model and text
  async function pieces(model, text) {
    const key = JSON.stringify([model, text]);
    if (!traced.has(key)) traced.set(key, (await tracing.ask((signal) => postJson("trace", { model, text, top: 0 }, signal))).tokens);
    return traced.get(key);
  }

  // ---- what is shown of all layers

  const overview = () => ({
    title: seen.title,
    caption: [seen.caption, seen.missing ? `${seen.missing} sentences that are kept here do not fit the model and were left out.` : ""].filter(Boolean).join(" "),
    python: inspectSnippet(wanted),
    files: { svg: () => fetchFile(wanted, "svg"), csv: () => fetchFile(wanted, "csv"), html: () => fetchFile(wanted, "html") },
    mount: () => null,
  });

  /** A card of all layers. */
  function whole(name) {
    const views = { parting: [seen.parting], ways: [seen.ways], static: seen.static, layers: [layersTable()] }[name];
    if (!views.length) throw new ApiError("The model has no plain word vectors, so a word has no neighbours by itself.");
    return {
      caption: name === "parting" ? null : views.map((view) => view.caption).filter(Boolean).at(-1), // the first card says it
      python: inspectSnippet(wanted),
      tables: () => views.flatMap(viewTables),
      files: { csv: async () => tablesCsv(views.flatMap(viewTables)) },
      mount: (body) => {
        cards[name].renderer()?.end?.();
        return name === "layers" ? paintLayers(body) : side(body, views, name);
      },
    };
  }

  /** Views beside each other, each by its own drawer. */
  function side(body, views, name) {
    const places = views.map(() => el("div", {}));
    body.replaceChildren(el("div", { class: views.length > 1 ? "panes" : "" }, ...views.map((view, i) => el("div", {}, views.length > 1 ? el("h3", {}, view.title) : null, places[i]))));
    const renderers = views.map((view, i) =>
      renderView(places[i], view, {
        onPick: (pick) => name === "ways" && pick.point !== null && (pick.pinned ? keep(view.points[pick.point].label) : point(view.points[pick.point].label)),
        onMove: ({ at }) => name === "parting" && point(at === null ? null : seen.rows[at].name),
      }),
    );
    if (name === "ways") places[0].addEventListener("pointerleave", () => point(null));
    return { ...renderers[0], follow: (move) => renderers[0].follow?.(move), end: () => renderers.forEach((each) => each.end?.()) };
  }

  const COLUMNS = ["layer", "cosine, cleared", "as is", "two by chance", "A near B’s neighbours", "B near A’s neighbours"];
  const cells = (row) => [row.words, row.cleared, row.cosine, row.chance, ...row.near];
  const layersTable = () => ({ kind: "table", title: "Cosines layer by layer", columns: COLUMNS, rows: seen.rows.map(cells), bar: COLUMNS[1] });

  function paintLayers(body) {
    const most = Math.max(1e-9, ...seen.rows.map((row) => Math.abs(row.cleared)));
    const lines = seen.rows.map((row, place) =>
      el(
        "tr",
        {
          tabindex: place ? "-1" : "0", "aria-selected": "false", data: { layer: row.name, cleared: row.cleared, cosine: row.cosine },
          onpointerenter: () => point(row.name), onpointerleave: () => point(null), onfocus: () => point(row.name), onblur: () => point(null),
          onclick: () => keep(row.name), onkeydown: (event) => keys(event, place),
        },
        el("th", { scope: "row" }, row.words),
        el("td", { class: "bars" }, el("span", { class: "bar-room" }, el("span", { class: row.cleared < 0 ? "bar below" : "bar", style: { width: `${((100 * Math.abs(row.cleared)) / most).toFixed(2)}%` } })), el("span", { class: "n" }, cellText(row.cleared))),
        ...cells(row).slice(2).map((value) => el("td", { class: "n", title: value ?? "" }, value === null ? "–" : value.toFixed(2))),
      ),
    );
    const head = el("tr", {}, ...COLUMNS.map((name, i) => el("th", { scope: "col", class: i > 1 ? "n" : null }, name)));
    body.replaceChildren(el("div", { class: "wide" }, el("table", { class: "drawn layers" }, el("thead", {}, head), el("tbody", {}, ...lines))), el("p", { class: "said", "aria-live": "polite" }));
    mark();
    return { update: () => {}, state: () => ({ layer: shown() }), svg: () => null, csv: () => null };
  }

  function keys(event, place) {
    const rows = [...cards.layers.body.querySelectorAll("tbody tr")];
    const way = { ArrowDown: 1, ArrowUp: -1, Home: -place, End: rows.length - 1 - place }[event.key];
    if (way !== undefined) {
      event.preventDefault();
      rows[place + way]?.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      keep(seen.rows[place].name);
    } else if (event.key === "Escape" && state.get("after") !== null) {
      event.stopPropagation();
      state.set({ after: null }, { quiet: true });
    }
  }

  // ---- one layer

  const kept = () => (seen?.rows.some((row) => row.name === state.get("after")) ? state.get("after") : seen?.least);
  const shown = () => looked ?? kept();
  const wordsOf = (name) => seen.rows.find((row) => row.name === name).words;

  function point(name) {
    if (!seen || looked === name) return;
    looked = name;
    showLayer();
  }

  function keep(name) {
    state.set({ after: name === state.get("after") ? null : name }, { quiet: true });
  }

  let drawn = null; // the layer that near and moved show

  function showLayer() {
    if (!seen) return undefined;
    mark();
    if (drawn === `${asked} ${shown()}`) return undefined;
    return Promise.all(["near", "moved"].map(fill));
  }

  /** The layer in words, its row, its place on the curve and on the map. */
  function mark() {
    const name = shown();
    const at = seen.rows.findIndex((row) => row.name === name);
    const how = looked ? "pointed at" : state.get("after") === name ? "pinned; Esc lets it go" : "where the two are least alike";
    const said = cards.layers.body.querySelector(".said");
    if (said) said.textContent = `After ${wordsOf(name)}, ${how}.`;
    for (const row of cards.layers.body.querySelectorAll("tbody tr")) {
      row.setAttribute("aria-selected", String(row.dataset.layer === kept()));
      row.classList.toggle("pointed", row.dataset.layer === looked);
    }
    cards.parting.renderer()?.follow?.({ at });
    cards.ways.renderer()?.follow?.({ at: seen.ways.points.flatMap((each, place) => (each.label === name ? [place] : [])) });
  }

  const fill = (name) => cards[name].fill(async () => (name === "near" ? near() : moved()));

  function near() {
    const name = shown();
    drawn = `${asked} ${name}`;
    const views = seen.near[name];
    return {
      title: `Nearest in context after ${wordsOf(name)}`,
      python: call(`seen["near"][${pythonLiteral(name)}]`),
      tables: () => views.flatMap(viewTables),
      files: { csv: async () => tablesCsv(views.flatMap(viewTables)) },
      mount: (body) => (Object.assign(body.dataset, { layer: name }), side(body, views.map((view, i) => ({ ...view, title: SIDES[i] })), "near")),
    };
  }

  function moved() {
    const name = shown();
    const view = seen.heads?.[name];
    if (!view) {
      const why = seen.heads ? `No head stands between ${wordsOf(name)} and what comes before it; choose a layer with a number.` : "A recurrent model has no heads: its layers carry what was read before.";
      return { title: "What moved them", mount: (body) => (body.replaceChildren(el("p", { class: "quiet" }, why)), null) };
    }
    const columns = view.columns.map((each) => each.replace("in the first", "ΔE in A").replace("in the second", "ΔE in B").replace("reads most, first", "reads in A").replace("reads most, second", "reads in B"));
    return {
      title: `Heads of ${wordsOf(name)}: how much each adds to the word, and which words it reads`,
      caption: view.caption,
      python: call(`seen["heads"][${pythonLiteral(name)}]`),
      tables: () => viewTables(view),
      files: { csv: async () => tablesCsv(viewTables(view)) },
      mount: (body) => (Object.assign(body.dataset, { layer: name }), renderView(body, { ...view, columns })),
    };
  }

  /** The studio's own function, to be run in its folder. */
  function call(what) {
    const own = Object.entries(wanted.settings).map(([key, value]) => `, ${key}=${pythonLiteral(value)}`).join("");
    return `import clearstory\nfrom clearstory.studio.context_api import words_in_context\n\nopened = clearstory.open(${pythonLiteral(wanted.model)})\nseen = words_in_context(opened.model, opened.tokenizer, ${pythonLiteral(wanted.text)}${own})\nview = ${what}\n`;
  }

  return {
    update,
    end: () => {
      for (const each of [asking, tracing]) each.drop();
      for (const each of Object.values(cards)) each.renderer()?.end?.();
    },
  };
}
