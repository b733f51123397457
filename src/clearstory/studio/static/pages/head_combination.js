// Combine: which heads are shown as one map, how often each counts, and how they are put together. It stands in the
// page's address as heads=5.3;5.4 x2 and reduce=max; heads=all is every head.

import { el } from "../dom.js";

/** mount(context, {update}) -> {root, chosen(), reduce(), has(layer, head), toggle(layer, head), paint()}. */
export function headCombination(context) {
  const { state } = context;
  const reduce = el("select", { name: "reduce", onchange: () => state.set({ reduce: reduce.value === "mean" ? null : reduce.value }, { quiet: true }) }, el("option", { value: "mean" }, "their mean"), el("option", { value: "max" }, "the largest of any"));
  const chips = el("span", { class: "counts" });
  const all = el("button", { type: "button", class: "tool", onclick: () => put(["all"]) }, "All heads");
  const none = el("button", { type: "button", class: "tool", onclick: () => put([]) }, "One head again");
  const root = el("div", { class: "settings combine" }, el("label", {}, el("span", {}, "Combine"), reduce), chips, all, none);

  const words = () => (state.get("heads") ?? "").split(";").filter(Boolean);
  const put = (next) => state.set({ heads: next.length ? next.join(";") : null }, { quiet: true });
  const name = (each) => each.split(" ")[0];
  const countOf = (each) => Number(each.split(" x")[1] ?? 1);

  /** The heads as the library is asked for them: none for all of them; null where one head is shown by itself. */
  function chosen() {
    const now = words();
    if (!now.length) return null;
    if (now[0] === "all") return [];
    return state.get("reduce") === "max" ? now.map(name) : now;
  }

  function toggle(layer, head) {
    const own = `${layer}.${head}`;
    const one = state.number("layer") === null ? [] : [`${state.number("layer")}.${state.number("head") ?? 0}`];
    const now = words().length && words()[0] !== "all" ? words() : one; // what was shown is the first of them
    put(now.some((each) => name(each) === own) ? now.filter((each) => name(each) !== own) : [...now, own]);
  }

  function count(own, value) {
    if (!(value > 0)) return;
    put(words().map((each) => (name(each) === own ? `${own}${value === 1 ? "" : ` x${value}`}` : each)));
  }

  function paint() {
    const now = words();
    const every = now[0] === "all";
    reduce.value = state.get("reduce") ?? "mean";
    none.hidden = !now.length;
    all.hidden = every;
    root.dataset.heads = now.join(";");
    if (chips.contains(document.activeElement)) return; // a count is being typed
    chips.replaceChildren(
      ...(every ? ["every head of every layer"] : !now.length ? ["shift-click heads above to add them"] : now.map((each) => chip(each))),
    );
  }

  function chip(each) {
    const own = name(each);
    const input = el("input", { type: "number", min: 0.1, step: "any", value: String(countOf(each)), disabled: state.get("reduce") === "max", title: "how often it counts", "aria-label": `how often head ${own} counts`, onchange: () => count(own, Number(input.value)) });
    return el("span", { class: "count", data: { head: own } }, el("span", { class: "mono" }, own), " × ", input, el("button", { type: "button", class: "tool", "aria-label": `leave head ${own} out`, onclick: () => put(words().filter((other) => name(other) !== own)) }, "×"));
  }

  return { root, chosen, toggle, paint, reduce: () => state.get("reduce") ?? "mean", also: () => new Set(words().map(name)) };
}
