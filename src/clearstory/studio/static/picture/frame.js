// Frame: the elements of the picture. What is drawn lies on one canvas; what is text, button or slider is an element over it.

import { el } from "../dom.js";
import { ALL } from "./timeline.js";

/** Titles over the columns: the part of the layout, the text, the page behind it, the steps in which it is lit, its colour. */
const TITLES = [
  ["tokens", "Tokens", "tokens", [0]], ["vectors", "Vectors", "embeddings", [1]], ["stream", "Stream", "residual-stream", [2, 11]],
  ["last", "Last", "residual-stream", [12]], ["next", "Next token", "next-token", [12, 13]], ["before", "E", "residual-stream", [3], "e"],
  ["query", "Query", "attention", [4], "q"], ["key", "Key of each token", "attention", [4, 5, 6], "k"], ["value", "Value of each token", "attention", [8], "v"],
  ["output", "Σ p·V", "attention", [8], "v"], ["added", "ΔE", "interventions", [9], "d"], ["afterAttention", "E′", "residual-stream", [9], "e"],
  ["feedForward", "Feed-forward", "residual-stream", [10], "d"], ["after", "E″", "residual-stream", [10], "e"],
];

/**
 * @param {(page: string) => string} address of a page of the studio
 * @param {(page: string, event: MouseEvent) => void} open
 */
export function buildFrame(address, open) {
  const link = (page, props, ...children) => el("a", { href: address(page), onclick: (event) => open(page, event), ...props }, ...children);
  const canvas = el("canvas", { role: "img", "aria-label": "Drawing of every step from the tokens to the next token; the buttons, texts and tables beside it have the same numbers" });
  const sentence = el("p", { class: "picture-sentence" });
  const editButton = el("button", { type: "button", class: "picture-edit", "aria-label": "Edit the sentence", title: "Edit the sentence" }, "Edit");
  const reading = el("div", { class: "picture-reading" }, sentence, editButton);
  const editor = el("textarea", { class: "picture-editor", rows: 1, spellcheck: "false", "aria-label": "Sentence; Enter reads it", hidden: true });
  const spans = el("p", { class: "picture-spans", hidden: true });
  const titles = TITLES.map(([part, text, page, steps, colour]) => link(/** @type {string} */ (page), { class: `picture-title${colour ? ` of-${colour}` : ""}`, data: { part, steps: /** @type {number[]} */ (steps).join(" ") } }, el("span", {}, String(text))));
  const chips = el("div", { class: "picture-chips", role: "group", "aria-label": "Tokens" });
  const layer = el("select", { "aria-label": "Layer" });
  const head = el("select", { "aria-label": "Head" });
  const clearest = el("button", { type: "button", title: "The head whose weights depend most on these tokens" }, "Clearest");
  const headSays = el("span", { class: "picture-head-says" });
  const headBar = el("div", { class: "picture-heads" }, el("label", {}, el("span", {}, "Layer"), layer), el("label", {}, el("span", {}, "Head"), head), clearest, headSays);
  const small = el("div", { class: "picture-small", role: "group", "aria-label": "Heads of the layer" });
  const grid = el("div", { class: "picture-grid", tabindex: "0", role: "group", "aria-label": "Weights of the head: arrow keys move from cell to cell, Enter pins" });
  const axis = el("div", { class: "picture-axis", role: "group", "aria-label": "Layers: click one to open it" });
  const bars = el("div", { class: "picture-bars" });
  const temperature = el("input", { type: "range", min: "0.1", max: "2", step: "0.1", "aria-label": "Temperature" });
  const degrees = el("output", {});
  const rest = el("p", { class: "picture-rest" });
  const sample = el("button", { type: "button" }, "Draw one");
  const next = el("section", { class: "picture-next", "aria-label": "Next token" }, bars, el("div", { class: "picture-dial" }, el("span", {}, "Temperature"), temperature, degrees), el("div", { class: "picture-foot" }, rest, sample));
  const tip = el("div", { class: "picture-tip", hidden: true });
  const count = el("span", {});
  const door = el("a", {});
  const name = el("h2", { class: "picture-name" });
  const lines = [el("p", {}), el("p", {}), el("p", {})];
  const equation = el("p", { class: "picture-equation" });
  const says = el("p", { class: "picture-says", "aria-live": "polite" });
  const pinned = el("p", { class: "picture-pinned" });
  const button = (label, text, more = {}) => el("button", { type: "button", "aria-label": label, title: label, ...more }, text);
  const hands = {
    back: button("Step back (←)", "◀"), play: button("Play (space)", "▶", { class: "strong" }), forth: button("Step on (→)", "▶▏"),
    scrub: el("input", { type: "range", min: "0", max: String(ALL), step: "0.01", "aria-label": "Where in the round" }), all: button("Show everything at once", "All"),
  };
  const side = el("section", { class: "picture-side", "aria-label": "What to look at now" },
    el("div", { class: "picture-where" }, count, door), name, el("div", { class: "picture-lines" }, ...lines), equation, says, pinned,
    el("div", { class: "picture-hands" }, hands.back, hands.play, hands.forth, hands.scrub, hands.all));
  const stage = el("div", { class: "picture-stage" }, canvas, el("div", { class: "picture-top" }, reading, editor, spans), ...titles, headBar, small, axis, chips, grid, next, tip, side);
  const numbers = el("details", { class: "picture-numbers" }, el("summary", {}, "Numbers as tables"));
  const notice = el("p", { class: "hint", hidden: true });
  const root = el("div", { class: "picture" }, notice, stage, numbers);
  return {
    root, stage, canvas, sentence, reading, editButton, editor, spans, titles, chips, layer, head, clearest, headSays, headBar, small, grid, axis, bars, temperature, degrees, rest, sample, next,
    tip, count, door, name, lines, equation, says, pinned, hands, side, numbers, notice,
  };
}

/** Puts an element where a box is. */
export function placeAt(node, b) {
  for (const [name, value] of Object.entries({ left: b.x, top: b.y, width: b.w, height: b.h })) node.style.setProperty(name, `${value}px`);
}

/** Coloured segments [[colour, text], …] as the content of an element. */
export function setSegments(node, parts) {
  node.replaceChildren(...parts.map(([colour, text]) => el("span", { class: colour && `of-${colour}` }, text)));
}
