// By hand: one head on the experiment page: how much of what it adds is let through, and its weights, which can be pulled.

import { latestRequest, fetchArrays } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as dial } from "../render/weight_editor.js";
import { el, slider } from "../dom.js";
import { viewTables, pythonLiteral } from "../format.js";

/** More tokens than this have dots too small to be pulled. */
const MOST = 48;

/** What an edit of a head is called, by whose attention it is. */
const KINDS = { "": ["head", "cell"], encoder: ["encoder head", "encoder cell"], decoder: ["head", "cell"], cross: ["cross-head", "cross-cell"] };

/** handCard(context, edits) -> {root, update(shape), end()}; `edits` is the page's list: all(), put(same, words). */
export function headEditorCard(context, edits) {
  const { state } = context;
  const asking = latestRequest();
  let shown = null; // what the drawing is of
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
  const times = (value) => (value === 0 ? "nothing" : value === 1 ? "as it is" : `${value} times`);
  const scale = slider({ label: "What it adds", name: "scale", min: 0, max: 2, step: 0.05, value: 1, words: times, oninput: (value) => edits.put(isScale, value === 1 ? null : `${headName()} ${value === 0 ? "off" : `x${value}`}`) });
  const [scaleInput, scaleSaid] = [scale.querySelector("input"), scale.querySelector("output")];
  const card = makeCard({ name: "hand", title: "One head by hand", tools: el("div", { class: "settings" }, partBox, layerBox, headBox, scale) });

  const part = () => (parts.length > 1 ? (state.get("part") ?? parts[1]) : null);
  const at = () => ({ layer: Math.min(layers - 1, state.number("layer") ?? 0), head: Math.min(heads - 1, state.number("head") ?? 0) });
  const place = () => `${at().layer}.${at().head}`;
  const headName = () => `${KINDS[part() ?? ""][0]} ${place()}`;
  const cellName = () => `${KINDS[part() ?? ""][1]} ${place()}`;
  const isScale = (each) => each.startsWith(`${headName()} `) && !each.endsWith(" mean");

  function turned({ row, column, weight }) {
    const name = `${cellName()} ${row} ${column} `;
    edits.put((each) => each.startsWith(name), weight === null ? null : name + weight);
  }

  function paintTools() {
    layerInput.max = layers - 1;
    headInput.max = heads - 1;
    for (const [input, value] of [[layerInput, at().layer], [headInput, at().head]]) if (document.activeElement !== input) input.value = value;
    partBox.hidden = parts.length < 2;
    partInput.replaceChildren(...parts.map((each) => el("option", { value: each, selected: each === part() }, each)));
    const own = edits.all().find(isScale);
    const value = own ? (own.endsWith(" off") ? 0 : Number(own.split(" x").at(-1))) : 1;
    if (Number(scaleInput.value) !== value) scaleInput.value = value;
    scaleSaid.textContent = times(value);
  }

  function update(shape) {
    ({ layers, heads, parts } = shape);
    paintTools();
    const own = part() ? { part: part(), ...(state.get("target") ? { target: state.get("target") } : {}) } : {};
    const wanted = { model: context.model(), text: context.text(), what: "changed", settings: { ...own, ...at(), edit: edits.all() } };
    const key = JSON.stringify(wanted);
    if (key === shown) return Promise.resolve();
    return card.fill(async () => {
      const made = await asking.ask((signal) => fetchArrays(wanted, signal));
      shown = key;
      const view = gridOf(made);
      return {
        title: `Head ${made.head} of ${made.words}, by hand`,
        caption: told(made),
        python: snippet(wanted, made),
        tables: () => viewTables(view),
        files: { csv: async () => tablesCsv(viewTables(view)) },
        mount: (body) => paint(body, made),
      };
    });
  }

  function paint(body, made) {
    Object.assign(body.dataset, { layer: made.layer, head: made.head });
    if (Math.max(made.rows.length, made.columns.length) > MOST) {
      renderer?.end();
      renderer = null;
      body.replaceChildren(el("p", { class: "quiet" }, `Of ${made.rows.length} tokens the dots are too small to be pulled; up to ${MOST} can be. An edit in words, above, does the same: ${cellName()} ROW COLUMN WEIGHT.`));
      return null;
    }
    const name = `${cellName()} `;
    const edited = new Set(edits.all().filter((each) => each.startsWith(name)).map((each) => each.slice(name.length).split(" ").slice(0, 2).join(",")));
    const data = { ...made, edited };
    // The drawing stays while a dot is in hand: only its numbers change.
    if (renderer && body.querySelector(".dial")) renderer.update(data);
    else renderer = dial(body, data, { onTurn: turned });
    return renderer;
  }

  function told(made) {
    let [most, where] = [0, null];
    made.weights.values.forEach((value, place) => {
      const by = value - made.before.values[place];
      if (Math.abs(by) > Math.abs(most)) [most, where] = [by, place];
    });
    if (where === null) return "Its weights are as the model makes them.";
    const [row, column] = [Math.floor(where / made.columns.length), where % made.columns.length];
    return `Most changed: ${made.rows[row]} takes ${made.weights.values[where].toFixed(2)} from ${made.columns[column]} where it took ${made.before.values[where].toFixed(2)}.`;
  }

  return { root: card.root, update, end: () => (asking.drop(), renderer?.end()) };
}

function gridOf(made) {
  const columns = made.columns.length;
  const values = made.rows.map((_, row) => [...made.weights.values.subarray(row * columns, (row + 1) * columns)]);
  return { kind: "grid", title: `Attention of ${made.words}, head ${made.head}, with the edits`, row_labels: made.rows, column_labels: made.columns, values };
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
