// Experiment: parts of the model taken away or changed by hand, and what it says then beside what it said. What was
// changed is a list of edits in words (lens/hooks/interventions.py) that can be undone, and stands in the page's address: a click on a
// part, a dot that is pulled, a slider and a cell of the patching grid all write a line of it.

import { latestRequest, fetchArrays, ApiError, StaleResponse } from "../api.js";
import { makeCard } from "../card.js";
import { mount as mountBars } from "../render/before_after_bars.js";
import { el, whenReady, slider, svg } from "../dom.js";
import { viewCard } from "../view_card.js";
import { pythonLiteral } from "../format.js";
import { headEditorCard } from "./head_editor.js";

const SYNTAX = [
  ["head 5.3 off", "what head 3 of layer 5 adds is left out; mean: the same at every token; x0.5: half of it"],
  ["attention 5 off", "the same of a whole step; also feed-forward, layer, cross-head, cross-attention"],
  ["cell 5.3 7 2 0.9", "in head 5.3, token 7 takes 0.9 from token 2; the rest of its row keeps its proportions"],
  ['steer 6 4 all "joy" "grief"', "after layer 6, four times what parts the two texts is added to all tokens (or: last)"],
  ['patch 6 7 "another text"', "after layer 6, token 7 is what it is in another text of as many tokens"],
];

/** A steering edit, taken apart. */
const STEER_PATTERN = /^((?:encoder )?steer \S+) (\S+) ((?:all|last) .*)$/;
/** An edit that says how much of a part is let through. */
const SCALE_PATTERN = /^((?:encoder )?(?:cross-)?(?:head|attention|feed-forward|layer) \S+) x(\S+)$/;
const quoted = (text) => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", " ")}"`;

export function mount(root, context, { views }) {
  const { state } = context;
  const requests = latestRequest();
  let shape = null; // {layers, heads, parts} of the model that is shown
  let shapeModel = null; // that model
  let queued = null; // edits that wait until those before them are painted
  let isApplying = false;
  /** The edits, in the order in which they are made. */
  const currentList = () => queued ?? (state.get("edits") ?? "").split("\n").filter(Boolean);
  const list = el("ol", { class: "edits" });
  const input = el("input", { type: "text", name: "new-edit", size: 32, placeholder: SYNTAX[0][0], "aria-label": "an edit" });
  const form = el("form", { class: "settings", onsubmit: (event) => (event.preventDefault(), add(input.value.trim()) && (input.value = "")) }, el("label", {}, el("span", {}, "Edit"), input), el("button", { type: "submit" }, "Add"));
  const undoButton = el("button", { type: "button", onclick: () => apply(currentList().slice(0, -1)) }, "Undo");
  const clearButton = el("button", { type: "button", onclick: () => apply([]) }, "Undo all");
  const help = el(
    "details",
    {},
    el("summary", {}, "How an edit is written"),
    el("dl", { class: "how" }, ...SYNTAX.flatMap(([spec, means]) => [el("dt", { class: "mono" }, spec), el("dd", {}, means)])),
  );
  const tools = el("div", {}, form, steeringForm(), help, list, el("div", { class: "buttons" }, undoButton, clearButton));
  const partsCard = makeCard({
    name: "board",
    title: "Parts of the model",
    description: "A click takes a head, or a layer's feed-forward, away; another click gives it back.",
    tools,
  });
  const target = () => (state.get("target") ? { target: state.get("target") } : {});
  const outcomeCard = views.includes("interventions")
    ? viewCard(context, "interventions", { boundSettings: () => ({ edit: currentList(), ...target() }), title: "Before and after", render: mountBars, emptyMessage: "Nothing is changed yet. Click a part of the model, pull a dot below, or write an edit: what the model says then stands here beside what it says as it is." })
    : null;
  const headEditor = headEditorCard(context, { all: currentList, put: replace });
  const viewCards = views.filter((name) => name !== "interventions").map((name) => viewCard(context, name, { onPick: { "activation-patching": onPatchingClick, ablation: onAblationClick }[name] ?? context.pick }));
  root.replaceChildren(el("div", { class: "cards lab" }, partsCard.root, outcomeCard?.root, headEditor.root), el("div", { class: "cards" }, ...viewCards.map((card) => card.root)));

  /** Other edits. While a dot is pulled only the newest are asked for, when those before are painted. */
  async function apply(newList, changes = {}) {
    queued = newList;
    if (isApplying) return;
    isApplying = true;
    try {
      while (queued) {
        const current = queued;
        queued = null;
        state.set({ ...changes, edits: current.length ? current.join("\n") : null }, { quiet: true });
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

  /** An edit in the place of the one that is the `same`, or behind the others; null takes that one away. */
  function replace(matches, spec) {
    const current = currentList();
    const place = current.findIndex(matches);
    if (place < 0) return spec ? apply([...current, spec]) : undefined;
    return apply(spec ? current.with(place, spec) : current.toSpliced(place, 1));
  }

  function toggleIntervention(spec) {
    const [, layer, head] = /(\d+)(?:\.(\d+))?/.exec(spec);
    const current = currentList().filter((each) => each === spec || SCALE_PATTERN.exec(each)?.[1] !== spec.slice(0, -4)); // a part is scaled, or off
    apply(current.includes(spec) ? current.filter((each) => each !== spec) : [...current, spec], head === undefined ? {} : { layer, head });
  }

  function onPatchingClick({ cell, column }, view, asked) {
    if (!cell || column === undefined) return;
    const prefix = shape?.parts.length > 1 ? "encoder " : "";
    add(`${prefix}patch ${cell.row === 0 ? "embedding" : cell.row - 1} ${cell.column} ${quoted(asked.settings.other)}`);
  }

  /** What a column of the ablation is called there: h3 a head, x3 one across, ff the feed-forward. */
  function onAblationClick({ cell }, view) {
    if (!cell) return;
    const column = view.column_labels[cell.column];
    toggleIntervention(column === "ff" ? `feed-forward ${cell.row} off` : `${column[0] === "x" ? "cross-" : ""}head ${cell.row}.${column.slice(1)} off`);
  }

  /** A form for a vector that is added: what parts two texts. */
  function steeringForm() {
    const text = (name, placeholder) => el("input", { type: "text", name, size: 12, placeholder, required: true });
    const [towardInput, awayInput] = [text("toward", "I love this"), text("away", "I hate this")];
    const layer = el("input", { type: "number", name: "steer-layer", min: 0, step: 1, required: true });
    const positions = el("select", { name: "where" }, el("option", { value: "all" }, "all tokens"), el("option", { value: "last" }, "the last token"));
    const submit = (event) => {
      event.preventDefault();
      add(`steer ${Number(layer.value)} 1 ${positions.value} ${quoted(towardInput.value)} ${quoted(awayInput.value)}`);
    };
    const labelled = (spec, each) => el("label", {}, el("span", {}, spec), each);
    return el("form", { class: "settings steering", onsubmit: submit }, labelled("Steer toward", towardInput), labelled("away from", awayInput), labelled("after layer", layer), labelled("at", positions), el("button", { type: "submit" }, "Steer"));
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
    root.dataset.edits = current.length;
    // A slider that is being moved stays; what it says of its edit is its own.
    const existingItems = new Map([...list.children].map((each) => [each.dataset.of, each]));
    list.replaceChildren(...current.map((each, place) => listItem(each, place, existingItems.get(`${place}:${interventionTarget(each)}`))));
  }

  const interventionTarget = (each) => (STEER_PATTERN.exec(each) ?? SCALE_PATTERN.exec(each))?.[1] ?? each;

  function listItem(each, place, existing) {
    if (existing?.contains(document.activeElement)) {
      existing.dataset.edit = each;
      existing.querySelector("code").textContent = each;
      return existing;
    }
    const [steer, scaled] = [STEER_PATTERN.exec(each), SCALE_PATTERN.exec(each)];
    const value = Number((steer ?? scaled)?.[2]);
    const setStrength = (current) => apply(currentList().with(place, steer ? `${steer[1]} ${current} ${steer[3]}` : `${scaled[1]} x${current}`));
    const range = steer ? [-8, 8, 0.25] : [0, 2, 0.05];
    const strengthSlider = steer || scaled ? slider({ label: "Strength", name: "strength", min: Math.min(range[0], value), max: Math.max(range[1], value), step: range[2], value, oninput: setStrength }) : null;
    const removeButton = el("button", { type: "button", class: "tool", "aria-label": `undo ${each}`, onclick: () => apply(currentList().toSpliced(place, 1)) }, "×");
    return el("li", { data: { edit: each, of: `${place}:${interventionTarget(each)}` } }, el("code", {}, each), " ", removeButton, strengthSlider);
  }

  /** The parts as squares: a column a layer, a row a head, the feed-forward below. */
  async function paint() {
    const model = context.model();
    try {
      if (shapeModel !== model || !shape) {
        // One token tells how many heads there are, and whose.
        const ask = (settings) => requests.run((signal) => fetchArrays({ model, text: context.text(), function: "head_patterns", settings: { cells: 1, ...settings } }, signal));
        let result = await ask({});
        if (result.parts.length > 1) result = await ask({ part: "decoder" }); // which writes the answer
        const [layers, heads] = result.maps.shape;
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
    if (!current.length) return "Nothing is changed: the model answers as it is.";
    return `${current.length} change${current.length > 1 ? "s" : ""}, made one after another: ${current.join(", ")}.`;
  }

  const snippet = () => `import clearstory
from clearstory.lens.hooks.interventions import parse
from clearstory.lens.hooks.apply_interventions import intervene
from clearstory.lens.hooks.passage import passage

opened = clearstory.open(${pythonLiteral(context.model())})
read = passage(opened.model, opened.tokenizer, ${pythonLiteral(context.text())}${state.get("target") ? `, target=${pythonLiteral(state.get("target"))}` : ""})
edits = [
${currentList().map((each) => `    parse(${pythonLiteral(each)}),`).join("\n")}
]
outcome = intervene(opened.model, opened.tokenizer, read, edits)
print(f"KL {outcome.kl:.3g} bits")
for id, before, after in outcome.moves(12):
    print(f"{opened.tokenizer.piece(id):16} {before:.4f} {after:.4f}")
`;

  function renderParts(body) {
    const { layers, heads } = shape;
    const [left, top, gap] = [64, 18, 3];
    const size = Math.max(12, Math.min(30, ((body.clientWidth || 560) - left) / layers - gap));
    const cellStep = size + gap;
    const [removeButton, spec] = [new Set(currentList()), currentList()];
    const scaled = (name) => spec.some((each) => each.startsWith(`${name} `) && !each.endsWith(" off"));
    const chosen = `${state.get("layer")}.${state.get("head") ?? 0}`;
    const svgNode = svg("svg", { class: "board", width: left + layers * cellStep, height: top + (heads + 1) * cellStep + gap, role: "group", "aria-label": "parts of the model" });
    const columnEvery = Math.ceil(18 / cellStep);
    for (let layer = 0; layer < layers; layer++) {
      if (layer % columnEvery === 0) svgNode.append(svg("text", { class: "soft middle", x: left + layer * cellStep + size / 2, y: 12, "font-size": 10 }, String(layer)));
      for (let row = 0; row <= heads; row++) {
        const name = row === heads ? `feed-forward ${layer}` : `head ${layer}.${row}`;
        const spec = `${name} off`;
        const isAblated = removeButton.has(spec);
        const classes = `${isAblated ? " ablated" : scaled(name) ? " scaled" : ""}${row === heads ? " feed-forward" : chosen === `${layer}.${row}` ? " chosen" : ""}`;
        svgNode.append(
          svg(
            "rect",
            {
              class: `part${classes}`, x: left + layer * cellStep, y: top + row * cellStep + (row === heads ? gap : 0), width: size, height: size, rx: 2,
              tabindex: 0, role: "button", "aria-pressed": String(isAblated), "aria-label": spec, data: { edit: spec },
              onclick: () => toggleIntervention(spec),
              onkeydown: (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), toggleIntervention(spec)),
            },
            svg("title", {}, isAblated ? `${spec}: a click gives it back` : spec),
          ),
        );
      }
    }
    for (let row = 0; row <= heads; row++)
      svgNode.append(svg("text", { class: "soft end", x: left - 6, y: top + row * cellStep + size / 2 + 4, "font-size": 10 }, row === heads ? "think" : `head ${row}`));
    body.replaceChildren(el("div", { class: "wide" }, svgNode));
    return { update: () => {}, state: () => ({ edits: currentList() }), svg: () => null, csv: () => null };
  }

  return {
    update,
    destroy: () => (requests.cancel(), headEditor.destroy(), outcomeCard?.destroy(), viewCards.forEach((card) => card.destroy())),
  };
}
