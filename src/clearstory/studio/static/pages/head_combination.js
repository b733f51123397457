// Head combination: the heads that are combined into one map, their weights, and the reduction. The URL state holds them as
// heads=5.3;5.4 x2 and reduce=max; heads=all means every head.

import { el } from "../dom.js";

/** headCombination(context) -> {root, chosen(), reduce(), headSet(), toggle(layer, head), paint()}. */
export function headCombination(context) {
  const { state } = context;
  const reduce = el("select", { name: "reduce", onchange: () => state.set({ reduce: reduce.value === "mean" ? null : reduce.value }, { quiet: true }) }, el("option", { value: "mean" }, "mean"), el("option", { value: "max" }, "maximum"));
  const chips = el("span", { class: "counts" });
  const allButton = el("button", { type: "button", class: "tool", onclick: () => setHeads(["all"]) }, "All heads");
  const clearButton = el("button", { type: "button", class: "tool", onclick: () => setHeads([]) }, "Single head");
  const root = el("div", { class: "settings combine" }, el("label", {}, el("span", {}, "Combine"), reduce), chips, allButton, clearButton);

  const headSpecs = () => (state.get("heads") ?? "").split(";").filter(Boolean);
  const setHeads = (next) => state.set({ heads: next.length ? next.join(";") : null }, { quiet: true });
  const headName = (each) => each.split(" ")[0];
  const weightOf = (each) => Number(each.split(" x")[1] ?? 1);

  /** The heads setting of the request: an empty list for all heads; null for a single head. */
  function selectedHeads() {
    const specs = headSpecs();
    if (!specs.length) return null;
    if (specs[0] === "all") return [];
    return state.get("reduce") === "max" ? specs.map(headName) : specs;
  }

  function toggle(layer, head) {
    const headId = `${layer}.${head}`;
    const current = state.number("layer") === null ? [] : [`${state.number("layer")}.${state.number("head") ?? 0}`];
    const specs = headSpecs().length && headSpecs()[0] !== "all" ? headSpecs() : current; // the single head becomes the first one
    setHeads(specs.some((each) => headName(each) === headId) ? specs.filter((each) => headName(each) !== headId) : [...specs, headId]);
  }

  function setWeight(headId, value) {
    if (!(value > 0)) return;
    setHeads(headSpecs().map((each) => (headName(each) === headId ? `${headId}${value === 1 ? "" : ` x${value}`}` : each)));
  }

  function paint() {
    const specs = headSpecs();
    const isAll = specs[0] === "all";
    reduce.value = state.get("reduce") ?? "mean";
    clearButton.hidden = !specs.length;
    allButton.hidden = isAll;
    root.dataset.heads = specs.join(";");
    if (chips.contains(document.activeElement)) return; // a weight is being typed
    chips.replaceChildren(
      ...(isAll ? ["all heads of all layers"] : !specs.length ? ["shift-click tiles above to add heads"] : specs.map((each) => headChip(each))),
    );
  }

  function headChip(each) {
    const headId = headName(each);
    const input = el("input", { type: "number", min: 0.1, step: "any", value: String(weightOf(each)), disabled: state.get("reduce") === "max", title: "weight", "aria-label": `weight of head ${headId}`, onchange: () => setWeight(headId, Number(input.value)) });
    return el("span", { class: "count", data: { head: headId } }, el("span", { class: "mono" }, headId), " × ", input, el("button", { type: "button", class: "tool", "aria-label": `remove head ${headId}`, onclick: () => setHeads(headSpecs().filter((other) => headName(other) !== headId)) }, "×"));
  }

  return { root, chosen: selectedHeads, toggle, paint, reduce: () => state.get("reduce") ?? "mean", headSet: () => new Set(headSpecs().map(headName)) };
}
