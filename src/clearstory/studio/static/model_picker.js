// Models: which there are, which is chosen, and which checkpoint of its run. Play walks through the checkpoints, one after
// another: the next is shown when the page has painted this one.

import { getJson } from "./api.js";
import { el, whenReady } from "./dom.js";
import { state } from "./url_state.js";
import { shortCount } from "./format.js";

/** @type {(id: string) => any} */
const at = (id) => document.getElementById(id);
const [picker, stepBox, stepRange, stepWords, stepPlay] = [at("model"), at("step-box"), at("step"), at("step-words"), at("step-play")];

/** Milliseconds that a checkpoint stands before the next. */
const STANDS = 700;

let models = [];
let playing = false;

/** What was found when the folder was last looked through. */
export const knownModels = () => models;

/** Looks through the folder again. Throws a Problem where the server cannot. */
export async function loadModels() {
  const said = await getJson("models");
  models = said.models;
  document.title = `Clearstory studio · ${said.root}`;
  updatePicker();
  return said;
}

const KINDS = { run: "Runs", folder: "Model folders", adapter: "Adapters", file: "Files" };

/** Shows what is chosen. */
export function updatePicker() {
  const chosen = state.get("model");
  const usable = models.filter((each) => !each.note);
  const groups = Object.entries(KINDS).flatMap(([kind, title]) => {
    const inside = usable.filter((each) => each.kind === kind);
    return inside.length ? [el("optgroup", { label: title }, ...inside.map(option))] : [];
  });
  if (chosen && !usable.some((each) => each.name === chosen))
    groups.unshift(el("option", { value: chosen, selected: true }, `${chosen} (not in the folder)`));
  if (!groups.length) groups.push(el("option", { value: "" }, "no model yet: see Home"));
  picker.replaceChildren(...groups);
  picker.disabled = !usable.length;
  if (chosen) picker.value = chosen;
  const run = models.find((each) => each.name === chosen);
  const steps = run?.steps ?? [];
  stepBox.hidden = run?.kind !== "run";
  stepPlay.hidden = stepRange.hidden = !steps.length;
  stepRange.max = steps.length;
  const step = state.number("step");
  stepRange.value = step === null ? steps.length : steps.indexOf(step);
  stepWords.textContent = !steps.length ? "no checkpoints were kept, so there are no steps to walk through" : step === null ? "the best" : `after ${step.toLocaleString("en-US")}`;
  const words = steps.length ? `${stepWords.textContent}; ${steps.length} checkpoints, the last place is the best model` : "";
  stepRange.setAttribute("aria-valuetext", words);
  stepRange.title = words;
}

/** The checkpoint at a place of the slider; behind the last stands the best model. */
function choose(place) {
  const steps = models.find((each) => each.name === state.get("model"))?.steps ?? [];
  state.set({ step: place >= steps.length ? null : steps[place] }, { quiet: true });
}

async function play() {
  if (playing) return pause();
  playing = true;
  stepPlay.textContent = "❚❚";
  stepPlay.setAttribute("aria-pressed", "true");
  const model = state.get("model");
  const last = Number(stepRange.max);
  let place = Number(stepRange.value) >= last ? 0 : Number(stepRange.value) + 1;
  for (; playing && place <= last && state.get("model") === model && at("alarm").hidden; place++) {
    choose(place);
    await Promise.all([whenReady(), new Promise((resolve) => setTimeout(resolve, STANDS))]);
  }
  return pause();
}

function pause() {
  playing = false;
  stepPlay.textContent = "▶";
  stepPlay.setAttribute("aria-pressed", "false");
}

function option(each) {
  const facts = [each.family, each.parameters ? shortCount(each.parameters) : null].filter(Boolean).join(", ");
  return el("option", { value: each.name }, facts ? `${each.name} (${facts})` : each.name);
}

stepPlay.onclick = play;
stepRange.oninput = () => (pause(), choose(Number(stepRange.value)));
picker.onchange = () => state.set({ model: picker.value });
