// Marking: two sentences with one word marked in each. Clicking a chip marks its word. The address holds the second
// sentence as text_b and the marks as query and query_b.

import { mount as chips } from "../token_chips.js";
import { el } from "../dom.js";

export const EXAMPLE_SENTENCES = ["a machine learning model", "a fashion model"];

const WORD = /[\p{L}\p{N}_]+/gu;

/** The words of a text: each with its characters, counted as the tokens' are, and how many of its like stand up to it. */
export function splitWords(text) {
  const seen = new Map();
  return [...text.matchAll(WORD)].map((match) => {
    const key = match[0].toLowerCase();
    seen.set(key, (seen.get(key) ?? 0) + 1);
    const start = [...text.slice(0, match.index)].length;
    return { word: match[0], key, start, stop: start + [...match[0]].length, nth: seen.get(key) };
  });
}

const over = (word, token) => token && token.start < word.stop && token.stop > word.start;

/** {root, update({other, tokens}), marks(other)}: `other` is the second sentence, null while nobody has said which. */
export function makeWordSelection(context) {
  const { state } = context;
  let second = { text: null, tokens: [] };
  const rows = [el("div", {}), el("div", {})];
  const renderers = rows.map((row, side) => chips(row, { tokens: [] }, { onPick: (pick) => picked(side, pick) }));
  const box = el("textarea", { name: "text_b", rows: 1, spellcheck: "false", "aria-label": "second sentence", onchange: put, onkeydown: enter });
  const example = el("button", { type: "button", onclick: () => state.set({ text: EXAMPLE_SENTENCES[0], text_b: EXAMPLE_SENTENCES[1], query: null, query_b: null, after: null }) }, "Example: two kinds of model");
  const bank = el("button", { type: "button", onclick: () => state.set({ text_b: null, query_b: null }), title: "a sentence that is kept here in which the marked word stands" }, "Find a sentence");
  const root = el(
    "div",
    { class: "sides" },
    el("span", { class: "side-name first" }, "A"), rows[0],
    el("span", { class: "side-name second" }, "B"), el("div", { class: "side" }, box, bank, example),
    el("span", {}), rows[1],
  );

  function put() {
    state.set({ text_b: box.value || null, query_b: null });
  }

  function enter(event) {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    put();
  }

  function picked(side, { query, pinned }) {
    if (!pinned) return side ? undefined : context.preview.set(query);
    const name = side ? "query_b" : "query";
    const same = state.get(name) === String(query);
    return state.set({ [name]: same ? null : query, ...(side && state.get("text_b") === null ? { text_b: second.text } : {}) }, { quiet: true });
  }

  /** The marked word of each side; where none is marked, the last that both have, or the last there is. */
  function marks(other = second.text, tokens = second.tokens) {
    const [mine, theirs] = [splitWords(context.text()), other === null ? [] : splitWords(other)];
    const marked = (words, token) => words.find((word) => over(word, token)) ?? null;
    const own = marked(mine, context.tokens()[state.pinned()[0]]);
    const place = state.number("query_b");
    const given = place === null ? null : marked(theirs, tokens[place]);
    const common = (word) => theirs.some((each) => each.key === word.key);
    const a = own ?? mine.findLast((word) => word.key === given?.key) ?? mine.findLast(common) ?? mine.at(-1) ?? null;
    const b = given ?? theirs.find((word) => word.key === a?.key) ?? theirs.at(-1) ?? null;
    return [a, b];
  }

  function update({ other, tokens }) {
    second = { text: other, tokens };
    const found = marks();
    [context.tokens(), tokens].forEach((each, side) => {
      const pinned = each.map((_, place) => place).filter((place) => found[side] && over(found[side], each[place]));
      renderers[side].update({ tokens: each, pinned });
    });
    if (document.activeElement !== box) box.value = other ?? "";
    bank.disabled = state.get("text_b") === null;
  }

  return { root, update, marks };
}
