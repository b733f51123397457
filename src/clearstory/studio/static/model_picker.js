// Models: which there are, which is chosen, and which checkpoint of its run. Play walks through the checkpoints, one after
// another: the next is shown when the page has painted this one.

import { getJson } from "./api.js";
import { el, whenReady } from "./dom.js";
import { state } from "./url_state.js";
import { shortCount } from "./format.js";

/** @type {(id: string) => any} */
const byId = (id) => document.getElementById(id);
const [picker, stepBox, stepRange, stepWords, stepPlay] = [byId("model"), byId("step-box"), byId("step"), byId("step-words"), byId("step-play")];

/** Milliseconds that a checkpoint stands before the next. */
const FRAME_MS = 700;

let models = [];
let playing = false;

/** What was found when the folder was last looked through. */
export const knownModels = () => models;

/** Looks through the folder again. Throws a Problem where the server cannot. */
export async function loadModels() {
  const response = await getJson("models");
  models = response.models;
  document.title = `Clearstory studio · ${response.root}`;
  updatePicker();
  return response;
}

const KINDS = { run: "Runs", folder: "Model folders", adapter: "Adapters", file: "Files" };

/** Shows what is chosen. */
export function updatePicker() {
  const selected = state.get("model");
  const openable = models.filter((each) => !each.problem);
  const groups = Object.entries(KINDS).flatMap(([kind, title]) => {
    const members = openable.filter((each) => each.kind === kind);
    return members.length ? [el("optgroup", { label: title }, ...members.map(modelOption))] : [];
  });
  if (selected && !openable.some((each) => each.name === selected))
    groups.unshift(el("option", { value: selected, selected: true }, `${selected} (not in the folder)`));
  if (!groups.length) groups.push(el("option", { value: "" }, "no model yet: see Home"));
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
  stepWords.textContent = !steps.length ? "no checkpoints were kept, so there are no steps to walk through" : step === null ? "the best" : `after ${step.toLocaleString("en-US")}`;
  const label = steps.length ? `${stepWords.textContent}; ${steps.length} checkpoints, the last place is the best model` : "";
  stepRange.setAttribute("aria-valuetext", label);
  stepRange.title = label;
}

/** The checkpoint at a place of the slider; behind the last stands the best model. */
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
