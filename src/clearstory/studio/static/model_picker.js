// Model picker: the model menu and the slider over a run's checkpoints. Play steps through the checkpoints; the next one is
// shown when the page has drawn the current one.

import { getJson } from "./api.js";
import { el, whenReady } from "./dom.js";
import { state } from "./url_state.js";
import { shortCount } from "./format.js";

/** @type {(id: string) => any} */
const byId = (id) => document.getElementById(id);
const [picker, stepBox, stepRange, stepWords, stepPlay] = [byId("model"), byId("step-box"), byId("step"), byId("step-words"), byId("step-play")];

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
  document.title = `Clearstory studio · ${response.root}`;
  updatePicker();
  return response;
}

const KINDS = { run: "Runs", folder: "Model folders", adapter: "Adapters", file: "Files" };

/** Updates the menu and the slider from the URL state. */
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
  const run = models.find((each) => each.name === selected);
  const steps = run?.steps ?? [];
  stepBox.hidden = run?.kind !== "run";
  stepPlay.hidden = stepRange.hidden = !steps.length;
  stepRange.max = steps.length;
  const step = state.number("step");
  stepRange.value = step === null ? steps.length : steps.indexOf(step);
  stepWords.textContent = !steps.length ? "this run kept no checkpoints" : step === null ? "best model" : `step ${step.toLocaleString("en-US")}`;
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

function modelOption(each) {
  const details = [each.family, each.parameters ? shortCount(each.parameters) : null].filter(Boolean).join(", ");
  return el("option", { value: each.name }, details ? `${each.name} (${details})` : each.name);
}

stepPlay.onclick = play;
stepRange.oninput = () => (pause(), selectCheckpoint(Number(stepRange.value)));
picker.onchange = () => state.set({ model: picker.value });
