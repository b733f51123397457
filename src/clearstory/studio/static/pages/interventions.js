// Interventions page: components ablated, scaled or edited, and the next-token probabilities before and after. The
// interventions are a list of lines in the syntax of lens/hooks/interventions.py, kept in the URL state: clicking a component,
// dragging a weight, moving a slider and clicking a cell of the patching grid each add or change a line.

import { latestRequest, fetchArrays, ApiError, StaleResponse } from "../api.js";
import { makeCard } from "../card.js";
import { mount as mountBars } from "../render/before_after_bars.js";
import { el, whenReady, slider, svg } from "../dom.js";
import { viewCard } from "../view_card.js";
import { promptArgument, promptImport, pythonLiteral } from "../format.js";
import { headEditorCard } from "./head_editor.js";

const SYNTAX = [
  ["head 5.3 off", "zero ablation of head 3 in layer 5; mean: mean ablation over the tokens; x0.5: output scaled by half"],
  ["attention 5 off", "the same for a whole sublayer; also feed-forward, layer, cross-head, cross-attention"],
  ["cell 5.3 7 2 0.9", "in head 5.3, set the attention weight from token 7 to token 2 to 0.9; the rest of the row is rescaled"],
  ['steer 6 4 all "joy" "grief"', "after layer 6, add 4 times the difference of the two texts' residual vectors at all tokens (or: last)"],
  ['patch 6 7 "another text"', "after layer 6, replace the residual vector of token 7 by that of another text with as many tokens"],
];

/** The parts of a steering intervention. */
const STEER_PATTERN = /^((?:encoder )?steer \S+) (\S+) ((?:all|last) .*)$/;
/** The parts of a scaling intervention. */
const SCALE_PATTERN = /^((?:encoder )?(?:cross-)?(?:head|attention|feed-forward|layer) \S+) x(\S+)$/;
const quoted = (text) => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", " ")}"`;

export function mount(root, context, { views }) {
  const { state } = context;
  const requests = latestRequest();
  let shape = null; // {layers, heads, parts} of the model
  let shapeModel = null; // the model that the shape belongs to
  let queued = null; // interventions to apply once the current ones are drawn
  let isApplying = false;
  /** The interventions, in the order of application. */
  const currentList = () => queued ?? (state.get("interventions") ?? "").split("\n").filter(Boolean);
  const list = el("ol", { class: "interventions" });
  const input = el("input", { type: "text", name: "new-intervention", size: 32, placeholder: SYNTAX[0][0], "aria-label": "intervention" });
  const form = el("form", { class: "settings", onsubmit: (event) => (event.preventDefault(), add(input.value.trim()) && (input.value = "")) }, el("label", {}, el("span", {}, "Intervention"), input), el("button", { type: "submit" }, "Add"));
  const undoButton = el("button", { type: "button", onclick: () => apply(currentList().slice(0, -1)) }, "Undo");
  const clearButton = el("button", { type: "button", onclick: () => apply([]) }, "Remove all");
  const help = el(
    "details",
    {},
    el("summary", {}, "Syntax of interventions"),
    el("dl", { class: "how" }, ...SYNTAX.flatMap(([spec, means]) => [el("dt", { class: "mono" }, spec), el("dd", {}, means)])),
  );
  const tools = el("div", {}, form, steeringForm(), help, list, el("div", { class: "buttons" }, undoButton, clearButton));
  const partsCard = makeCard({
    name: "components",
    title: "Model components",
    description: "Click a head or a feed-forward network to ablate it; click again to restore it.",
    tools,
  });
  const target = () => (state.get("target") ? { target: state.get("target") } : {});
  const outcomeCard = views.includes("interventions")
    ? viewCard(context, "interventions", { boundSettings: () => ({ edit: currentList(), ...target() }), title: "Before and after", render: mountBars, emptyMessage: "There are no interventions yet. Click a component, drag a weight below, or type an intervention to compare the next-token probabilities before and after." })
    : null;
  const headEditor = headEditorCard(context, { list: currentList, replace });
  const viewCards = views.filter((name) => name !== "interventions").map((name) => viewCard(context, name, { onPick: { "activation-patching": onPatchingClick, ablation: onAblationClick }[name] ?? context.pick }));
  root.replaceChildren(el("div", { class: "cards lab" }, partsCard.root, outcomeCard?.root, headEditor.root), el("div", { class: "cards" }, ...viewCards.map((card) => card.root)));

  /** Applies a list of interventions. While a weight is dragged, only the latest list is applied once the previous one is drawn. */
  async function apply(newList, changes = {}) {
    queued = newList;
    if (isApplying) return;
    isApplying = true;
    try {
      while (queued) {
        const current = queued;
        queued = null;
        state.set({ ...changes, interventions: current.length ? current.join("\n") : null }, { quiet: true });
        await whenReady();
      }
    } finally {
      isApplying = false;
    }
  }

  function add(spec) {
    if (!spec) return false;
    apply([...currentList(), spec]);
    return true;
  }

  /** Replaces the intervention that matches, or appends a new one; null removes it. */
  function replace(matches, spec) {
    const current = currentList();
    const index = current.findIndex(matches);
    if (index < 0) return spec ? apply([...current, spec]) : undefined;
    return apply(spec ? current.with(index, spec) : current.toSpliced(index, 1));
  }

  function toggleIntervention(spec) {
    const [, layer, head] = /(\d+)(?:\.(\d+))?/.exec(spec);
    const current = currentList().filter((each) => each === spec || SCALE_PATTERN.exec(each)?.[1] !== spec.slice(0, -4)); // a component is either scaled or ablated
    apply(current.includes(spec) ? current.filter((each) => each !== spec) : [...current, spec], head === undefined ? {} : { layer, head });
  }

  function onPatchingClick({ cell, column }, view, request) {
    if (!cell || column === undefined) return;
    const prefix = shape?.parts.length > 1 ? "encoder " : "";
    add(`${prefix}patch ${cell.row === 0 ? "embedding" : cell.row - 1} ${cell.column} ${quoted(request.settings.other_text)}`);
  }

  /** Columns of the ablation view: h3 is a head, x3 a cross-attention head, ff the feed-forward network. */
  function onAblationClick({ cell }, view) {
    if (!cell) return;
    const column = view.column_labels[cell.column];
    toggleIntervention(column === "ff" ? `feed-forward ${cell.row} off` : `${column[0] === "x" ? "cross-" : ""}head ${cell.row}.${column.slice(1)} off`);
  }

  /** The form for a steering vector: the difference of two texts. */
  function steeringForm() {
    const textInput = (name, placeholder) => el("input", { type: "text", name, size: 12, placeholder, required: true });
    const [towardInput, awayInput] = [textInput("toward", "I love this"), textInput("away", "I hate this")];
    const layer = el("input", { type: "number", name: "steer-layer", min: 0, step: 1, required: true });
    const positions = el("select", { name: "where" }, el("option", { value: "all" }, "all tokens"), el("option", { value: "last" }, "the last token"));
    const submit = (event) => {
      event.preventDefault();
      add(`steer ${Number(layer.value)} 1 ${positions.value} ${quoted(towardInput.value)} ${quoted(awayInput.value)}`);
    };
    const labelled = (text, input) => el("label", {}, el("span", {}, text), input);
    return el("form", { class: "settings steering", onsubmit: submit }, labelled("Steer towards", towardInput), labelled("away from", awayInput), labelled("after layer", layer), labelled("at", positions), el("button", { type: "submit" }, "Steer"));
  }

  async function update() {
    updateList();
    const pending = [context.track(paint()), ...viewCards.map((card) => card.update())];
    if (outcomeCard) pending.push(outcomeCard.update());
    await Promise.all(pending);
  }

  function updateList() {
    const current = currentList();
    undoButton.disabled = clearButton.disabled = !current.length;
    root.dataset.interventions = current.length;
    // A slider that is being moved is kept.
    const existingItems = new Map([...list.children].map((each) => [each.dataset.of, each]));
    list.replaceChildren(...current.map((each, index) => listItem(each, index, existingItems.get(`${index}:${interventionTarget(each)}`))));
  }

  const interventionTarget = (each) => (STEER_PATTERN.exec(each) ?? SCALE_PATTERN.exec(each))?.[1] ?? each;

  function listItem(each, index, existing) {
    if (existing?.contains(document.activeElement)) {
      existing.dataset.intervention = each;
      existing.querySelector("code").textContent = each;
      return existing;
    }
    const [steer, scaled] = [STEER_PATTERN.exec(each), SCALE_PATTERN.exec(each)];
    const value = Number((steer ?? scaled)?.[2]);
    const setStrength = (strength) => apply(currentList().with(index, steer ? `${steer[1]} ${strength} ${steer[3]}` : `${scaled[1]} x${strength}`));
    const range = steer ? [-8, 8, 0.25] : [0, 2, 0.05];
    const strengthSlider = steer || scaled ? slider({ label: "Strength", name: "strength", min: Math.min(range[0], value), max: Math.max(range[1], value), step: range[2], value, oninput: setStrength }) : null;
    const removeButton = el("button", { type: "button", class: "tool", "aria-label": `remove ${each}`, onclick: () => apply(currentList().toSpliced(index, 1)) }, "×");
    return el("li", { data: { intervention: each, of: `${index}:${interventionTarget(each)}` } }, el("code", {}, each), " ", removeButton, strengthSlider);
  }

  /** Draws the components: one column per layer, one row per head, the feed-forward networks below. */
  async function paint() {
    const model = context.model();
    try {
      if (shapeModel !== model || !shape) {
        // A request with one cell per head returns the numbers of layers and heads.
        const ask = (settings) => requests.run((signal) => fetchArrays({ ...context.input(), function: "head_patterns", settings: { cells: 1, ...settings } }, signal));
        let result = await ask({});
        if (result.parts.length > 1) result = await ask({ part: "decoder" }); // the decoder predicts the next token
        const [layers, heads] = result.patterns.shape;
        [shapeModel, shape] = [model, { layers, heads, parts: result.parts }];
        const layer = root.querySelector('[name="steer-layer"]');
        layer.max = layers - 1;
        layer.placeholder = layer.value = String(Math.floor(layers / 2));
      }
    } catch (error) {
      if (error instanceof StaleResponse) return undefined;
      if (!(error instanceof ApiError)) throw error;
      return partsCard.fail(error.message);
    }
    return Promise.all([partsCard.fill(async () => ({ caption: partsCaption(), python: currentList().length ? snippet() : null, mount: renderParts })), headEditor.update(shape)]);
  }

  function partsCaption() {
    const current = currentList();
    if (!current.length) return "No interventions: the model is unchanged.";
    return `${current.length} intervention${current.length > 1 ? "s" : ""}, applied in order: ${current.join(", ")}.`;
  }

  const snippet = () => `import clearstory
${promptImport(context.prompt())}from clearstory.lens.hooks.apply_interventions import run_interventions
from clearstory.lens.hooks.interventions import parse_intervention
from clearstory.lens.hooks.passage import encode_passage

opened = clearstory.open(${pythonLiteral(context.model())})
passage = encode_passage(opened.model, opened.tokenizer, ${pythonLiteral(context.text())}${state.get("target") ? `, target=${pythonLiteral(state.get("target"))}` : ""}${promptArgument(context.prompt())})
interventions = [
${currentList().map((each) => `    parse_intervention(${pythonLiteral(each)}),`).join("\n")}
]
outcome = run_interventions(opened.model, opened.tokenizer, passage, interventions)
print(f"KL {outcome.kl:.3g} bits")
for id, before, after in outcome.largest_changes(12):
    print(f"{opened.tokenizer.display_token(id):16} {before:.4f} {after:.4f}")
`;

  function renderParts(body) {
    const { layers, heads } = shape;
    const [left, top, gap] = [64, 18, 3];
    const size = Math.max(12, Math.min(30, ((body.clientWidth || 560) - left) / layers - gap));
    const cellStep = size + gap;
    const [active, specs] = [new Set(currentList()), currentList()];
    const scaled = (name) => specs.some((each) => each.startsWith(`${name} `) && !each.endsWith(" off"));
    const chosen = `${state.get("layer")}.${state.get("head") ?? 0}`;
    const svgNode = svg("svg", { class: "board", width: left + layers * cellStep, height: top + (heads + 1) * cellStep + gap, role: "group", "aria-label": "model components" });
    const columnEvery = Math.ceil(18 / cellStep);
    for (let layer = 0; layer < layers; layer++) {
      if (layer % columnEvery === 0) svgNode.append(svg("text", { class: "soft middle", x: left + layer * cellStep + size / 2, y: 12, "font-size": 10 }, String(layer)));
      for (let row = 0; row <= heads; row++) {
        const name = row === heads ? `feed-forward ${layer}` : `head ${layer}.${row}`;
        const spec = `${name} off`;
        const isAblated = active.has(spec);
        const classes = `${isAblated ? " ablated" : scaled(name) ? " scaled" : ""}${row === heads ? " feed-forward" : chosen === `${layer}.${row}` ? " chosen" : ""}`;
        svgNode.append(
          svg(
            "rect",
            {
              class: `part${classes}`, x: left + layer * cellStep, y: top + row * cellStep + (row === heads ? gap : 0), width: size, height: size, rx: 2,
              tabindex: 0, role: "button", "aria-pressed": String(isAblated), "aria-label": spec, data: { intervention: spec },
              onclick: () => toggleIntervention(spec),
              onkeydown: (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), toggleIntervention(spec)),
            },
            svg("title", {}, isAblated ? `${spec}: click to restore` : spec),
          ),
        );
      }
    }
    for (let row = 0; row <= heads; row++)
      svgNode.append(svg("text", { class: "soft end", x: left - 6, y: top + row * cellStep + size / 2 + 4, "font-size": 10 }, row === heads ? "FFN" : `head ${row}`));
    body.replaceChildren(el("div", { class: "wide" }, svgNode));
    return { update: () => {}, state: () => ({ interventions: currentList() }), svg: () => null, csv: () => null };
  }

  return {
    update,
    destroy: () => (requests.cancel(), headEditor.destroy(), outcomeCard?.destroy(), viewCards.forEach((card) => card.destroy())),
  };
}
