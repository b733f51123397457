// Home page: the models and runs of the folder, and the training of a first model.

import { getJson, postJson, ApiError } from "../api.js";
import { el } from "../dom.js";
import { timeAgo, cellText, shortCount } from "../format.js";

/** The training request of the tiny model: one minute on a built-in text. */
export const TINY_MODEL = { name: "tiny", settings: { text: ["corpus:kjv"], model: "clear", minutes: 1, "training.sample_steps": 50 } };

const KIND_LABELS = { run: "run", folder: "model folder", adapter: "adapter", file: "file" };

export function mount(root, context) {
  const problemBox = el("p", { class: "hint", role: "status", hidden: true });
  const intro = el("div", { class: "first" });
  const list = el("div", { class: "tiles" });
  const searchNote = el("p", { class: "quiet" });
  const pathInput = el("input", { type: "text", name: "path", size: 28, placeholder: "folder/of/a/model, or file.gguf", autocomplete: "off" });
  const openForm = el(
    "form",
    { class: "settings", onsubmit: (event) => (event.preventDefault(), context.track(open(pathInput.value.trim()))) },
    el("label", {}, el("span", {}, "Open a folder or file"), pathInput),
    el("button", { type: "submit" }, "Open"),
  );
  root.replaceChildren(intro, openForm, problemBox, list, searchNote);

  /** Opens a model by its path: also one nested too deep for the list; otherwise shows how to link it. */
  async function open(name) {
    if (!name) return;
    try {
      const { model } = await getJson("model", { name });
      if (model.problem) fail(`‘${model.name}’ ${model.problem}.`);
      else context.go("tokens", { model: model.name });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      fail(`${error.message}.`);
    }
  }

  async function update() {
    let response;
    try {
      response = await context.track(getJson("models"));
    } catch (error) {
      if (error instanceof ApiError) fail(error.message);
      return;
    }
    problemBox.hidden = true;
    const tinyModel = response.models.find((each) => !each.problem && /(^|\/)(quickstart|tiny)$/.test(each.name));
    const trainingTiny = response.training.find((name) => name === `runs/${TINY_MODEL.name}`);
    intro.replaceChildren(
      el("p", { class: "lead" }, "Inspect, run and train language models: every value between the input text and the next-token prediction can be shown."),
      el(
        "div",
        { class: "buttons" },
        tinyModel
          ? el("button", { type: "button", class: "strong", data: { act: "tiny" }, onclick: () => context.go("tokens", { model: tinyModel.name }) }, "Try the built-in tiny model")
          : trainingTiny
            ? el("button", { type: "button", class: "strong", data: { act: "tiny" }, onclick: () => context.go("train", { run: trainingTiny }) }, "Watch the tiny model train")
            : el("button", { type: "button", class: "strong", data: { act: "tiny" }, onclick: () => context.track(trainTiny()) }, "Train the built-in tiny model (a minute)"),
        el("button", { type: "button", onclick: () => context.go("train") }, "Train a new model"),
        el("button", { type: "button", data: { act: "tour" }, onclick: () => context.go("home", { tour: 0 }) }, "Tour"),
      ),
      el("p", { class: "quiet" }, `Models of the folder ‘${response.root}’, last used first. To use a model from elsewhere, copy or link its folder or .gguf file there, or start clearstory studio FOLDER.`),
    );
    list.replaceChildren(...response.models.map((each) => modelTile(each, response.training.includes(each.name))));
    searchNote.textContent = response.models.length
      ? response.complete ? "" : "The folder is large and was not searched completely."
      : "There is no model in this folder yet.";
    root.dataset.models = response.models.length;
  }

  async function trainTiny() {
    try {
      const run = await postJson("runs", TINY_MODEL);
      context.go("train", { run: run.name });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      fail(error.message);
    }
  }

  function fail(sentence) {
    problemBox.textContent = sentence;
    problemBox.hidden = false;
  }

  function modelTile(each, training) {
    const details = [
      ["kind", training ? "run, training" : KIND_LABELS[each.kind]],
      ["family", each.family],
      ["parameters", each.parameters === null ? null : shortCount(each.parameters)],
      ["bits per byte", each.bits_per_byte === null ? null : cellText(each.bits_per_byte)],
      ["training loss", each.loss === null ? null : `${cellText(each.loss)} nats per token`],
      ["trained on", each.trained_on.join(", ") || null],
      ["checkpoints", each.steps.length || null],
      ["last used", timeAgo(each.last_used)],
      ["modified", each.modified === each.last_used ? null : timeAgo(each.modified)],
    ].filter(([, value]) => value !== null);
    return el(
      "article",
      { class: "tile", data: { model: each.name } },
      el("h2", {}, each.name === "." ? "this folder" : each.name),
      el("dl", {}, ...details.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
      each.problem ? el("p", { class: "hint" }, `This model ${each.problem}.`) : null,
      el(
        "div",
        { class: "buttons" },
        each.problem ? null : el("button", { type: "button", onclick: () => context.go("tokens", { model: each.name }) }, "Inspect"),
        each.problem ? null : el("button", { type: "button", onclick: () => context.go("generate", { model: each.name }) }, "Generate"),
        each.kind === "run" ? el("button", { type: "button", onclick: () => context.go("train", { run: each.name }) }, "Training") : null,
      ),
    );
  }

  return { update, back: update };
}
