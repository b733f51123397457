// Sides: which model, which checkpoint and which sentence stand on the other side, B. The address holds them as
// model_b, step_b and text_b; what it does not name is as on A's side.

import { el } from "../dom.js";
import { shortCount, visibleWhitespace } from "../format.js";

/** {root, update(), model(), name(), text()}: what is chosen for B, and the form in which it is. */
export function makeComparisonSides(context) {
  const { state } = context;
  const usable = () => context.models().filter((each) => !each.note);
  const name = () => state.get("model_b") ?? state.get("model");
  const text = () => state.get("text_b") ?? context.text();

  /** B's path: a step of its own, the best where that is asked for or the model is another, or else A's. */
  function model() {
    const step = state.get("step_b");
    if (step !== null && step !== "best") return `${name()}/checkpoints/step-${step.padStart(6, "0")}`;
    return step === null && !state.get("model_b") ? context.model() : name();
  }

  const picker = el("select", { name: "model_b", "aria-label": "model of B", onchange: () => state.set({ model_b: picker.value === state.get("model") ? null : picker.value, step_b: null }) });
  const range = el("input", { type: "range", name: "step_b", min: 0, "aria-label": "step of B", oninput: () => state.set({ step_b: stepsOf()[Number(range.value)] ?? "best" }, { quiet: true }) });
  const rangeWords = el("output", {});
  const rangeBox = el("label", { class: "picker" }, range, rangeWords);
  const box = el("textarea", { name: "text_b", rows: 1, spellcheck: "false", "aria-label": "sentence of B", onchange: put, onkeydown: enter });
  const mine = el("span", { class: "side" });
  const swap = el("button", { type: "button", onclick: swapped, title: "what is A becomes B, and the other way round" }, "⇄ Swap");
  const same = el("button", { type: "button", onclick: () => state.set({ model_b: null, step_b: null, text_b: null }) }, "B as A");
  const root = el(
    "div",
    { class: "sides" },
    el("span", { class: "side-name" }, "A"), mine,
    el("span", { class: "side-name" }, "B"), el("span", { class: "side" }, picker, rangeBox, box, swap, same),
  );

  const stepsOf = () => usable().find((each) => each.name === name())?.steps ?? [];

  function put() {
    const value = box.value === "" || box.value === context.text() ? null : box.value;
    state.set({ text_b: value });
  }

  function enter(event) {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    put();
  }

  function swapped() {
    const [one, other] = [
      { model: state.get("model"), step: state.get("step"), text: context.text() },
      { model: name(), step: state.get("step_b") ?? (state.get("model_b") ? null : state.get("step")), text: text() },
    ];
    state.set({
      model: other.model, step: other.step === "best" ? null : other.step, text: other.text,
      model_b: one.model, step_b: one.step ?? "best", text_b: one.text === other.text ? null : one.text,
    });
  }

  function update() {
    const step = state.get("step");
    mine.replaceChildren(
      el("span", {}, `${state.get("model") ?? "no model"}${step === null ? "" : `, after ${Number(step).toLocaleString("en-US")} steps`}`),
      el("span", { class: "mono soft" }, `“${visibleWhitespace(context.text())}”`),
    );
    picker.replaceChildren(...usable().map((each) => el("option", { value: each.name }, [each.name, each.parameters ? shortCount(each.parameters) : null].filter(Boolean).join(", "))));
    if (name() && !usable().some((each) => each.name === name())) picker.append(el("option", { value: name() }, `${name()} (not in the folder)`));
    picker.value = name() ?? "";
    const steps = stepsOf();
    rangeBox.hidden = !steps.length;
    range.max = steps.length;
    const own = state.get("step_b") ?? (state.get("model_b") ? "best" : (step ?? "best"));
    range.value = own === "best" ? steps.length : steps.indexOf(Number(own));
    rangeWords.textContent = own === "best" ? "the best" : `after ${Number(own).toLocaleString("en-US")}`;
    if (document.activeElement !== box) box.value = text();
    same.disabled = !["model_b", "step_b", "text_b"].some((each) => state.get(each) !== null);
  }

  return { root, update, model, name, text };
}
