// Logit difference: how much each component contributes to the difference of two tokens' logits (view logit-attribution).

import { el } from "../dom.js";
import { viewCard } from "../view_card.js";
import { cellText, percent } from "../format.js";

/**
 * `isAvailable`: whether the model supports logit-attribution. `offer(tokens)` sets the likeliest tokens, of which two are
 * selected: the first two by default.
 */
export function logitDifferenceCard(context, isAvailable) {
  let rows = [];
  let choiceKey = null; // the model and text of the current selection
  const [selectA, selectB] = ["a", "b"].map((name) => el("select", { name: `token-${name}`, onchange: () => saveChoice() }));
  const swap = el("button", { type: "button", onclick: () => (([selectA.value, selectB.value] = [selectB.value, selectA.value]), saveChoice()) }, "Swap");
  const sumLine = el("p", { class: "quiet", data: { sum: "" } });
  const selectedIds = () => [selectA.value, selectB.value].filter((each) => each !== "").map(Number);
  const attributionCard = isAvailable ? viewCard(context, "logit-attribution", { boundSettings: () => ({ ids: selectedIds(), words: [], target: null }), isWaiting: () => !rows.length, title: "Logit difference of two tokens" }) : null;
  const controls = el("div", { class: "token-pair", hidden: !isAvailable }, el("div", { class: "settings" }, el("label", {}, el("span", {}, "Token A"), selectA), el("label", {}, el("span", {}, "Token B"), selectB), swap), sumLine);
  attributionCard?.root.querySelector("header").after(controls);

  const key = () => JSON.stringify([context.input()]);

  function saveChoice() {
    context.state.set({ token_pair: selectedIds().join(",") }, { quiet: true });
    updateSum();
    return attributionCard.update();
  }

  function offer(tokens) {
    if (!isAvailable || tokens.length < 2) return;
    const previous = choiceKey === key() ? selectedIds() : choiceKey === null ? (context.state.get("token_pair") ?? "").split(",").filter(Boolean).map(Number) : [];
    choiceKey = key();
    rows = [...tokens].sort((a, b) => b.logit - a.logit);
    for (const select of [selectA, selectB]) select.replaceChildren(...rows.map((row) => el("option", { value: row.id }, `${row.piece}  ${percent(row.probability)}`)));
    const defaults = [rows[0].id, rows[1].id];
    const stillPresent = previous.length === 2 && previous.every((id) => rows.some((row) => row.id === id));
    [selectA.value, selectB.value] = stillPresent ? previous : defaults;
    updateSum();
    context.track(Promise.resolve(attributionCard.update()));
  }

  /** Shows the logit difference, to which the contributions must add up. */
  function updateSum() {
    const [a, b] = selectedIds().map((id) => rows.find((row) => row.id === id));
    const difference = a.logit - b.logit;
    const ratio = Math.exp(Math.abs(difference));
    sumLine.textContent = `Logit ${cellText(a.logit)} − ${cellText(b.logit)} = ${cellText(difference)}: at temperature 1 ‘${a.piece}’ is ${cellText(ratio)} times as ${difference >= 0 ? "likely" : "unlikely"} as ‘${b.piece}’. The contributions below add up to it.`;
    sumLine.dataset.sum = difference;
  }

  return { root: attributionCard?.root ?? el("span", { hidden: true }), offer, destroy: () => attributionCard?.destroy() };
}
