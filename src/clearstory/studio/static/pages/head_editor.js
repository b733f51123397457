// By hand: one head on the experiment page: how much of what it adds is let through, and its weights, which can be pulled.

import { latestRequest, fetchArrays } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as weightEditor } from "../render/weight_editor.js";
import { el, slider } from "../dom.js";
import { viewTables, pythonLiteral } from "../format.js";

/** More tokens than this have dots too small to be pulled. */
const MAX_TOKENS = 48;

/** What an edit of a head is called, by whose attention it is. */
const INTERVENTION_NAMES = { "": ["head", "cell"], encoder: ["encoder head", "encoder cell"], decoder: ["head", "cell"], cross: ["cross-head", "cross-cell"] };

/** handCard(context, edits) -> {root, update(shape), end()}; `edits` is the page's list: all(), put(same, words). */
export function headEditorCard(context, edits) {
  const { state } = context;
  const requests = latestRequest();
  let shownRequest = null; // what the drawing is of
  let renderer = null;
  let [layers, heads, parts] = [1, 1, []];
  const field = (name, words) => {
    const input = el("input", { type: "number", min: 0, step: 1, name, onchange: () => state.set({ [name]: Math.max(0, Math.floor(Number(input.value) || 0)) }, { quiet: true }) });
    return [el("label", {}, el("span", {}, words), input), input];
  };
  const [layerBox, layerInput] = field("layer", "Layer");
  const [headBox, headInput] = field("head", "Head");
  const partInput = el("select", { name: "part", onchange: () => state.set({ part: partInput.value || null }, { quiet: true }) });
  const partBox = el("label", { hidden: true }, el("span", {}, "Whose"), partInput);
  const scaleText = (value) => (value === 0 ? "nothing" : value === 1 ? "as it is" : `${value} times`);
  const scale = slider({ label: "What it adds", name: "scale", min: 0, max: 2, step: 0.05, value: 1, format: scaleText, oninput: (value) => edits.put(isScale, value === 1 ? null : `${headName()} ${value === 0 ? "off" : `x${value}`}`) });
  const [scaleInput, scaleOutput] = [scale.querySelector("input"), scale.querySelector("output")];
  const card = makeCard({ name: "hand", title: "One head by hand", tools: el("div", { class: "settings" }, partBox, layerBox, headBox, scale) });

  const selectedPart = () => (parts.length > 1 ? (state.get("part") ?? parts[1]) : null);
  const selectedHead = () => ({ layer: Math.min(layers - 1, state.number("layer") ?? 0), head: Math.min(heads - 1, state.number("head") ?? 0) });
  const headLabel = () => `${selectedHead().layer}.${selectedHead().head}`;
  const headName = () => `${INTERVENTION_NAMES[selectedPart() ?? ""][0]} ${headLabel()}`;
  const cellName = () => `${INTERVENTION_NAMES[selectedPart() ?? ""][1]} ${headLabel()}`;
  const isScale = (each) => each.startsWith(`${headName()} `) && !each.endsWith(" mean");

  function onWeightChange({ row, column, weight }) {
    const name = `${cellName()} ${row} ${column} `;
    edits.put((each) => each.startsWith(name), weight === null ? null : name + weight);
  }

  function paintTools() {
    layerInput.max = layers - 1;
    headInput.max = heads - 1;
    for (const [input, value] of [[layerInput, selectedHead().layer], [headInput, selectedHead().head]]) if (document.activeElement !== input) input.value = value;
    partBox.hidden = parts.length < 2;
    partInput.replaceChildren(...parts.map((each) => el("option", { value: each, selected: each === selectedPart() }, each)));
    const intervention = edits.all().find(isScale);
    const value = intervention ? (intervention.endsWith(" off") ? 0 : Number(intervention.split(" x").at(-1))) : 1;
    if (Number(scaleInput.value) !== value) scaleInput.value = value;
    scaleOutput.textContent = scaleText(value);
  }

  function update(shape) {
    ({ layers, heads, parts } = shape);
    paintTools();
    const intervention = selectedPart() ? { part: selectedPart(), ...(state.get("target") ? { target: state.get("target") } : {}) } : {};
    const request = { model: context.model(), text: context.text(), function: "edited_pattern", settings: { ...intervention, ...selectedHead(), edit: edits.all() } };
    const key = JSON.stringify(request);
    if (key === shownRequest) return Promise.resolve();
    return card.fill(async () => {
      const result = await requests.run((signal) => fetchArrays(request, signal));
      shownRequest = key;
      const view = toGridView(result);
      return {
        title: `Head ${result.head} of ${result.words}, by hand`,
        caption: changeCaption(result),
        python: snippet(request, result),
        tables: () => viewTables(view),
        files: { csv: async () => tablesCsv(viewTables(view)) },
        mount: (body) => paint(body, result),
      };
    });
  }

  function paint(body, result) {
    Object.assign(body.dataset, { layer: result.layer, head: result.head });
    if (Math.max(result.rows.length, result.columns.length) > MAX_TOKENS) {
      renderer?.destroy();
      renderer = null;
      body.replaceChildren(el("p", { class: "quiet" }, `Of ${result.rows.length} tokens the dots are too small to be pulled; up to ${MAX_TOKENS} can be. An edit in words, above, does the same: ${cellName()} ROW COLUMN WEIGHT.`));
      return null;
    }
    const name = `${cellName()} `;
    const edited = new Set(edits.all().filter((each) => each.startsWith(name)).map((each) => each.slice(name.length).split(" ").slice(0, 2).join(",")));
    const data = { ...result, edited };
    // The drawing stays while a dot is in hand: only its numbers change.
    if (renderer && body.querySelector(".weight-editor")) renderer.update(data);
    else renderer = weightEditor(body, data, { onTurn: onWeightChange });
    return renderer;
  }

  function changeCaption(result) {
    let [largest, index] = [0, null];
    result.weights.values.forEach((value, headLabel) => {
      const change = value - result.before.values[headLabel];
      if (Math.abs(change) > Math.abs(largest)) [largest, index] = [change, headLabel];
    });
    if (index === null) return "Its weights are as the model makes them.";
    const [row, column] = [Math.floor(index / result.columns.length), index % result.columns.length];
    return `Most changed: ${result.rows[row]} takes ${result.weights.values[index].toFixed(2)} from ${result.columns[column]} where it took ${result.before.values[index].toFixed(2)}.`;
  }

  return { root: card.root, update, destroy: () => (requests.cancel(), renderer?.destroy()) };
}

function toGridView(result) {
  const columns = result.columns.length;
  const values = result.rows.map((_, row) => [...result.weights.values.subarray(row * columns, (row + 1) * columns)]);
  return { kind: "grid", title: `Attention of ${result.words}, head ${result.head}, with the edits`, row_labels: result.rows, column_labels: result.columns, values };
}

const snippet = ({ model, text, settings }, { layer, head }) => `import clearstory
from clearstory.lens.hooks.interventions import parse
from clearstory.lens.hooks.apply_interventions import pattern_after
from clearstory.lens.hooks.passage import passage
from clearstory.lens.hooks.attention_sites import site

opened = clearstory.open(${pythonLiteral(model)})
read = passage(opened.model, opened.tokenizer, ${pythonLiteral(text)}${settings.target ? `, target=${pythonLiteral(settings.target)}` : ""})
edits = [parse(each) for each in ${pythonLiteral(settings.edit)}]
at = site(opened.model, ${layer}, ${pythonLiteral(settings.part ?? null)})
weights = pattern_after(opened.model, opened.tokenizer, read, at, edits)[${head}]
`;
