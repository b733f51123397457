// Model picker: the model with its facts, which opens the menu of models, and the film: one frame for each checkpoint of a run.
// Play steps through the checkpoints; the next one is shown when the page has drawn the current one.

import { getJson } from "./api.js";
import { el, whenReady } from "./dom.js";
import { state } from "./url_state.js";
import { shortCount } from "./format.js";

/** @type {(id: string) => any} */
const byId = (id) => document.getElementById(id);
const [picker, stepBox, stepRange, stepWords, stepPlay, frames] = [byId("model"), byId("step-box"), byId("step"), byId("step-words"), byId("step-play"), byId("frames")];

/** Minimum milliseconds that a checkpoint is shown. */
const FRAME_MS = 700;

let models = [];
let playing = false;

/** The models and runs of the folder, as of the last loadModels(). */
export const knownModels = () => models;

/** Loads the models and runs of the folder. Throws an ApiError if the server cannot list them. */
export async function loadModels() {
  const response = await getJson("models");
  models = response.models;
  updatePicker();
  return response;
}

const KINDS = { run: "Runs", folder: "Model folders", adapter: "Adapters", file: "Files" };

/** A model's name without its folders and the ending of its file. */
export const shortName = (name) => (name ?? "no model").replace(/\/$/, "").split("/").at(-1).replace(/\.gguf$/, "");

const facts = (each) => [each.family, each.parameters ? shortCount(each.parameters) : null].filter(Boolean).join(", ");

/** Shows facts of an opened model, where the folder's list has none. */
export function showFacts(trace) {
  const known = models.find((each) => each.name === state.get("model"));
  byId("model-facts").textContent = (known && facts(known)) || [trace?.family, trace?.layers ? `${trace.layers} layer${trace.layers === 1 ? "" : "s"}` : null].filter(Boolean).join(", ");
}

/** Updates the menu and the film from the URL state. */
export function updatePicker() {
  const selected = state.get("model");
  const openable = models.filter((each) => !each.problem);
  const groups = Object.entries(KINDS).flatMap(([kind, title]) => {
    const members = openable.filter((each) => each.kind === kind);
    return members.length ? [el("optgroup", { label: title }, ...members.map(modelOption))] : [];
  });
  if (selected && !openable.some((each) => each.name === selected))
    groups.unshift(el("option", { value: selected, selected: true }, `${selected} (not in the folder)`));
  if (!groups.length) groups.push(el("option", { value: "" }, "no model yet; see Home"));
  picker.replaceChildren(...groups);
  picker.disabled = !openable.length;
  if (selected) picker.value = selected;
  const model = models.find((each) => each.name === selected);
  byId("model-name").textContent = selected ? shortName(selected) : "no model yet";
  byId("model-facts").textContent = model ? facts(model) : "";
  picker.title = selected ?? "";
  const steps = model?.steps ?? [];
  const at = state.number("step") === null ? steps.length : steps.indexOf(state.number("step"));
  stepBox.hidden = !model;
  stepPlay.hidden = stepRange.parentElement.hidden = !steps.length;
  stepRange.max = steps.length;
  stepRange.value = at;
  frames.replaceChildren(...[...steps, null].map((step, index) => el("i", { class: index === at ? "now" : index < at ? "past" : "" })));
  stepWords.textContent = !steps.length ? (model?.kind === "run" ? "no checkpoints kept" : "published weights") : at === steps.length ? "best model" : `step ${state.number("step").toLocaleString("en-US")}`;
  const label = steps.length ? `${stepWords.textContent}; ${steps.length} checkpoints; the last position is the best model` : "";
  stepRange.setAttribute("aria-valuetext", label);
  stepRange.title = label;
}

/** Selects a checkpoint by its index; the position after the last one is the best model. */
function selectCheckpoint(index) {
  const steps = models.find((each) => each.name === state.get("model"))?.steps ?? [];
  state.set({ step: index >= steps.length ? null : steps[index] }, { quiet: true });
}

async function play() {
  if (playing) return pause();
  playing = true;
  stepPlay.textContent = "❚❚";
  stepPlay.setAttribute("aria-pressed", "true");
  const model = state.get("model");
  const last = Number(stepRange.max);
  let index = Number(stepRange.value) >= last ? 0 : Number(stepRange.value) + 1;
  for (; playing && index <= last && state.get("model") === model && byId("alarm").hidden; index++) {
    selectCheckpoint(index);
    await Promise.all([whenReady(), new Promise((resolve) => setTimeout(resolve, FRAME_MS))]);
  }
  return pause();
}

function pause() {
  playing = false;
  stepPlay.textContent = "▶";
  stepPlay.setAttribute("aria-pressed", "false");
}

const modelOption = (each) => el("option", { value: each.name }, facts(each) ? `${each.name} (${facts(each)})` : each.name);

stepPlay.onclick = play;
stepRange.oninput = () => (pause(), selectCheckpoint(Number(stepRange.value)));
picker.onchange = () => state.set({ model: picker.value });
