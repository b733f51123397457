// Experiment: parts of the model taken away or changed by hand, and what it says then beside what it said. What was
// changed is a list of edits in words (lens/hooks/interventions.py) that can be undone, and stands in the page's address: a click on a
// part, a dot that is pulled, a slider and a cell of the patching grid all write a line of it.

import { latestRequest, fetchArrays, ApiError, StaleResponse } from "../api.js";
import { makeCard } from "../card.js";
import { mount as pairs } from "../render/before_after_bars.js";
import { el, whenReady, slider, svg } from "../dom.js";
import { viewCard } from "../view_card.js";
import { pythonLiteral } from "../format.js";
import { headEditorCard } from "./head_editor.js";

const HOW = [
  ["head 5.3 off", "what head 3 of layer 5 adds is left out; mean: the same at every token; x0.5: half of it"],
  ["attention 5 off", "the same of a whole step; also feed-forward, layer, cross-head, cross-attention"],
  ["cell 5.3 7 2 0.9", "in head 5.3, token 7 takes 0.9 from token 2; the rest of its row keeps its proportions"],
  ['steer 6 4 all "joy" "grief"', "after layer 6, four times what parts the two texts is added to all tokens (or: last)"],
  ['patch 6 7 "another text"', "after layer 6, token 7 is what it is in another text of as many tokens"],
];

/** A steering edit, taken apart. */
const STEER = /^((?:encoder )?steer \S+) (\S+) ((?:all|last) .*)$/;
/** An edit that says how much of a part is let through. */
const SCALED = /^((?:encoder )?(?:cross-)?(?:head|attention|feed-forward|layer) \S+) x(\S+)$/;
const quoted = (text) => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", " ")}"`;

export function mount(root, context, { views }) {
  const { state } = context;
  const asking = latestRequest();
  let shape = null; // {layers, heads, parts} of the model that is shown
  let of = null; // that model
  let next = null; // edits that wait until those before them are painted
  let going = false;
  /** The edits, in the order in which they are made. */
  const all = () => next ?? (state.get("edits") ?? "").split("\n").filter(Boolean);
  const list = el("ol", { class: "edits" });
  const input = el("input", { type: "text", name: "new-edit", size: 32, placeholder: HOW[0][0], "aria-label": "an edit" });
  const form = el("form", { class: "settings", onsubmit: (event) => (event.preventDefault(), add(input.value.trim()) && (input.value = "")) }, el("label", {}, el("span", {}, "Edit"), input), el("button", { type: "submit" }, "Add"));
  const undo = el("button", { type: "button", onclick: () => set(all().slice(0, -1)) }, "Undo");
  const clear = el("button", { type: "button", onclick: () => set([]) }, "Undo all");
  const help = el(
    "details",
    {},
    el("summary", {}, "How an edit is written"),
    el("dl", { class: "how" }, ...HOW.flatMap(([words, means]) => [el("dt", { class: "mono" }, words), el("dd", {}, means)])),
  );
  const tools = el("div", {}, form, steering(), help, list, el("div", { class: "buttons" }, undo, clear));
  const board = makeCard({
    name: "board",
    title: "Parts of the model",
    says: "A click takes a head, or a layer's feed-forward, away; another click gives it back.",
    tools,
  });
  const target = () => (state.get("target") ? { target: state.get("target") } : {});
  const outcome = views.includes("interventions")
    ? viewCard(context, "interventions", { bound: () => ({ edit: all(), ...target() }), title: "Before and after", drawn: pairs, empty: "Nothing is changed yet. Click a part of the model, pull a dot below, or write an edit: what the model says then stands here beside what it says as it is." })
    : null;
  const hand = headEditorCard(context, { all, put });
  const rest = views.filter((name) => name !== "interventions").map((name) => viewCard(context, name, { onPick: { "activation-patching": patch, ablation: ablate }[name] ?? context.pick }));
  root.replaceChildren(el("div", { class: "cards lab" }, board.root, outcome?.root, hand.root), el("div", { class: "cards" }, ...rest.map((card) => card.root)));

  /** Other edits. While a dot is pulled only the newest are asked for, when those before are painted. */
  async function set(wanted, changes = {}) {
    next = wanted;
    if (going) return;
    going = true;
    try {
      while (next) {
        const now = next;
        next = null;
        state.set({ ...changes, edits: now.length ? now.join("\n") : null }, { quiet: true });
        await whenReady();
      }
    } finally {
      going = false;
    }
  }

  function add(words) {
    if (!words) return false;
    set([...all(), words]);
    return true;
  }

  /** An edit in the place of the one that is the `same`, or behind the others; null takes that one away. */
  function put(same, words) {
    const now = all();
    const place = now.findIndex(same);
    if (place < 0) return words ? set([...now, words]) : undefined;
    return set(words ? now.with(place, words) : now.toSpliced(place, 1));
  }

  function toggle(words) {
    const [, layer, head] = /(\d+)(?:\.(\d+))?/.exec(words);
    const now = all().filter((each) => each === words || SCALED.exec(each)?.[1] !== words.slice(0, -4)); // a part is scaled, or off
    set(now.includes(words) ? now.filter((each) => each !== words) : [...now, words], head === undefined ? {} : { layer, head });
  }

  function patch({ cell, column }, view, asked) {
    if (!cell || column === undefined) return;
    const half = shape?.parts.length > 1 ? "encoder " : "";
    add(`${half}patch ${cell.row === 0 ? "embedding" : cell.row - 1} ${cell.column} ${quoted(asked.settings.other)}`);
  }

  /** What a column of the ablation is called there: h3 a head, x3 one across, ff the feed-forward. */
  function ablate({ cell }, view) {
    if (!cell) return;
    const column = view.column_labels[cell.column];
    toggle(column === "ff" ? `feed-forward ${cell.row} off` : `${column[0] === "x" ? "cross-" : ""}head ${cell.row}.${column.slice(1)} off`);
  }

  /** A form for a vector that is added: what parts two texts. */
  function steering() {
    const text = (name, placeholder) => el("input", { type: "text", name, size: 12, placeholder, required: true });
    const [toward, away] = [text("toward", "I love this"), text("away", "I hate this")];
    const layer = el("input", { type: "number", name: "steer-layer", min: 0, step: 1, required: true });
    const where = el("select", { name: "where" }, el("option", { value: "all" }, "all tokens"), el("option", { value: "last" }, "the last token"));
    const send = (event) => {
      event.preventDefault();
      add(`steer ${Number(layer.value)} 1 ${where.value} ${quoted(toward.value)} ${quoted(away.value)}`);
    };
    const label = (words, each) => el("label", {}, el("span", {}, words), each);
    return el("form", { class: "settings steering", onsubmit: send }, label("Steer toward", toward), label("away from", away), label("after layer", layer), label("at", where), el("button", { type: "submit" }, "Steer"));
  }

  async function update() {
    paintList();
    const waits = [context.track(paint()), ...rest.map((card) => card.update())];
    if (outcome) waits.push(outcome.update());
    await Promise.all(waits);
  }

  function paintList() {
    const now = all();
    undo.disabled = clear.disabled = !now.length;
    root.dataset.edits = now.length;
    // A slider that is being moved stays; what it says of its edit is its own.
    const kept = new Map([...list.children].map((each) => [each.dataset.of, each]));
    list.replaceChildren(...now.map((each, place) => item(each, place, kept.get(`${place}:${nameOf(each)}`))));
  }

  const nameOf = (each) => (STEER.exec(each) ?? SCALED.exec(each))?.[1] ?? each;

  function item(each, place, old) {
    if (old?.contains(document.activeElement)) {
      old.dataset.edit = each;
      old.querySelector("code").textContent = each;
      return old;
    }
    const [steer, scaled] = [STEER.exec(each), SCALED.exec(each)];
    const value = Number((steer ?? scaled)?.[2]);
    const turned = (now) => set(all().with(place, steer ? `${steer[1]} ${now} ${steer[3]}` : `${scaled[1]} x${now}`));
    const range = steer ? [-8, 8, 0.25] : [0, 2, 0.05];
    const strength = steer || scaled ? slider({ label: "Strength", name: "strength", min: Math.min(range[0], value), max: Math.max(range[1], value), step: range[2], value, oninput: turned }) : null;
    const off = el("button", { type: "button", class: "tool", "aria-label": `undo ${each}`, onclick: () => set(all().toSpliced(place, 1)) }, "×");
    return el("li", { data: { edit: each, of: `${place}:${nameOf(each)}` } }, el("code", {}, each), " ", off, strength);
  }

  /** The parts as squares: a column a layer, a row a head, the feed-forward below. */
  async function paint() {
    const model = context.model();
    try {
      if (of !== model || !shape) {
        // One token tells how many heads there are, and whose.
        const ask = (settings) => asking.ask((signal) => fetchArrays({ model, text: context.text(), what: "mosaic", settings: { cells: 1, ...settings } }, signal));
        let made = await ask({});
        if (made.parts.length > 1) made = await ask({ part: "decoder" }); // which writes the answer
        const [layers, heads] = made.maps.shape;
        [of, shape] = [model, { layers, heads, parts: made.parts }];
        const layer = root.querySelector('[name="steer-layer"]');
        layer.max = layers - 1;
        layer.placeholder = layer.value = String(Math.floor(layers / 2));
      }
    } catch (error) {
      if (error instanceof StaleResponse) return undefined;
      if (!(error instanceof ApiError)) throw error;
      return board.fail(error.message);
    }
    return Promise.all([board.fill(async () => ({ caption: told(), python: all().length ? snippet() : null, mount: squares })), hand.update(shape)]);
  }

  function told() {
    const now = all();
    if (!now.length) return "Nothing is changed: the model answers as it is.";
    return `${now.length} change${now.length > 1 ? "s" : ""}, made one after another: ${now.join(", ")}.`;
  }

  const snippet = () => `import clearstory
from clearstory.lens.hooks.interventions import parse
from clearstory.lens.hooks.apply_interventions import intervene
from clearstory.lens.hooks.passage import passage

opened = clearstory.open(${pythonLiteral(context.model())})
read = passage(opened.model, opened.tokenizer, ${pythonLiteral(context.text())}${state.get("target") ? `, target=${pythonLiteral(state.get("target"))}` : ""})
edits = [
${all().map((each) => `    parse(${pythonLiteral(each)}),`).join("\n")}
]
outcome = intervene(opened.model, opened.tokenizer, read, edits)
print(f"KL {outcome.kl:.3g} bits")
for id, before, after in outcome.moves(12):
    print(f"{opened.tokenizer.piece(id):16} {before:.4f} {after:.4f}")
`;

  function squares(body) {
    const { layers, heads } = shape;
    const [left, top, gap] = [64, 18, 3];
    const size = Math.max(12, Math.min(30, ((body.clientWidth || 560) - left) / layers - gap));
    const step = size + gap;
    const [off, words] = [new Set(all()), all()];
    const scaled = (name) => words.some((each) => each.startsWith(`${name} `) && !each.endsWith(" off"));
    const chosen = `${state.get("layer")}.${state.get("head") ?? 0}`;
    const picture = svg("svg", { class: "board", width: left + layers * step, height: top + (heads + 1) * step + gap, role: "group", "aria-label": "parts of the model" });
    const every = Math.ceil(18 / step);
    for (let layer = 0; layer < layers; layer++) {
      if (layer % every === 0) picture.append(svg("text", { class: "soft middle", x: left + layer * step + size / 2, y: 12, "font-size": 10 }, String(layer)));
      for (let row = 0; row <= heads; row++) {
        const name = row === heads ? `feed-forward ${layer}` : `head ${layer}.${row}`;
        const words = `${name} off`;
        const gone = off.has(words);
        const marks = `${gone ? " gone" : scaled(name) ? " scaled" : ""}${row === heads ? " think" : chosen === `${layer}.${row}` ? " chosen" : ""}`;
        picture.append(
          svg(
            "rect",
            {
              class: `part${marks}`, x: left + layer * step, y: top + row * step + (row === heads ? gap : 0), width: size, height: size, rx: 2,
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
    return { update: () => {}, state: () => ({ edits: all() }), svg: () => null, csv: () => null };
  }

  return {
    update,
    end: () => (asking.drop(), hand.end(), outcome?.end(), rest.forEach((card) => card.end())),
  };
}
