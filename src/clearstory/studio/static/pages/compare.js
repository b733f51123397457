// Compare page: one view of two sides A and B, each a model, a checkpoint and a sentence, and their difference B − A.

import { fetchFile, getJson, latestRequest, postJson, ApiError, StaleResponse } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { renderView } from "../renderers.js";
import { el } from "../dom.js";
import { linkRenderers, translatePosition } from "../linked_views.js";
import { settingLabel } from "../setting_labels.js";
import { inspectSnippet } from "../view_card.js";
import { viewTables, viewTitle } from "../format.js";
import { makeComparisonSides } from "./comparison_sides.js";

/** Kinds of views that can be subtracted. */
const COMPARABLE_KINDS = new Set(["grid", "curve", "table", "highlighted_text"]);

/** Views that are not about the sentence, or that need further inputs. */
const EXCLUDED_VIEWS = new Set(["neighbours", "analogy", "dependency-heads", "activation-patching", "interventions"]);

const SIDE_LABELS = { a: "A", b: "B" };

export function mount(root, context) {
  const [differenceRequest, viewsRequest, curvesRequest] = [latestRequest(), latestRequest(), latestRequest()];
  const { state } = context;
  let viewsOfB = { of: null, views: new Map() }; // B's model and its views
  let lastRequest = null; // the last request as JSON
  const shownViews = { a: null, b: null, difference: null }; // the drawn views
  const linkedRenderers = linkRenderers((position, from, to) => translatePosition(position, shownViews[from], shownViews[to]));

  const viewSelect = el("select", { name: "view", onchange: () => state.set({ view: viewSelect.value, ...clearedSettings() }) });
  const settings = el("form", { class: "settings", onsubmit: (event) => event.preventDefault() });
  const sides = makeComparisonSides(context);
  const tools = el("div", {}, sides.root, el("div", { class: "settings" }, el("label", {}, el("span", {}, "View"), viewSelect), settings));
  const sidesCard = makeCard({ name: "sides", title: "Two sides", description: "A is the model, checkpoint and sentence above; B is chosen here and starts as a copy of A.", tools });
  const cards = {
    a: makeCard({ name: "a", title: "A" }),
    b: makeCard({ name: "b", title: "B" }),
    difference: makeCard({ name: "difference", title: "B − A" }),
  };
  const curvesCard = makeCard({ name: "curves", title: "Learning curves" });
  sidesCard.root.classList.add("both", "all");
  cards.difference.root.classList.add("both");
  curvesCard.root.classList.add("both", "all");
  curvesCard.root.hidden = true;
  root.replaceChildren(el("div", { class: "panes" }, sidesCard.root, cards.a.root, cards.b.root, cards.difference.root, curvesCard.root));

  /** Resets the settings of the previous view. */
  const clearedSettings = () => Object.fromEntries(Object.keys(state.all()).filter((name) => name.startsWith("v_")).map((name) => [name, null]));

  // ---- requests

  const comparableViews = () => [...context.views().values()].filter((each) => COMPARABLE_KINDS.has(each.kind) && !each.slow && !EXCLUDED_VIEWS.has(each.name));

  const isAvailableInBoth = (name) => Boolean(context.views().get(name)?.available && viewsOfB.views.get(name)?.available);

  /** logit-lens for one model, surprisal for two models, next-token for two sentences. */
  function defaultView() {
    const same = sides.text() === context.text();
    const preferred = !same ? "next-token" : sides.model() === context.model() || sides.name() === state.get("model") ? "logit-lens" : "surprisal";
    return [preferred, "next-token", "attention", "embeddings"].find(isAvailableInBoth) ?? comparableViews().find((each) => isAvailableInBoth(each.name))?.name ?? null;
  }

  const selectedView = () => (state.get("view") && isAvailableInBoth(state.get("view")) ? state.get("view") : defaultView());

  function buildRequest(view) {
    const settingValues = {};
    for (const row of settingsOf(view)) {
      const value = parseValue(row, state.get(urlKey(row.name)));
      if (value !== null) settingValues[row.name] = value;
    }
    // The same head on both sides; without it each side would select its own.
    if ("head" in fieldsByName(view)) settingValues.head ??= 0;
    return { ...context.input(), compare_model: sides.model(), compare_text: sides.text(), view, settings: settingValues };
  }

  const fieldsByName = (view) => Object.fromEntries(settingsOf(view).map((row) => [row.name, row]));
  const settingsOf = (view) => (context.views().get(view)?.settings ?? []).filter((row) => row.name !== "truncate" && row.name !== "target" && row.name !== "part");
  const urlKey = (name) => (name === "layer" || name === "head" ? name : `v_${name}`);

  function parseValue(row, text) {
    if (text === null || text === "") return null;
    if (row.kind === "list") return text.split(";").map((each) => each.trim()).filter(Boolean);
    if (row.kind === "boolean") return text === "true";
    return row.kind === "integer" || row.kind === "number" ? Number(text) : text;
  }

  // ---- controls

  function updateViewSelect(view) {
    const reason = (each) => (!each.available ? `A: ${each.reason}` : `B: ${viewsOfB.views.get(each.name)?.reason ?? "view not available"}`);
    const options = comparableViews().map((each) => el("option", { value: each.name, disabled: !isAvailableInBoth(each.name), title: isAvailableInBoth(each.name) ? each.description : reason(each) }, viewTitle(each.name)));
    viewSelect.replaceChildren(...options);
    viewSelect.value = view ?? "";
  }

  let settingsView = null; // the view of the shown settings

  function updateSettings(view) {
    if (settingsView !== view) settings.replaceChildren(...settingsOf(view).map(field));
    settingsView = view;
    for (const row of settingsOf(view)) {
      const input = settings.elements[row.name];
      if (input && input !== document.activeElement) input.value = state.get(urlKey(row.name)) ?? "";
    }
    settings.hidden = !settings.children.length;
  }

  function field(row) {
    const setValue = (value) => state.set({ [urlKey(row.name)]: value || null }, { quiet: true });
    const choices = row.kind === "choice" ? row.choices : row.kind === "boolean" ? ["true", "false"] : null;
    const input = choices
      ? el("select", { name: row.name, onchange: () => setValue(input.value) }, el("option", { value: "" }, "auto"), ...choices.map((each) => el("option", { value: each }, each)))
      : el("input", { type: row.kind === "integer" || row.kind === "number" ? "number" : "text", step: row.kind === "integer" ? "1" : "any", name: row.name, size: 8, placeholder: row.name === "head" ? "0" : row.kind === "list" ? "one; another" : row.default === null ? "auto" : String(row.default), onchange: () => setValue(input.value) });
    return el("label", {}, el("span", {}, settingLabel(row.name)), input);
  }

  // ---- results

  async function update() {
    sides.update();
    const pending = [context.track(compare()), context.track(showCurves())];
    await Promise.all(pending);
  }

  async function compare() {
    if (!context.model()) return undefined;
    try {
      if (viewsOfB.of !== sides.model()) {
        const name = sides.model();
        const views = name === context.model() ? [...context.views().values()] : (await viewsRequest.run((signal) => getJson("views", { name }, signal))).views;
        viewsOfB = { of: name, views: new Map(views.map((each) => [each.name, each])) };
      }
    } catch (error) {
      if (error instanceof StaleResponse) return undefined;
      if (!(error instanceof ApiError)) throw error;
      return showNothing(`B: ${error.message}`);
    }
    const view = selectedView();
    updateViewSelect(view);
    if (!view) return showNothing("These two models have no comparable view in common; choose another model for B.");
    updateSettings(view);
    const request = buildRequest(view);
    const key = JSON.stringify(request);
    if (key === lastRequest) return undefined;
    lastRequest = key;
    sidesCard.fill(async () => ({ caption: sidesCaption(), mount: () => null }));
    const response = differenceRequest.run((signal) => postJson("view-difference", request, signal));
    response.catch(() => (lastRequest = null));
    return Promise.all(Object.keys(cards).map((name) => cards[name].fill(() => cardContent(name, response, request))));
  }

  /** Clears all cards and shows the reason. */
  function showNothing(sentence) {
    lastRequest = null;
    for (const name of Object.keys(cards)) clearCard(name);
    return cards.difference.fail(sentence);
  }

  function clearCard(name) {
    cards[name].renderer()?.destroy?.();
    linkedRenderers.leave(name);
    shownViews[name] = null;
    return cards[name].fill(async () => ({ title: SIDE_LABELS[name] ?? "B − A", mount: (body) => (body.replaceChildren(), null) }));
  }

  function sidesCaption() {
    const parts = [];
    if (sides.model() !== context.model()) parts.push(`models: A is ${context.model()}, B is ${sides.model()}`);
    if (sides.text() !== context.text()) parts.push("sentences");
    return parts.length ? `A and B differ in: ${parts.join("; ")}.` : "Both sides are the same; choose another model, checkpoint or sentence for B.";
  }

  /** The content of one card. */
  async function cardContent(name, response, request) {
    let result;
    try {
      result = await response;
    } catch (error) {
      if (error instanceof ApiError && name !== "difference") return { title: SIDE_LABELS[name], mount: (body) => clearBody(name, body) };
      if (error instanceof ApiError) clearBody(name, cards[name].body);
      throw error;
    }
    const view = result[name];
    if (!view) {
      clearBody(name, cards[name].body);
      const sentence = result.problems[name];
      throw new ApiError(sentence ?? `There is no difference because side ${result.problems.a ? "A" : "B"} failed.`);
    }
    const sideRequest = { model: name === "b" ? request.compare_model : request.model, text: name === "b" ? request.compare_text : request.text, view: request.view, settings: request.settings };
    return {
      title: name === "difference" ? view.title : `${SIDE_LABELS[name]}: ${view.title}`,
      caption: view.caption,
      python: name === "difference" ? inspectSnippet({ ...sideRequest, settings: { ...request.settings, ...compareArguments(request) } }) : inspectSnippet(sideRequest),
      tables: () => viewTables(view),
      files: {
        svg: () => (name === "difference" ? fetchFile(request, "svg", "view-difference") : fetchFile(sideRequest, "svg")),
        csv: async () => tablesCsv(viewTables(view)),
        html: () => (name === "difference" ? fetchFile(request, "html", "view-difference") : fetchFile(sideRequest, "html")),
      },
      mount: (body) => {
        cards[name].renderer()?.destroy?.();
        shownViews[name] = view;
        const container = el("div", {});
        body.replaceChildren(...(name === "difference" ? [legend(view), container] : [container]));
        body.dataset.kind = view.kind;
        const renderer = renderView(container, view, { ...linkedRenderers.hooks(name), ...(name === "a" ? { onPick: (pick) => context.pick(pick, view) } : {}) });
        linkedRenderers.join(name, renderer, body);
        return renderer;
      },
    };
  }

  /** The arguments of `inspect` that describe side B. */
  const compareArguments = (request) => ({ compare_model: request.compare_model, ...(request.compare_text === request.text ? {} : { compare_text: request.compare_text }) });

  function clearBody(name, body) {
    cards[name].renderer()?.destroy?.();
    linkedRenderers.leave(name);
    shownViews[name] = null;
    body.replaceChildren();
    return null;
  }

  /** The legend of the two colours. */
  function legend(view) {
    if (view.kind === "curve") return "";
    const swatch = (shade, words) => el("span", {}, el("span", { class: `swatch ${shade}`, "aria-hidden": "true" }), words);
    return el("p", { class: "key" }, swatch("more-5", "more in B"), swatch("less-5", "less in B"));
  }

  // ---- learning curves

  let shownCurves = null;

  async function showCurves() {
    const names = [state.get("model"), sides.name()];
    const runs = names.map((name) => context.models().find((each) => each.name === name && each.kind === "run"));
    curvesCard.root.hidden = names[0] === names[1] || runs.includes(undefined);
    if (curvesCard.root.hidden || shownCurves === names.join("\n")) return undefined;
    shownCurves = names.join("\n");
    return curvesCard.fill(async () => {
      const responses = await curvesRequest.run((signal) => Promise.all(names.map((name) => getJson("runs/learning-curve", { name }, signal))));
      if (responses.some((each) => !each.view)) throw new ApiError("One of the two runs has not been evaluated yet; its curve starts with the first evaluation.");
      const view = mergeCurves(responses.map((each) => each.view), names);
      return {
        caption: view.caption,
        tables: () => viewTables(view),
        files: { csv: async () => tablesCsv(viewTables(view)) },
        mount: (body) => (curvesCard.renderer()?.destroy?.(), renderView(body, view)),
      };
    });
  }

  return {
    update,
    destroy: () => {
      for (const each of [differenceRequest, viewsRequest, curvesRequest]) each.cancel();
      for (const each of [...Object.values(cards), curvesCard]) each.renderer()?.destroy?.();
    },
  };
}

/** Two learning curves on one axis. */
function mergeCurves(views, names) {
  const lines = views.flatMap((view, side) => view.lines.map((each) => ({ ...each, name: `${"AB"[side]}, ${names[side]}: ${each.name}`, same_color_as: each.same_color_as ? `${"AB"[side]}, ${names[side]}: ${each.same_color_as}` : null })));
  const captions = views.map((view, side) => (view.caption ? `${"AB"[side]}: ${view.caption}` : "")).filter(Boolean);
  return { ...views[0], title: "Learning curves", lines, band: views[0].band, caption: captions.join(" ") };
}
