// Compare: one view of two sides, each a model, a checkpoint and a sentence, and what B has more than A: B − A.

import { fetchFile, getJson, latestRequest, postJson, ApiError, StaleResponse } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { renderView } from "../renderers.js";
import { el } from "../dom.js";
import { linkRenderers, translatePosition } from "../linked_views.js";
import { inspectSnippet } from "../view_card.js";
import { viewTables } from "../format.js";
import { makeComparisonSides } from "./comparison_sides.js";

/** Kinds of views of which one can be taken from another. */
const KINDS = new Set(["grid", "curve", "table", "highlighted_text"]);

/** Views that are not about the sentence, or that ask for more than one. */
const OTHERS = new Set(["neighbours", "analogy", "dependency-heads", "activation-patching", "interventions"]);

const SIDES = { a: "A", b: "B" };

export function mount(root, context) {
  const [asking, listing, learning] = [latestRequest(), latestRequest(), latestRequest()];
  const { state } = context;
  let able = { of: null, views: new Map() }; // B's model, and what it can show
  let asked = null; // what was asked last, as one string
  const shown = { a: null, b: null, apart: null }; // the views that are drawn
  const links = linkRenderers((place, from, to) => translatePosition(place, shown[from], shown[to]));

  const chooser = el("select", { name: "view", onchange: () => state.set({ view: chooser.value, ...forgotten() }) });
  const settings = el("form", { class: "settings", onsubmit: (event) => event.preventDefault() });
  const sides = makeComparisonSides(context);
  const tools = el("div", {}, sides.root, el("div", { class: "settings" }, el("label", {}, el("span", {}, "View"), chooser), settings));
  const top = makeCard({ name: "sides", title: "Two sides", says: "A is the model, step and sentence above; B is chosen here, and begins as A.", tools });
  const cards = {
    a: makeCard({ name: "a", title: "A" }),
    b: makeCard({ name: "b", title: "B" }),
    apart: makeCard({ name: "apart", title: "B − A" }),
  };
  const curves = makeCard({ name: "curves", title: "How both learnt" });
  top.root.classList.add("both", "all");
  cards.apart.root.classList.add("both");
  curves.root.classList.add("both", "all");
  curves.root.hidden = true;
  root.replaceChildren(el("div", { class: "panes" }, top.root, cards.a.root, cards.b.root, cards.apart.root, curves.root));

  /** Settings of another view say nothing of this one. */
  const forgotten = () => Object.fromEntries(Object.keys(state.all()).filter((name) => name.startsWith("v_")).map((name) => [name, null]));

  // ---- what is asked

  const both = () => [...context.views().values()].filter((each) => KINDS.has(each.kind) && !each.slow && !OTHERS.has(each.name));

  const can = (name) => Boolean(context.views().get(name)?.able && able.views.get(name)?.able);

  /** Words in the stream for one model twice; of two models, what both make of one sentence; of two sentences, what comes next. */
  function usual() {
    const same = sides.text() === context.text();
    const wanted = !same ? "next-token" : sides.model() === context.model() || sides.name() === state.get("model") ? "logit-lens" : "surprisal";
    return [wanted, "next-token", "attention", "embeddings"].find(can) ?? both().find((each) => can(each.name))?.name ?? null;
  }

  const chosen = () => (state.get("view") && can(state.get("view")) ? state.get("view") : usual());

  function question(view) {
    const said = {};
    for (const row of fieldsOf(view)) {
      const value = read(row, state.get(keyOf(row.name)));
      if (value !== null) said[row.name] = value;
    }
    // Each side would choose its own head: one and the same is compared.
    if ("head" in named(view)) said.head ??= 0;
    return { model: context.model(), text: context.text(), compare_model: sides.model(), compare_text: sides.text(), view, settings: said };
  }

  const named = (view) => Object.fromEntries(fieldsOf(view).map((row) => [row.name, row]));
  const fieldsOf = (view) => (context.views().get(view)?.settings ?? []).filter((row) => row.name !== "truncate" && row.name !== "target" && row.name !== "part");
  const keyOf = (name) => (name === "layer" || name === "head" ? name : `v_${name}`);

  function read(row, text) {
    if (text === null || text === "") return null;
    if (row.kind === "list") return text.split(";").map((each) => each.trim()).filter(Boolean);
    if (row.kind === "switch") return text === "true";
    return row.kind === "whole" || row.kind === "number" ? Number(text) : text;
  }

  // ---- what is painted around

  function paintChooser(view) {
    const reason = (each) => (!each.able ? `A: ${each.reason}` : `B: ${able.views.get(each.name)?.reason ?? "it has no such view"}`);
    const options = both().map((each) => el("option", { value: each.name, disabled: !can(each.name), title: can(each.name) ? each.says : reason(each) }, each.name));
    chooser.replaceChildren(...options);
    chooser.value = view ?? "";
  }

  let formOf = null; // the view whose settings stand there

  function paintSettings(view) {
    if (formOf !== view) settings.replaceChildren(...fieldsOf(view).map(field));
    formOf = view;
    for (const row of fieldsOf(view)) {
      const input = settings.elements[row.name];
      if (input && input !== document.activeElement) input.value = state.get(keyOf(row.name)) ?? "";
    }
    settings.hidden = !settings.children.length;
  }

  function field(row) {
    const put = (value) => state.set({ [keyOf(row.name)]: value || null }, { quiet: true });
    const choices = row.kind === "choice" ? row.choices : row.kind === "switch" ? ["true", "false"] : null;
    const input = choices
      ? el("select", { name: row.name, onchange: () => put(input.value) }, el("option", { value: "" }, "as usual"), ...choices.map((each) => el("option", { value: each }, each)))
      : el("input", { type: row.kind === "whole" || row.kind === "number" ? "number" : "text", step: row.kind === "whole" ? "1" : "any", name: row.name, size: 8, placeholder: row.name === "head" ? "0" : row.kind === "list" ? "one; another" : row.default === null ? "usual" : String(row.default), onchange: () => put(input.value) });
    return el("label", {}, el("span", {}, row.name), input);
  }

  // ---- what is asked for and drawn

  async function update() {
    sides.update();
    const waits = [context.track(compare()), context.track(showCurves())];
    await Promise.all(waits);
  }

  async function compare() {
    if (!context.model()) return undefined;
    try {
      if (able.of !== sides.model()) {
        const name = sides.model();
        const said = name === context.model() ? [...context.views().values()] : (await listing.ask((signal) => getJson("views", { name }, signal))).views;
        able = { of: name, views: new Map(said.map((each) => [each.name, each])) };
      }
    } catch (error) {
      if (error instanceof StaleResponse) return undefined;
      if (!(error instanceof ApiError)) throw error;
      return blank(`B: ${error.message}`);
    }
    const view = chosen();
    paintChooser(view);
    if (!view) return blank("These two models have no view in common that could be compared; choose another model for B.");
    paintSettings(view);
    const wanted = question(view);
    const key = JSON.stringify(wanted);
    if (key === asked) return undefined;
    asked = key;
    top.fill(async () => ({ caption: told(), mount: () => null }));
    const answer = asking.ask((signal) => postJson("difference", wanted, signal));
    answer.catch(() => (asked = null));
    return Promise.all(Object.keys(cards).map((name) => cards[name].fill(() => filled(name, answer, wanted))));
  }

  /** Nothing to show, and why. */
  function blank(sentence) {
    asked = null;
    for (const name of Object.keys(cards)) empty(name);
    return cards.apart.fail(sentence);
  }

  function empty(name) {
    cards[name].renderer()?.end?.();
    links.leave(name);
    shown[name] = null;
    return cards[name].fill(async () => ({ title: SIDES[name] ?? "B − A", mount: (body) => (body.replaceChildren(), null) }));
  }

  function told() {
    const parts = [];
    if (sides.model() !== context.model()) parts.push(`models: A is ${context.model()}, B is ${sides.model()}`);
    if (sides.text() !== context.text()) parts.push("sentences");
    return parts.length ? `They differ in their ${parts.join("; and in their ")}.` : "Both sides are the same: choose another model, step or sentence for B.";
  }

  /** One pane's share of the answer. */
  async function filled(name, answer, wanted) {
    let said;
    try {
      said = await answer;
    } catch (error) {
      if (error instanceof ApiError && name !== "apart") return { title: SIDES[name], mount: (body) => clear(name, body) };
      if (error instanceof ApiError) clear(name, cards[name].body);
      throw error;
    }
    const view = name === "apart" ? said.difference : said[name];
    if (!view) {
      clear(name, cards[name].body);
      const sentence = said.problems[name === "apart" ? "difference" : name];
      throw new ApiError(sentence ?? `There is no difference to show, since ${said.problems.a ? "A" : "B"} shows nothing.`);
    }
    const one = { model: name === "b" ? wanted.compare_model : wanted.model, text: name === "b" ? wanted.compare_text : wanted.text, view: wanted.view, settings: wanted.settings };
    return {
      title: name === "apart" ? view.title : `${SIDES[name]}: ${view.title}`,
      caption: view.caption,
      python: name === "apart" ? inspectSnippet({ ...one, settings: { ...wanted.settings, ...otherwise(wanted) } }) : inspectSnippet(one),
      tables: () => viewTables(view),
      files: {
        svg: () => (name === "apart" ? fetchFile(wanted, "svg", "difference") : fetchFile(one, "svg")),
        csv: async () => tablesCsv(viewTables(view)),
        html: () => (name === "apart" ? fetchFile(wanted, "html", "difference") : fetchFile(one, "html")),
      },
      mount: (body) => {
        cards[name].renderer()?.end?.();
        shown[name] = view;
        const place = el("div", {});
        body.replaceChildren(...(name === "apart" ? [legend(view), place] : [place]));
        body.dataset.kind = view.kind;
        const renderer = renderView(place, view, { ...links.hooks(name), ...(name === "a" ? { onPick: (pick) => context.pick(pick, view) } : {}) });
        links.join(name, renderer, body);
        return renderer;
      },
    };
  }

  /** What makes B another side than A, as the library is asked. */
  const otherwise = (wanted) => ({ compare_model: wanted.compare_model, ...(wanted.compare_text === wanted.text ? {} : { compare_text: wanted.compare_text }) });

  function clear(name, body) {
    cards[name].renderer()?.end?.();
    links.leave(name);
    shown[name] = null;
    body.replaceChildren();
    return null;
  }

  /** What the two colours mean. */
  function legend(view) {
    if (view.kind === "curve") return "";
    const swatch = (shade, words) => el("span", {}, el("span", { class: `swatch ${shade}`, "aria-hidden": "true" }), words);
    return el("p", { class: "key" }, swatch("more-5", "more in B"), swatch("less-5", "less in B"));
  }

  // ---- two runs

  let curved = null;

  async function showCurves() {
    const names = [state.get("model"), sides.name()];
    const runs = names.map((name) => context.models().find((each) => each.name === name && each.kind === "run"));
    curves.root.hidden = names[0] === names[1] || runs.includes(undefined);
    if (curves.root.hidden || curved === names.join("\n")) return undefined;
    curved = names.join("\n");
    return curves.fill(async () => {
      const said = await learning.ask((signal) => Promise.all(names.map((name) => getJson("runs/curve", { name }, signal))));
      if (said.some((each) => !each.view)) throw new ApiError("One of the two runs has not looked at its text yet; its curve begins with the first look.");
      const view = together(said.map((each) => each.view), names);
      return {
        caption: view.caption,
        tables: () => viewTables(view),
        files: { csv: async () => tablesCsv(viewTables(view)) },
        mount: (body) => (curves.renderer()?.end?.(), renderView(body, view)),
      };
    });
  }

  return {
    update,
    end: () => {
      for (const each of [asking, listing, learning]) each.drop();
      for (const each of [...Object.values(cards), curves]) each.renderer()?.end?.();
    },
  };
}

/** Two learning curves over one axis. */
function together(views, names) {
  const lines = views.flatMap((view, side) => view.lines.map((each) => ({ ...each, name: `${"AB"[side]}, ${names[side]}: ${each.name}`, of: each.of ? `${"AB"[side]}, ${names[side]}: ${each.of}` : null })));
  const looks = views.map((view, side) => (view.caption ? `${"AB"[side]}: ${view.caption}` : "")).filter(Boolean);
  return { ...views[0], title: "How both learnt", lines, band: views[0].band, caption: looks.join(" ") };
}
