// Comparison sides: the model, checkpoint and sentence of side B. The URL state holds them as model_b, step_b and text_b;
// what is missing is taken from side A.

import { el } from "../dom.js";
import { shortCount, visibleWhitespace } from "../format.js";

/** -> {root, update(), model(), name(), text()}: the form for side B and its values. */
export function makeComparisonSides(context) {
  const { state } = context;
  const openable = () => context.models().filter((each) => !each.problem);
  const modelName = () => state.get("model_b") ?? state.get("model");
  const text = () => state.get("text_b") ?? context.text();

  /** The path of B's model: its own checkpoint, its best model, or the same as A. */
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
  const swapButton = el("button", { type: "button", onclick: swapSides, title: "swap A and B" }, "⇄ Swap");
  const resetButton = el("button", { type: "button", onclick: () => state.set({ model_b: null, step_b: null, text_b: null }) }, "Reset B to A");
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
      el("span", {}, `${state.get("model") ?? "no model"}${step === null ? "" : `, step ${Number(step).toLocaleString("en-US")}`}`),
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
    stepLabel.textContent = stepB === "best" ? "best model" : `step ${Number(stepB).toLocaleString("en-US")}`;
    if (document.activeElement !== textInput) textInput.value = text();
    resetButton.disabled = !["model_b", "step_b", "text_b"].some((each) => state.get(each) !== null);
  }

  return { root, update, model, name: modelName, text };
}
