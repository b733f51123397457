// Home: the models and runs of the folder, and a first model where there is none.

import { get, post, Problem } from "../ask.js";
import { el } from "../kit.js";
import { ago, cellText, count } from "../words.js";

/** What the tiny model is made by: a minute of this machine, on a text that is at hand. */
export const TINY = { name: "tiny", settings: { text: ["corpus:kjv"], model: "clear", minutes: 1, "training.sample_steps": 50 } };

const KINDS = { run: "run", folder: "model folder", adapter: "adapter", file: "file" };

export function mount(root, context) {
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const first = el("div", { class: "first" });
  const list = el("div", { class: "tiles" });
  const more = el("p", { class: "quiet" });
  root.replaceChildren(first, problem, list, more);

  async function update() {
    let said;
    try {
      said = await context.track(get("models"));
    } catch (error) {
      if (error instanceof Problem) fail(error.message);
      return;
    }
    problem.hidden = true;
    const tiny = said.models.find((each) => !each.note && /(^|\/)(quickstart|tiny)$/.test(each.name));
    const making = said.training.find((name) => name === `runs/${TINY.name}`);
    first.replaceChildren(
      el("p", { class: "lead" }, "A sentence goes in, the next word comes out; every number between the two is here to be seen."),
      el(
        "div",
        { class: "buttons" },
        tiny
          ? el("button", { type: "button", class: "strong", data: { act: "tiny" }, onclick: () => context.go("tokens", { model: tiny.name }) }, "Try the built-in tiny model")
          : making
            ? el("button", { type: "button", class: "strong", data: { act: "tiny" }, onclick: () => context.go("train", { run: making }) }, "Watch the tiny model learn")
            : el("button", { type: "button", class: "strong", data: { act: "tiny" }, onclick: begin }, "Train the built-in tiny model (a minute)"),
        el("button", { type: "button", onclick: () => context.go("train") }, "Train a new one"),
      ),
      el("p", { class: "quiet" }, `Models are looked for in ‘${said.root}’. One that lies elsewhere: put its folder or .gguf file there, or begin with clearstory studio FOLDER.`),
    );
    list.replaceChildren(...said.models.map((each) => tile(each, said.training.includes(each.name))));
    more.textContent = said.models.length
      ? said.whole ? "" : "The folder is large, and not all of it was looked through."
      : "There is no model in this folder yet.";
    root.dataset.models = said.models.length;
  }

  async function begin() {
    try {
      const run = await context.track(post("runs", TINY));
      context.go("train", { run: run.name });
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      fail(error.message);
    }
  }

  function fail(sentence) {
    problem.textContent = sentence;
    problem.hidden = false;
  }

  function tile(each, training) {
    const facts = [
      ["kind", training ? "run, being trained" : KINDS[each.kind]],
      ["family", each.family],
      ["parameters", each.parameters === null ? null : count(each.parameters)],
      ["bits per byte", each.bits_per_byte === null ? null : cellText(each.bits_per_byte)],
      ["trained on", each.trained_on.join(", ") || null],
      ["checkpoints", each.steps.length || null],
      ["written", ago(each.used)],
    ].filter(([, value]) => value !== null);
    return el(
      "article",
      { class: "tile", data: { model: each.name } },
      el("h2", {}, each.name === "." ? "this folder" : each.name),
      el("dl", {}, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
      each.note ? el("p", { class: "problem" }, `It ${each.note}.`) : null,
      el(
        "div",
        { class: "buttons" },
        each.note ? null : el("button", { type: "button", onclick: () => context.go("tokens", { model: each.name }) }, "Look into it"),
        each.note ? null : el("button", { type: "button", onclick: () => context.go("generate", { model: each.name }) }, "Let it write"),
        each.kind === "run" ? el("button", { type: "button", onclick: () => context.go("train", { run: each.name }) }, "How it learnt") : null,
      ),
    );
  }

  return { update, back: update };
}
