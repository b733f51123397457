// Home: the models and runs of the folder, and a first model where there is none.

import { getJson, postJson, ApiError } from "../api.js";
import { el } from "../dom.js";
import { timeAgo, cellText, shortCount } from "../format.js";

/** What the tiny model is made by: a minute of this machine, on a text that is at hand. */
export const TINY_MODEL = { name: "tiny", settings: { text: ["corpus:kjv"], model: "clear", minutes: 1, "training.sample_steps": 50 } };

const KIND_LABELS = { run: "run", folder: "model folder", adapter: "adapter", file: "file" };

export function mount(root, context) {
  const problemBox = el("p", { class: "problem", role: "alert", hidden: true });
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

  /** A model by its path: one that lies too deep for the list, or an explanation of how to link one. */
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
      el("p", { class: "lead" }, "A sentence goes in, the next word comes out; every number between the two is here to be seen."),
      el(
        "div",
        { class: "buttons" },
        tinyModel
          ? el("button", { type: "button", class: "strong", data: { act: "tiny" }, onclick: () => context.go("tokens", { model: tinyModel.name }) }, "Try the built-in tiny model")
          : trainingTiny
            ? el("button", { type: "button", class: "strong", data: { act: "tiny" }, onclick: () => context.go("train", { run: trainingTiny }) }, "Watch the tiny model learn")
            : el("button", { type: "button", class: "strong", data: { act: "tiny" }, onclick: () => context.track(trainTiny()) }, "Train the built-in tiny model (a minute)"),
        el("button", { type: "button", onclick: () => context.go("train") }, "Train a new one"),
        el("button", { type: "button", data: { act: "tour" }, onclick: () => context.go("home", { tour: 0 }) }, "Tour"),
      ),
      el("p", { class: "quiet" }, `Models are looked for in ‘${response.root}’, the last used first. One that lies elsewhere: link or put its folder or .gguf file there, or begin with clearstory studio FOLDER.`),
    );
    list.replaceChildren(...response.models.map((each) => modelTile(each, response.training.includes(each.name))));
    searchNote.textContent = response.models.length
      ? response.complete ? "" : "The folder is large, and not all of it was looked through."
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
      ["kind", training ? "run, being trained" : KIND_LABELS[each.kind]],
      ["family", each.family],
      ["parameters", each.parameters === null ? null : shortCount(each.parameters)],
      ["bits per byte", each.bits_per_byte === null ? null : cellText(each.bits_per_byte)],
      ["last loss", each.loss === null ? null : `${cellText(each.loss)} nats a token`],
      ["trained on", each.trained_on.join(", ") || null],
      ["checkpoints", each.steps.length || null],
      ["last used", timeAgo(each.last_used)],
      ["written", each.modified === each.last_used ? null : timeAgo(each.modified)],
    ].filter(([, value]) => value !== null);
    return el(
      "article",
      { class: "tile", data: { model: each.name } },
      el("h2", {}, each.name === "." ? "this folder" : each.name),
      el("dl", {}, ...details.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
      each.problem ? el("p", { class: "problem" }, `It ${each.problem}.`) : null,
      el(
        "div",
        { class: "buttons" },
        each.problem ? null : el("button", { type: "button", onclick: () => context.go("tokens", { model: each.name }) }, "Look into it"),
        each.problem ? null : el("button", { type: "button", onclick: () => context.go("generate", { model: each.name }) }, "Let it write"),
        each.kind === "run" ? el("button", { type: "button", onclick: () => context.go("train", { run: each.name }) }, "How it learnt") : null,
      ),
    );
  }

  return { update, back: update };
}
