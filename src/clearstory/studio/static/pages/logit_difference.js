// Why: what each part of the model adds to the difference of two tokens' logits; the library's contributions of both.

import { el } from "../dom.js";
import { viewCard } from "../view_card.js";
import { cellText, percent } from "../format.js";

/**
 * `able`: whether the model can show contributions. `offer(rows)` hands in the likeliest tokens, of which two are chosen:
 * the first two, until the reader says otherwise.
 */
export function logitDifferenceCard(context, isAvailable) {
  let rows = [];
  let choiceKey = null; // the model and text that the choice was made for
  const [selectA, selectB] = ["a", "b"].map((name) => el("select", { name: `why-${name}`, onchange: () => saveChoice() }));
  const swap = el("button", { type: "button", onclick: () => (([selectA.value, selectB.value] = [selectB.value, selectA.value]), saveChoice()) }, "Swap");
  const sumLine = el("p", { class: "quiet", data: { sum: "" } });
  const selectedIds = () => [selectA.value, selectB.value].filter((each) => each !== "").map(Number);
  const attributionCard = isAvailable ? viewCard(context, "logit-attribution", { boundSettings: () => ({ ids: selectedIds(), words: [], target: null }), isWaiting: () => !rows.length, title: "Why the one and not the other" }) : null;
  const controls = el("div", { class: "why", hidden: !isAvailable }, el("div", { class: "settings" }, el("label", {}, el("span", {}, "Why"), selectA), el("label", {}, el("span", {}, "and not"), selectB), swap), sumLine);
  attributionCard?.root.querySelector("header").after(controls);

  const key = () => JSON.stringify([context.model(), context.text()]);

  function saveChoice() {
    context.state.set({ why: selectedIds().join(",") }, { quiet: true });
    updateSum();
    return attributionCard.update();
  }

  function offer(tokens) {
    if (!isAvailable || tokens.length < 2) return;
    const previous = choiceKey === key() ? selectedIds() : choiceKey === null ? (context.state.get("why") ?? "").split(",").filter(Boolean).map(Number) : [];
    choiceKey = key();
    rows = [...tokens].sort((a, b) => b.logit - a.logit);
    for (const select of [selectA, selectB]) select.replaceChildren(...rows.map((row) => el("option", { value: row.id }, `${row.piece}  ${percent(row.probability)}`)));
    const defaults = [rows[0].id, rows[1].id];
    const stillPresent = previous.length === 2 && previous.every((id) => rows.some((row) => row.id === id));
    [selectA.value, selectB.value] = stillPresent ? previous : defaults;
    updateSum();
    context.track(Promise.resolve(attributionCard.update()));
  }

  /** The difference, from the logits themselves: what the parts must add up to. */
  function updateSum() {
    const [a, b] = selectedIds().map((id) => rows.find((row) => row.id === id));
    const difference = a.logit - b.logit;
    const ratio = Math.exp(Math.abs(difference));
    sumLine.textContent = `Logit ${cellText(a.logit)} − ${cellText(b.logit)} = ${cellText(difference)}: at temperature 1 ‘${a.piece}’ is ${cellText(ratio)} times as ${difference >= 0 ? "likely" : "unlikely"} as ‘${b.piece}’. The parts below add up to it.`;
    sumLine.dataset.sum = difference;
  }

  return { root: attributionCard?.root ?? el("span", { hidden: true }), offer, destroy: () => attributionCard?.destroy() };
}
