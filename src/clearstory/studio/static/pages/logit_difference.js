// Why: what each part of the model adds to the difference of two tokens' logits; the library's contributions of both.

import { el } from "../dom.js";
import { viewCard } from "../view_card.js";
import { cellText, percent } from "../format.js";

/**
 * `able`: whether the model can show contributions. `offer(rows)` hands in the likeliest tokens, of which two are chosen:
 * the first two, until the reader says otherwise.
 */
export function logitDifferenceCard(context, able) {
  let rows = [];
  let of = null; // the model and text that the choice was made for
  const [one, other] = ["a", "b"].map((name) => el("select", { name: `why-${name}`, onchange: () => keep() }));
  const swap = el("button", { type: "button", onclick: () => (([one.value, other.value] = [other.value, one.value]), keep()) }, "Swap");
  const sum = el("p", { class: "quiet", data: { sum: "" } });
  const chosen = () => [one.value, other.value].filter((each) => each !== "").map(Number);
  const view = able ? viewCard(context, "logit-attribution", { bound: () => ({ ids: chosen(), words: [], target: null }), wait: () => !rows.length, title: "Why the one and not the other" }) : null;
  const box = el("div", { class: "why", hidden: !able }, el("div", { class: "settings" }, el("label", {}, el("span", {}, "Why"), one), el("label", {}, el("span", {}, "and not"), other), swap), sum);
  view?.root.querySelector("header").after(box);

  const key = () => JSON.stringify([context.model(), context.text()]);

  function keep() {
    context.state.set({ why: chosen().join(",") }, { quiet: true });
    tell();
    return view.update();
  }

  function offer(now) {
    if (!able || now.length < 2) return;
    const before = of === key() ? chosen() : of === null ? (context.state.get("why") ?? "").split(",").filter(Boolean).map(Number) : [];
    of = key();
    rows = [...now].sort((a, b) => b.logit - a.logit);
    for (const select of [one, other]) select.replaceChildren(...rows.map((row) => el("option", { value: row.id }, `${row.piece}  ${percent(row.probability)}`)));
    const usual = [rows[0].id, rows[1].id];
    const known = before.length === 2 && before.every((id) => rows.some((row) => row.id === id));
    [one.value, other.value] = known ? before : usual;
    tell();
    context.track(Promise.resolve(view.update()));
  }

  /** The difference, from the logits themselves: what the parts must add up to. */
  function tell() {
    const [a, b] = chosen().map((id) => rows.find((row) => row.id === id));
    const apart = a.logit - b.logit;
    const times = Math.exp(Math.abs(apart));
    sum.textContent = `Logit ${cellText(a.logit)} − ${cellText(b.logit)} = ${cellText(apart)}: at temperature 1 ‘${a.piece}’ is ${cellText(times)} times as ${apart >= 0 ? "likely" : "unlikely"} as ‘${b.piece}’. The parts below add up to it.`;
    sum.dataset.sum = apart;
  }

  return { root: view?.root ?? el("span", { hidden: true }), offer, end: () => view?.end() };
}
