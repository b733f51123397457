// Panels: the parts of the picture that are elements. Sentence, chips, bars, heads, texts, tables of numbers.

import { el } from "../dom.js";
import { setSegments } from "./frame.js";
import { describe, habits, number, percent } from "./numbers.js";
import { bare, clip } from "./paint.js";
import { focusRow, lit, shown } from "./selection.js";
import { masked, strongest } from "./story.js";
import { ALL, STEP, arrival, stepAt } from "./timeline.js";

/** The row of a token; none if its row is not shown. */
const rowOf = (story, position) => story.spans.findIndex(([start, stop]) => start <= position && position < stop);

/** The sentence as the model reads it, a word a token, and the chips: a button a row. */
export function fillSentence(p) {
  const { story } = p;
  const written = story.tokens.length - p.drawn.length;
  const words = story.tokens.map((token, position) => {
    const row = rowOf(story, position);
    const classes = ["word", `tone-${(row >= 0 && story.grouped ? row : position) % 2}`, token.special ? "special" : "", position >= written ? "new" : "", row < 0 ? "away" : ""];
    const text = wordText(p, position, position >= written);
    return el("span", { class: classes.filter(Boolean).join(" "), data: row >= 0 ? { row } : {} }, text);
  });
  p.caret = el("span", { class: "caret" });
  p.sentence.replaceChildren(...words, p.caret);
  p.chips.replaceChildren(...story.labels.map((label, row) => {
    const [start, stop] = story.spans[row];
    const tokens = story.tokens.slice(start, stop);
    const text = tokens.length > 1 ? `…${label}` : label;
    const name = tokens.length > 1 ? `tokens ${start} to ${stop - 1}: ${tokens.map((token) => token.piece).join("")}` : `token ${start}: ${label}, id ${tokens[0].id}`;
    return el("button", { type: "button", class: `picture-chip tone-${row % 2}${tokens.at(-1).special ? " special" : ""}`, "aria-label": name, title: name, data: { row, id: tokens.at(-1).id } }, text);
  }));
}

/** A token as a part of the sentence: its characters, so that the bytes of an emoji are one emoji, at the first of its tokens. */
function wordText(p, position, isNew) {
  const { special, piece, start, stop } = p.story.tokens[position];
  if (special) return piece;
  if (isNew || !p.source || start === null || stop > p.source.length) return piece.replaceAll("␣", " ");
  return p.source.slice(Math.max(start, p.story.tokens[position - 1]?.stop ?? 0), stop).join("").replaceAll("\n", "↵");
}

/** The bars of the likeliest next tokens at the temperature. */
export function fillBars(p) {
  const words = p.words?.slice(0, 10) ?? [];
  const widest = Math.max(0.5, words[0]?.p ?? 1);
  if (p.bars.children.length !== words.length)
    p.bars.replaceChildren(...words.map((_, k) => el("button", { type: "button", class: "picture-bar", data: { bar: k } }, el("span", { class: "piece" }), el("span", { class: "room" }, el("i", {})), el("span", { class: "share" }))));
  words.forEach((word, k) => {
    const bar = p.bars.children[k];
    bar.children[0].textContent = word.piece;
    bar.children[1].firstChild.style.setProperty("width", `${(100 * word.p) / widest}%`);
    bar.children[2].textContent = percent(word.p);
    Object.assign(bar.dataset, { id: word.id, probability: word.p });
    bar.setAttribute("aria-label", `${word.piece}: ${percent(word.p)}. Append it`);
  });
  p.next.dataset.entropy = p.entropy ?? "";
  const top = words.reduce((sum, word) => sum + word.p, 0);
  p.rest.textContent = words.length ? `Top ${words.length} of ${p.story.next.vocab.toLocaleString("en-US")}: ${percent(top)}. Entropy ${p.entropy.toFixed(1)} bits.` : "This model predicts no next token.";
  p.degrees.textContent = number(p.temperature, 1);
  p.temperature_input.value = String(p.temperature);
  p.sample.disabled = Boolean(p.cannotDraw);
  p.sample.title = p.cannotDraw ?? "Draw a token by these probabilities and append it";
}

/** The menus of layers and heads, the buttons over the small patterns, and what the head does. */
export function fillHeads(p) {
  const { story } = p;
  const options = (select, count, value) => {
    if (select.options.length !== count) select.replaceChildren(...Array.from({ length: count }, (_, i) => el("option", { value: String(i) }, String(i))));
    select.value = String(value);
  };
  options(p.layer, story.layers, story.layer);
  options(p.head, story.heads, story.head);
  p.headSays.textContent = headSentence(p);
  if (p.small.children.length !== story.heads) p.small.replaceChildren(...Array.from({ length: story.heads }, (_, i) => el("button", { type: "button", data: { head: i } })));
  [...p.small.children].forEach((button, i) => {
    button.setAttribute("aria-label", `Head ${story.layer}.${i}`);
    button.setAttribute("aria-pressed", String(i === story.head));
  });
  Object.assign(p.root.dataset, { layer: story.layer, head: story.head, rows: story.n, tokens: story.tokens.length, round: p.round });
}

function headSentence(p) {
  const { story } = p;
  const { first, previous } = habits(story, story.head);
  if (story.n < 2) return "";
  if (first > 0.6) return `${percent(first)} on the first token: a sink`;
  if (previous > 0.6) return `mostly the token before (${percent(previous)})`;
  const row = focusRow(p);
  const reads = strongest(story.pattern[row], 2).map(({ p: share, column }) => `${bare(story.labels[column])} ${percent(share)}`);
  return `${clip(bare(story.labels[row]), 12)} ← ${reads.join(", ")}`;
}

/** What a row stands for if not all tokens have a row of their own, and the buttons to zoom. */
export function fillSpans(p) {
  const { story } = p;
  const total = story.tokens.length;
  const [start, stop] = [story.spans[0][0], story.spans.at(-1)[1]];
  const whole = start === 0 && stop === total;
  p.spans.hidden = whole && !story.grouped;
  if (p.spans.hidden) return p.spans.replaceChildren();
  const button = (action, label, text) => el("button", { type: "button", "aria-label": label, data: { span: action } }, text);
  const size = Math.max(...story.spans.map(([from, to]) => to - from));
  const shownTokens = whole ? `${total} tokens` : `Tokens ${start} to ${stop - 1} of ${total}`;
  const rows = story.grouped ? ` in ${story.n} rows of up to ${size}: a row is that of its last token, a cell shows the largest weight in it` : "";
  const sentence = `${shownTokens}${rows}${start && !rows ? "; weights on earlier tokens are not shown, so rows add up to less than 1" : ""}. `;
  const buttons = whole ? [button("zoom", "Zoom in to single tokens: around the pinned row, or the last", "Zoom in")]
    : [button("back", "Earlier tokens", "◀ Earlier"), button("forth", "Later tokens", "Later ▶"), button("whole", "Show the whole text", "Whole text")];
  return p.spans.replaceChildren(sentence, ...buttons);
}

/** The texts of the step, and the line of what is pointed at. */
export function narrate(p) {
  const step = stepAt(p);
  if (p.narrated !== step) {
    p.narrated = step;
    const line = p.lines[step];
    p.name.textContent = line.name;
    p.count.textContent = `${step < ALL ? `${step + 1} of ${ALL}` : "All at once"}${p.round ? ` · round ${p.round + 1}` : ""}`;
    p.textLines.forEach((node, i) => (node.textContent = line.lines[i]));
    p.showDoor(line.door);
    setSegments(p.equation, line.equation);
    p.root.dataset.step = step;
    for (const title of p.titles) title.classList.toggle("now", step < ALL && title.dataset.steps.split(" ").includes(String(step)));
  }
  narrateSelection(p);
  p.hands.scrub.value = String(Math.min(p.at, ALL));
  narrateTime(p);
}

/** What changes with time: chips that have not come yet, bars that grow, the button of the clock. Written only where it changes. */
function narrateTime(p) {
  const gone = p.story.labels.filter((_, t) => arrival(p, STEP.tokens, t, 0.6) < 0.98 && !p.story.grouped).length;
  const grown = p.at >= ALL ? 1 : arrival(p, STEP.next, p.story.predicted ?? p.story.n - 1, 0);
  const key = `${p.storyNumber}|${gone}|${grown.toFixed(3)}|${p.playing}`;
  if (p.timeSaid === key) return;
  p.timeSaid = key;
  [...p.chips.children].forEach((chip, t) => chip.classList.toggle("away", t >= p.story.n - gone));
  p.next.style.setProperty("--grown", grown.toFixed(3));
  p.next.classList.toggle("ready", grown > 0.5);
  p.hands.play.textContent = p.playing ? "❚❚" : "▶";
  p.hands.play.setAttribute("aria-label", p.playing ? "Pause (space)" : "Play (space)");
}

const HINT = "Point at anything: it lights up what it came from and what it feeds.";

function narrateSelection(p) {
  const h = shown(p);
  const key = `${JSON.stringify(h)}|${p.temperature}|${p.storyNumber}|${p.note}|${Boolean(p.pinned)}`;
  if (p.said === key) return;
  p.said = key;
  const beside = Boolean(p.hover && !p.pinned && p.pointer && p.hover.kind !== "token");
  p.tip.hidden = !beside;
  if (beside) setSegments(p.tip, describe(p, h));
  if (h && !beside) setSegments(p.says, describe(p, h));
  else p.says.textContent = p.note || HINT;
  p.says.classList.toggle("quiet", !h || beside);
  p.side.classList.toggle("pinned", Boolean(p.pinned));
  p.pinnedLine.textContent = p.pinned ? `Pinned: ‘${bare(p.story.labels[p.pinned.row])}’ · Esc releases` : "";
  for (const node of p.stage.querySelectorAll("[data-row]")) node.classList.toggle("lit", Boolean(h) && (Number(node.dataset.row) === h.row || (h.kind === "grid" && Number(node.dataset.row) === h.column)));
  [...p.chips.children].forEach((chip, t) => chip.style.setProperty("opacity", String(Math.max(0.4, lit(p, "embedding", t)))));
  [...p.bars.children].forEach((bar, k) => bar.classList.toggle("lit", h?.kind === "bar" && h.bar === k));
}

/** The tables behind the drawing: the weights of the opened head and the next tokens. */
export function fillTables(p) {
  const { story } = p;
  const names = story.labels.map((label, t) => `${label} (${story.spans[t][1] - 1})`);
  const weights = el("table", { data: { table: "weights" } }, el("caption", {}, `Weights of head ${story.layer}.${story.head}: rows are queries, columns keys${story.grouped ? "; the largest of each pair of groups" : ""}`),
    el("thead", {}, el("tr", {}, el("th", {}, "query"), ...names.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...[...story.pattern].map((row, t) => el("tr", {}, el("th", { scope: "row" }, names[t]), ...[...row].map((weight, s) => el("td", { data: { value: weight } }, masked(story, t, s) ? "−∞ → 0" : percent(weight)))))));
  const next = p.words && el("table", { data: { table: "next" } }, el("caption", {}, `Next tokens at temperature ${number(p.temperature, 1)}`),
    el("thead", {}, el("tr", {}, ...["token", "id", "logit", "probability"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...p.words.slice(0, 40).map((word) => el("tr", {}, el("th", { scope: "row" }, word.piece), el("td", {}, String(word.id)), el("td", {}, number(word.logit)), el("td", { data: { value: word.p } }, percent(word.p))))));
  p.numbers.replaceChildren(p.numbers.firstElementChild, el("div", { class: "wide" }, weights), ...(next ? [el("div", { class: "wide" }, next)] : []));
}
