// Sides: which model, which checkpoint and which sentence stand on the other side, B. The address holds them as
// model_b, step_b and text_b; what it does not name is as on A's side.

import { el } from "../dom.js";
import { shortCount, visibleWhitespace } from "../format.js";

/** {root, update(), model(), name(), text()}: what is chosen for B, and the form in which it is. */
export function makeComparisonSides(context) {
  const { state } = context;
  const openable = () => context.models().filter((each) => !each.problem);
  const modelName = () => state.get("model_b") ?? state.get("model");
  const text = () => state.get("text_b") ?? context.text();

  /** B's path: a step of its own, the best where that is asked for or the model is another, or else A's. */
  function model() {
    const step = state.get("step_b");
    if (step !== null && step !== "best") return `${modelName()}/checkpoints/step-${step.padStart(6, "0")}`;
    return step === null && !state.get("model_b") ? context.model() : modelName();
  }

  const modelSelect = el("select", { name: "model_b", "aria-label": "model of B", onchange: () => state.set({ model_b: modelSelect.value === state.get("model") ? null : modelSelect.value, step_b: null }) });
  const stepSlider = el("input", { type: "range", name: "step_b", min: 0, "aria-label": "step of B", oninput: () => state.set({ step_b: stepsOfB()[Number(stepSlider.value)] ?? "best" }, { quiet: true }) });
  const stepLabel = el("output", {});
  const stepBox = el("label", { class: "picker" }, stepSlider, stepLabel);
  const textInput = el("textarea", { name: "text_b", rows: 1, spellcheck: "false", "aria-label": "sentence of B", onchange: setText, onkeydown: onKeyDown });
  const sideA = el("span", { class: "side" });
  const swapButton = el("button", { type: "button", onclick: swapSides, title: "what is A becomes B, and the other way round" }, "⇄ Swap");
  const resetButton = el("button", { type: "button", onclick: () => state.set({ model_b: null, step_b: null, text_b: null }) }, "B as A");
  const root = el(
    "div",
    { class: "sides" },
    el("span", { class: "side-name" }, "A"), sideA,
    el("span", { class: "side-name" }, "B"), el("span", { class: "side" }, modelSelect, stepBox, textInput, swapButton, resetButton),
  );

  const stepsOfB = () => openable().find((each) => each.name === modelName())?.steps ?? [];

  function setText() {
    const value = textInput.value === "" || textInput.value === context.text() ? null : textInput.value;
    state.set({ text_b: value });
  }

  function onKeyDown(event) {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    setText();
  }

  function swapSides() {
    const [sideAState, sideBState] = [
      { model: state.get("model"), step: state.get("step"), text: context.text() },
      { model: modelName(), step: state.get("step_b") ?? (state.get("model_b") ? null : state.get("step")), text: text() },
    ];
    state.set({
      model: sideBState.model, step: sideBState.step === "best" ? null : sideBState.step, text: sideBState.text,
      model_b: sideAState.model, step_b: sideAState.step ?? "best", text_b: sideAState.text === sideBState.text ? null : sideAState.text,
    });
  }

  function update() {
    const step = state.get("step");
    sideA.replaceChildren(
      el("span", {}, `${state.get("model") ?? "no model"}${step === null ? "" : `, after ${Number(step).toLocaleString("en-US")} steps`}`),
      el("span", { class: "mono soft" }, `“${visibleWhitespace(context.text())}”`),
    );
    modelSelect.replaceChildren(...openable().map((each) => el("option", { value: each.name }, [each.name, each.parameters ? shortCount(each.parameters) : null].filter(Boolean).join(", "))));
    if (modelName() && !openable().some((each) => each.name === modelName())) modelSelect.append(el("option", { value: modelName() }, `${modelName()} (not in the folder)`));
    modelSelect.value = modelName() ?? "";
    const steps = stepsOfB();
    stepBox.hidden = !steps.length;
    stepSlider.max = steps.length;
    const stepB = state.get("step_b") ?? (state.get("model_b") ? "best" : (step ?? "best"));
    stepSlider.value = stepB === "best" ? steps.length : steps.indexOf(Number(stepB));
    stepLabel.textContent = stepB === "best" ? "the best" : `after ${Number(stepB).toLocaleString("en-US")}`;
    if (document.activeElement !== textInput) textInput.value = text();
    resetButton.disabled = !["model_b", "step_b", "text_b"].some((each) => state.get(each) !== null);
  }

  return { root, update, model, name: modelName, text };
}
