// Head editor: the output scale of one head and its attention weights, which can be dragged. Part of the interventions page.

import { latestRequest, fetchArrays } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as weightEditor } from "../render/weight_editor.js";
import { el, slider } from "../dom.js";
import { viewTables, promptArgument, promptImport, pythonLiteral } from "../format.js";

/** Above this many tokens the dots are too small to be dragged. */
const MAX_TOKENS = 48;

/** The names of a head and of an attention weight in the intervention syntax, by attention part. */
const INTERVENTION_NAMES = { "": ["head", "cell"], encoder: ["encoder head", "encoder cell"], decoder: ["head", "cell"], cross: ["cross-head", "cross-cell"] };

/** headEditorCard(context, interventions) -> {root, update(shape), destroy()}; `interventions` has list() and replace(matches, spec). */
export function headEditorCard(context, interventions) {
  const { state } = context;
  const requests = latestRequest();
  let shownRequest = null; // the last request as JSON
  let renderer = null;
  let [layers, heads, parts] = [1, 1, []];
  const field = (name, text) => {
    const input = el("input", { type: "number", min: 0, step: 1, name, onchange: () => state.set({ [name]: Math.max(0, Math.floor(Number(input.value) || 0)) }, { quiet: true }) });
    return [el("label", {}, el("span", {}, text), input), input];
  };
  const [layerBox, layerInput] = field("layer", "Layer");
  const [headBox, headInput] = field("head", "Head");
  const partInput = el("select", { name: "part", onchange: () => state.set({ part: partInput.value || null }, { quiet: true }) });
  const partBox = el("label", { hidden: true }, el("span", {}, "Part"), partInput);
  const scaleText = (value) => (value === 0 ? "0 (ablated)" : value === 1 ? "1 (unchanged)" : `${value}`);
  const scale = slider({ label: "Output scale", name: "scale", min: 0, max: 2, step: 0.05, value: 1, format: scaleText, oninput: (value) => interventions.replace(isScale, value === 1 ? null : `${headName()} ${value === 0 ? "off" : `x${value}`}`) });
  const [scaleInput, scaleOutput] = [scale.querySelector("input"), scale.querySelector("output")];
  const card = makeCard({ name: "head-editor", title: "Edit one head", tools: el("div", { class: "settings" }, partBox, layerBox, headBox, scale) });

  const selectedPart = () => (parts.length > 1 ? (state.get("part") ?? parts[1]) : null);
  const selectedHead = () => ({ layer: Math.min(layers - 1, state.number("layer") ?? 0), head: Math.min(heads - 1, state.number("head") ?? 0) });
  const headLabel = () => `${selectedHead().layer}.${selectedHead().head}`;
  const headName = () => `${INTERVENTION_NAMES[selectedPart() ?? ""][0]} ${headLabel()}`;
  const cellName = () => `${INTERVENTION_NAMES[selectedPart() ?? ""][1]} ${headLabel()}`;
  const isScale = (each) => each.startsWith(`${headName()} `) && !each.endsWith(" mean");

  function onWeightChange({ row, column, weight }) {
    const name = `${cellName()} ${row} ${column} `;
    interventions.replace((each) => each.startsWith(name), weight === null ? null : name + weight);
  }

  function paintTools() {
    layerInput.max = layers - 1;
    headInput.max = heads - 1;
    for (const [input, value] of [[layerInput, selectedHead().layer], [headInput, selectedHead().head]]) if (document.activeElement !== input) input.value = value;
    partBox.hidden = parts.length < 2;
    partInput.replaceChildren(...parts.map((each) => el("option", { value: each, selected: each === selectedPart() }, each)));
    const intervention = interventions.list().find(isScale);
    const value = intervention ? (intervention.endsWith(" off") ? 0 : Number(intervention.split(" x").at(-1))) : 1;
    if (Number(scaleInput.value) !== value) scaleInput.value = value;
    scaleOutput.textContent = scaleText(value);
  }

  function update(shape) {
    ({ layers, heads, parts } = shape);
    paintTools();
    const partSettings = selectedPart() ? { part: selectedPart(), ...(state.get("target") ? { target: state.get("target") } : {}) } : {};
    const request = { ...context.input(), function: "edited_pattern", settings: { ...partSettings, ...selectedHead(), interventions: interventions.list() } };
    const key = JSON.stringify(request);
    if (key === shownRequest) return Promise.resolve();
    return card.fill(async () => {
      const result = await requests.run((signal) => fetchArrays(request, signal));
      shownRequest = key;
      const view = toGridView(result);
      return {
        title: `Edit head ${result.head} of ${result.layer_name}`,
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
      body.replaceChildren(el("p", { class: "quiet" }, `For ${result.rows.length} tokens the dots are too small to be dragged (at most ${MAX_TOKENS}). Type an intervention above instead: ${cellName()} ROW COLUMN WEIGHT.`));
      return null;
    }
    const name = `${cellName()} `;
    const edited = new Set(interventions.list().filter((each) => each.startsWith(name)).map((each) => each.slice(name.length).split(" ").slice(0, 2).join(",")));
    const data = { ...result, edited };
    // While a dot is dragged only the values change.
    if (renderer && body.querySelector(".weight-editor")) renderer.update(data);
    else renderer = weightEditor(body, data, { onChange: onWeightChange });
    return renderer;
  }

  function changeCaption(result) {
    let [largest, index] = [0, null];
    result.weights.values.forEach((value, position) => {
      const change = value - result.before.values[position];
      if (Math.abs(change) > Math.abs(largest)) [largest, index] = [change, position];
    });
    if (index === null) return "The weights are unchanged.";
    const [row, column] = [Math.floor(index / result.columns.length), index % result.columns.length];
    return `Largest change: the weight from ${result.rows[row]} to ${result.columns[column]} is ${result.weights.values[index].toFixed(2)}, before ${result.before.values[index].toFixed(2)}.`;
  }

  return { root: card.root, update, destroy: () => (requests.cancel(), renderer?.destroy()) };
}

function toGridView(result) {
  const columns = result.columns.length;
  const values = result.rows.map((_, row) => [...result.weights.values.subarray(row * columns, (row + 1) * columns)]);
  return { kind: "grid", title: `Attention of ${result.layer_name}, head ${result.head}, with interventions`, row_labels: result.rows, column_labels: result.columns, values };
}

const snippet = ({ model, text, settings, ...request }, { layer, head }) => `import clearstory
${promptImport(request)}from clearstory.lens.hooks.apply_interventions import pattern_with_interventions
from clearstory.lens.hooks.attention_sites import attention_site
from clearstory.lens.hooks.interventions import parse_intervention
from clearstory.lens.hooks.passage import encode_passage

opened = clearstory.open(${pythonLiteral(model)})
passage = encode_passage(opened.model, opened.tokenizer, ${pythonLiteral(text)}${settings.target ? `, target=${pythonLiteral(settings.target)}` : ""}${promptArgument(request)})
interventions = [parse_intervention(each) for each in ${pythonLiteral(settings.interventions)}]
site = attention_site(opened.model, ${layer}, ${pythonLiteral(settings.part ?? null)})
weights = pattern_with_interventions(opened.model, opened.tokenizer, passage, site, interventions)[${head}]
`;
