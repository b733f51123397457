// Models: which there are, which is chosen, and which checkpoint of its run.

import { get } from "./ask.js";
import { el } from "./kit.js";
import { state } from "./state.js";
import { count } from "./words.js";

const at = (id) => document.getElementById(id);
const [picker, stepBox, stepRange, stepWords] = [at("model"), at("step-box"), at("step"), at("step-words")];

let models = [];

/** What was found when the folder was last looked through. */
export const known = () => models;

/** Looks through the folder again. Throws a Problem where the server cannot. */
export async function loadModels() {
  const said = await get("models");
  models = said.models;
  document.title = `Clearstory studio · ${said.root}`;
  fillPicker();
  return said;
}

const KINDS = { run: "Runs", folder: "Model folders", adapter: "Adapters", file: "Files" };

/** Shows what is chosen. */
export function fillPicker() {
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
  const steps = models.find((each) => each.name === chosen)?.steps ?? [];
  stepBox.hidden = !steps.length;
  stepRange.max = steps.length;
  const step = state.number("step");
  stepRange.value = step === null ? steps.length : steps.indexOf(step);
  stepWords.textContent = step === null ? "the best" : `after ${step.toLocaleString("en-US")}`;
  stepRange.oninput = () => {
    const place = Number(stepRange.value);
    state.set({ step: place === steps.length ? null : steps[place] }, { quiet: true });
  };
}

function option(each) {
  const facts = [each.family, each.parameters ? count(each.parameters) : null].filter(Boolean).join(", ");
  return el("option", { value: each.name }, facts ? `${each.name} (${facts})` : each.name);
}

picker.onchange = () => state.set({ model: picker.value });
