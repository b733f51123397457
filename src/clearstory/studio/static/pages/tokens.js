// Tokens page: the tokenization of the sentence.

import { makeCard, tablesCsv } from "../card.js";
import { el } from "../dom.js";
import { viewCard } from "../view_card.js";
import { promptSnippet, splitText, visibleWhitespace } from "../format.js";

export function mount(root, context, { views }) {
  const card = makeCard({ name: "pieces", title: "Tokens" });
  const cards = views.map((name) => viewCard(context, name));
  root.replaceChildren(el("div", { class: "cards wide-first" }, card.root, ...cards.map((each) => each.root)));

  function update() {
    const [tokens, text] = [context.tokens(), context.text()];
    const filled = card.fill(async () => ({
      title: `${tokens.length} tokens, ${new TextEncoder().encode(text).length} bytes`,
      caption: tokensCaption(tokens, text),
      python: `${promptSnippet(context.input())}print([(id, opened.tokenizer.display_token(id)) for id in prompt.ids])\n`,
      tables: () => [table(tokens)],
      files: { csv: async () => tablesCsv([table(tokens)]) },
      mount: (body) => paint(body, tokens, text),
    }));
    return Promise.all([context.track(filled), ...cards.map((each) => each.update())]);
  }

  function paint(body, tokens, text) {
    const units = [
      ["tokens", tokens.length],
      ["characters", [...text].length],
      ["bytes", new TextEncoder().encode(text).length],
      ["words", text.split(/\s+/).filter(Boolean).length],
    ];
    const counts = el("p", { class: "totals" }, ...units.map(([name, value]) => el("span", { data: { total: name, value } }, `${name} `, el("b", {}, value))));
    const list = el(
      "div",
      { class: "wide" },
      el(
        "table",
        { class: "rendered" },
        el("thead", {}, el("tr", {}, ...["position", "token", "id", "bytes", "text", ""].map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, ...tokens.map(tokenRow)),
      ),
    );
    body.replaceChildren(counts, list);
    return { update: () => {}, state: () => ({ count: tokens.length }), svg: () => null, csv: () => null };
  }

  /** A row is the chip in the bar: hovered and pinned together. */
  const tokenRow = (token, position) =>
    el(
      "tr",
      {
        data: { position, id: token.id }, "aria-selected": String(context.state.pinned().includes(position)),
        onpointerenter: () => context.hoveredToken.set(position), onpointerleave: () => context.hoveredToken.set(null),
        onclick: () => context.state.set({ query: position }, { quiet: true }),
      },
      el("td", { class: "n" }, position),
      el("td", { class: "mono" }, token.piece),
      el("td", { class: "n" }, token.id.toLocaleString("en-US")),
      el("td", { class: "n" }, token.bytes),
      el("td", { class: "mono" }, visibleWhitespace(token.text ?? "")),
      el("td", {}, token.special ? (context.trace()?.prompt.chat ? "chat template" : "special") : token.unknown ? "unknown" : ""),
    );

  return { update, destroy: () => cards.forEach((each) => each.destroy()) };
}

const table = (tokens) => ({
  title: "Tokens",
  columns: ["position", "token", "id", "bytes", "text", "special", "unknown"],
  rows: tokens.map((token, position) => [position, token.piece, token.id, token.bytes, token.text, String(token.special), String(token.unknown)]),
});

/** The number of unknown tokens, or the word with the most tokens. */
function tokensCaption(tokens, text) {
  const unknown = tokens.filter((token) => token.unknown).length;
  if (unknown) return `${unknown} of ${tokens.length} tokens are unknown: they are not in the vocabulary.`;
  const words = splitText(text, /\S+/gu).map(({ word, start, stop }) => ({ word, pieces: tokens.filter((token) => token.text !== null && token.start < stop && token.stop > start).length }));
  const most = words.reduce((a, b) => (b.pieces > a.pieces ? b : a), { word: "", pieces: 0 });
  if (most.pieces < 2) return words.length ? "Every word is one token." : "";
  return `‘${most.word}’ is split into ${most.pieces} tokens, more than any other word.`;
}
