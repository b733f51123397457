// Word selection: two sentences with one selected word each. Clicking a chip selects its word. The URL state holds the second
// sentence as text_b and the selected tokens as query and query_b.

import { mount as chips } from "../token_chips.js";
import { el } from "../dom.js";
import { splitText } from "../format.js";

export const EXAMPLE_SENTENCES = ["a machine learning model", "a fashion model"];

const WORD_PATTERN = /[\p{L}\p{N}_]+/gu;

/** The words of a text, each with its character span and the number of its occurrences so far. */
export function splitWords(text) {
  const seen = new Map();
  return splitText(text, WORD_PATTERN).map((match) => {
    const key = match.word.toLowerCase();
    seen.set(key, (seen.get(key) ?? 0) + 1);
    return { ...match, key, nth: seen.get(key) };
  });
}

const overlaps = (word, token) => token && token.text !== null && token.start < word.stop && token.stop > word.start;

/** -> {root, update({other, tokens}), selectedWords(other, tokens)}; `other` is the second sentence, null if none is given. */
export function makeWordSelection(context) {
  const { state } = context;
  let textB = { text: null, tokens: [] };
  const rows = [el("div", {}), el("div", {})];
  const renderers = rows.map((row, side) => chips(row, { tokens: [] }, { onPick: (pick) => onChipPick(side, pick) }));
  const textInput = el("textarea", { name: "text_b", rows: 1, spellcheck: "false", "aria-label": "second sentence", onchange: setText, onkeydown: onKeyDown });
  const exampleButton = el("button", { type: "button", onclick: () => state.set({ text: EXAMPLE_SENTENCES[0], text_b: EXAMPLE_SENTENCES[1], query: null, query_b: null, context_layer: null }) }, "Example");
  const findButton = el("button", { type: "button", onclick: () => state.set({ text_b: null, query_b: null }), title: "use an example sentence that contains the selected word" }, "Use an example sentence");
  const root = el(
    "div",
    { class: "sides" },
    el("span", { class: "side-name first" }, "A"), rows[0],
    el("span", { class: "side-name second" }, "B"), el("div", { class: "side" }, textInput, findButton, exampleButton),
    el("span", {}), rows[1],
  );

  function setText() {
    state.set({ text_b: textInput.value || null, query_b: null });
  }

  function onKeyDown(event) {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    setText();
  }

  function onChipPick(side, { query, pinned }) {
    if (!pinned) return side ? undefined : context.hoveredToken.set(query);
    const name = side ? "query_b" : "query";
    const isSelected = state.get(name) === String(query);
    return state.set({ [name]: isSelected ? null : query, ...(side && state.get("text_b") === null ? { text_b: textB.text } : {}) }, { quiet: true });
  }

  /** The selected word of each side; by default the last word that both contain, or the last one. */
  function selectedWords(other = textB.text, tokens = textB.tokens) {
    const [wordsA, wordsB] = [splitWords(context.text()), other === null ? [] : splitWords(other)];
    const wordOfToken = (words, token) => words.find((word) => overlaps(word, token)) ?? null;
    const wordA = wordOfToken(wordsA, context.tokens()[state.pinned()[0]]);
    const position = state.number("query_b");
    const wordB = position === null ? null : wordOfToken(wordsB, tokens[position]);
    const inBoth = (word) => wordsB.some((each) => each.key === word.key);
    const a = wordA ?? wordsA.findLast((word) => word.key === wordB?.key) ?? wordsA.findLast(inBoth) ?? wordsA.at(-1) ?? null;
    const b = wordB ?? wordsB.find((word) => word.key === a?.key) ?? wordsB.at(-1) ?? null;
    return [a, b];
  }

  function update({ other, tokens }) {
    textB = { text: other, tokens };
    const selectedPair = selectedWords();
    [context.tokens(), tokens].forEach((each, side) => {
      const pinned = each.map((_, position) => position).filter((position) => selectedPair[side] && overlaps(selectedPair[side], each[position]));
      renderers[side].update({ tokens: each, pinned });
    });
    if (document.activeElement !== textInput) textInput.value = other ?? "";
    findButton.disabled = state.get("text_b") === null;
  }

  return { root, update, selectedWords };
}
