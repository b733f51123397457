// Experiment: parts of the model taken away or changed by hand, and what it says then beside what it said. What was
// changed is a list that can be undone, and stands in the page's address.

import { line, numbers, Problem, Stale } from "../ask.js";
import { makeCard } from "../card.js";
import { el, svg } from "../kit.js";
import { viewCard } from "../viewcard.js";

const HOW = [
  ["head 5.3 off", "what head 3 of layer 5 adds is left out; mean: the same at every token; x0.5: half of it"],
  ["attention 5 off", "the same of a whole step; also feed-forward, layer, cross-head, cross-attention"],
  ["cell 5.3 7 2 0.9", "in head 5.3, token 7 takes 0.9 from token 2; the rest of its row keeps its proportions"],
  ['steer 6 4 all "joy" "grief"', "after layer 6, four times what parts the two texts is added to all tokens (or: last)"],
  ['patch 6 7 "another text"', "after layer 6, token 7 is what it is in another text of as many tokens"],
];

export function mount(root, context, { views }) {
  const asking = line();
  let shape = null; // [layers, heads] of the model that is shown
  let of = null; // that model
  /** The edits, in the order in which they are made. */
  const edits = () => (context.state.get("edits") ?? "").split("\n").filter(Boolean);
  const list = el("ol", { class: "edits" });
  const input = el("input", { type: "text", name: "new-edit", size: 32, placeholder: HOW[0][0], "aria-label": "an edit" });
  const form = el("form", { class: "settings", onsubmit: (event) => (event.preventDefault(), add(input.value.trim()) && (input.value = "")) }, el("label", {}, el("span", {}, "Edit"), input), el("button", { type: "submit" }, "Add"));
  const undo = el("button", { type: "button", onclick: () => set(edits().slice(0, -1)) }, "Undo");
  const clear = el("button", { type: "button", onclick: () => set([]) }, "Undo all");
  const help = el(
    "details",
    {},
    el("summary", {}, "How an edit is written"),
    el("dl", { class: "how" }, ...HOW.flatMap(([words, means]) => [el("dt", { class: "mono" }, words), el("dd", {}, means)])),
  );
  const tools = el("div", {}, form, help, list, el("div", { class: "buttons" }, undo, clear));
  const board = makeCard({
    name: "board",
    title: "Parts of the model",
    says: "A click takes a head, or a layer's feed-forward, away; another click gives it back.",
    tools,
  });
  const outcome = views.includes("edits") ? viewCard(context, "edits", { bound: () => ({ edit: edits() }), title: "Before and after" }) : null;
  const rest = views.filter((name) => name !== "edits").map((name) => viewCard(context, name));
  root.replaceChildren(
    el("div", { class: "cards" }, board.root, outcome?.root),
    el("div", { class: "cards" }, ...rest.map((card) => card.root)),
  );

  const set = (next) => context.state.set({ edits: next.length ? next.join("\n") : null }, { quiet: true });

  function add(words) {
    if (!words) return false;
    set([...edits(), words]);
    return true;
  }

  function toggle(words) {
    const now = edits();
    set(now.includes(words) ? now.filter((each) => each !== words) : [...now, words]);
  }

  async function update() {
    const now = edits();
    list.replaceChildren(
      ...now.map((each, place) =>
        el("li", { data: { edit: each } }, el("code", {}, each), " ", el("button", { type: "button", class: "tool", "aria-label": `undo ${each}`, onclick: () => set(now.filter((_, other) => other !== place)) }, "×")),
      ),
    );
    undo.disabled = clear.disabled = !now.length;
    root.dataset.edits = now.length;
    const waits = [context.track(paint()), ...rest.map((card) => card.update())];
    if (outcome) waits.push(outcome.update());
    await Promise.all(waits);
  }

  /** The parts as squares: a column a layer, a row a head, the feed-forward below. */
  async function paint() {
    const model = context.model();
    try {
      if (of !== model || !shape) {
        // One token tells how many heads there are.
        const made = await asking.ask((signal) => numbers({ model, text: context.text(), what: "mosaic", settings: { cells: 1 } }, signal));
        [of, shape] = [model, made.maps.shape.slice(0, 2)];
      }
    } catch (error) {
      if (error instanceof Stale) return undefined;
      if (!(error instanceof Problem)) throw error;
      return board.fail(error.message);
    }
    return board.fill(async () => ({ look: told(), mount: squares }));
  }

  function told() {
    const now = edits();
    if (!now.length) return "Nothing is changed: the model answers as it is.";
    return `${now.length} change${now.length > 1 ? "s" : ""}, made one after another: ${now.join(", ")}.`;
  }

  function squares(body) {
    const [layers, heads] = shape;
    const [left, top, gap] = [64, 18, 3];
    const size = Math.max(12, Math.min(30, ((body.clientWidth || 560) - left) / layers - gap));
    const step = size + gap;
    const off = new Set(edits());
    const picture = svg("svg", { class: "board", width: left + layers * step, height: top + (heads + 1) * step + gap, role: "group", "aria-label": "parts of the model" });
    const every = Math.ceil(18 / step);
    for (let layer = 0; layer < layers; layer++) {
      if (layer % every === 0) picture.append(svg("text", { class: "soft middle", x: left + layer * step + size / 2, y: 12, "font-size": 10 }, String(layer)));
      for (let row = 0; row <= heads; row++) {
        const words = row === heads ? `feed-forward ${layer} off` : `head ${layer}.${row} off`;
        const gone = off.has(words);
        picture.append(
          svg(
            "rect",
            {
              class: `part${gone ? " gone" : ""}${row === heads ? " think" : ""}`, x: left + layer * step, y: top + row * step + (row === heads ? gap : 0), width: size, height: size, rx: 2,
              tabindex: 0, role: "button", "aria-pressed": String(gone), "aria-label": words, data: { edit: words },
              onclick: () => toggle(words),
              onkeydown: (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), toggle(words)),
            },
            svg("title", {}, gone ? `${words}: a click gives it back` : words),
          ),
        );
      }
    }
    for (let row = 0; row <= heads; row++)
      picture.append(svg("text", { class: "soft end", x: left - 6, y: top + row * step + size / 2 + 4, "font-size": 10 }, row === heads ? "think" : `head ${row}`));
    body.replaceChildren(el("div", { class: "wide" }, picture));
    return { update: () => {}, state: () => ({ edits: edits() }), svg: () => null, csv: () => null };
  }

  return {
    update,
    end: () => (asking.drop(), outcome?.end(), rest.forEach((card) => card.end())),
  };
}
