// Steps: the fourteen steps of one round. Each has a name, three lines of text, an equation and the page that goes deeper.
// Every number is taken from the story; what a sentence claims of a model is asked of its architecture.

import { bare, clip } from "./paint.js";
import { causal, strongest } from "./story.js";
import { number, percent, scaling, weighted } from "./numbers.js";

const count = (n) => n.toLocaleString("en-US");
const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

/**
 * @param {any} p the picture: story, words, temperature, taken
 * @param {number} row the token that texts speak of
 */
export function steps(p, row) {
  const s = p.story;
  const label = (t) => clip(bare(s.labels[t]), 14);
  const name = label(row);
  const last = label(s.predicted ?? s.n - 1);
  const order = strongest(s.pattern[row], 3);
  const best = order[0].column;
  const norm = { layer: "LayerNorm", rms: "RMSNorm", rms_unit_offset: "RMSNorm" }[s.architecture.norm];
  const pre = s.architecture.norm_first;
  const vocab = s.next ? count(s.next.vocab) : "all";
  const every = s.dimensions.length > 1 ? s.dimensions[1] - s.dimensions[0] : 1;
  const isCausal = causal(s);
  const factor = scaling(s, row, best);
  const length = s.lengths[s.layer][row];
  const learned = ["learned", "sinusoidal"].includes(s.architecture.positions);
  const { activation, gated } = s.architecture;
  const act = activation.replace("_tanh", "");
  return [
    step("Text becomes tokens", "tokens", [`The text is cut into ${plural(s.tokens.length, "token")} that the model knows.`, pieceLine(s), s.labels.some((piece) => piece.startsWith("␣")) ? "␣ marks a space that belongs to the token." : "Each token has a number, its id."],
      [["", `${plural(s.tokens.length, "token")} of ${vocab}`]]),
    step("Each token becomes a vector", "embeddings", [`A token is looked up in a table: ${count(s.width)} numbers.`, `The strip shows ${every > 1 ? `every ${ordinal(every)}` : "all"}: blue above zero, brown below.`, learned ? "A vector for its position is added to it." : "The same token always gets the same vector."],
      [["e", "E"], ["", ` = table[${s.tokens[s.spans[row][1] - 1].id}]${learned ? " + position" : ""}  →  ${count(s.width)} numbers for ‘${name}’`]]),
    step("The vectors flow through the layers", "residual-stream", [`Each token has one stream, through ${plural(s.layers, "layer")}.`, pre ? "A layer only adds to it: bands that run on are unchanged." : "A layer adds to it, then brings it to one size by a norm.", `Red threads carry values from token to token${isCausal ? ", never back" : ""}.`],
      [["e", "E"], ["", " ← "], ["e", "E"], ["", " + "], ["d", "ΔE"], ["", `, in each of ${plural(s.layers, "layer")}`]]),
    step(`Open layer ${s.layer}`, "attention", [`Layer ${s.layer} is opened, and one of its ${plural(s.heads, "head")}.`, `${s.n > 1 ? `All ${s.n} streams come` : "The stream comes"} down into it at once.`, pre ? `Each is first brought to one size by a norm.` : "They enter as they are."],
      pre ? [["", `x = ${norm}(`], ["e", "E"], ["", ")"]] : [["", "x = "], ["e", "E"]]),
    step("A query and a key", "attention", ["Each token makes a query: what is it looking for?", "and a key: what does it have to offer?", `Both are ${s.headDim} numbers${s.architecture.positions === "rotary" ? ", rotated by the token’s position" : ""}.`],
      [["q", "q"], ["", " = x W"], ["q", "q"], ["", ",  "], ["k", "k"], ["", " = x W"], ["k", "k"]]),
    step("Every query meets every key", "attention", ["A dot’s area is the product of its row’s query and its column’s key.", "Hollow means below zero.", `For ‘${name}’ × ‘${label(best)}’ it is ${number(s.dots[row][best], 1)}.`],
      [["q", `q(${name})`], ["", " · "], ["k", `k(${label(best)})`], ["", ` = ${number(s.dots[row][best])}`]]),
    step(isCausal ? "Scale, then hide the future" : "Scale", "attention", [factor ? `Every product is divided by √${s.headDim} = ${number(Math.sqrt(s.headDim), Number.isInteger(Math.sqrt(s.headDim)) ? 0 : 2)}.` : "Every product is scaled, and a bias for the distance is added.", isCausal ? "What stands after a token is set to −∞:" : "Nothing is hidden:", isCausal ? "a token cannot read what is still to come." : "every token reads all others, in both directions."],
      [["q", "q"], ["", " · "], ["k", "k"], ["", ` ${factor ? factor.replace("÷", "/") : "→ score"} = ${number(s.scores[row][best])}`]]),
    step(s.grouped ? "Softmax: each token shares out 100%" : "Softmax: each row shares out 100%", "attention", [`‘${name}’ takes ${order.slice(0, 2).map(({ p: share, column }) => `${percent(share)} from ‘${label(column)}’`).join(" and ")}.`, "Read along a row: which tokens does this one read?", rowSum(s, row)],
      [["", "softmax → "], ...order.filter(({ p: share }) => share > 0).flatMap(({ p: share, column }, i) => /** @type {[string, string][]} */ ([["", i ? " + " : ""], ["q", number(share)], ["", ` ${label(column)}`]]))]),
    step("Values travel along the weights", "attention", ["Each token also has a value: what it hands on.", "It rises up its column, shrinks by the weight at the dot,", "and is summed along the row."],
      [["", "Σ "], ["q", "p"], ["", " · "], ["v", "v"], ["", ` = ${weighted(s, row, 2)}`]]),
    step("The change is added", "interventions", [`The sum becomes ΔE, a change of all ${count(s.width)} numbers.`, `This head changes ‘${name}’ by ${percent(s.addedLengths[row] / length)} of its length,`, `${s.heads > 1 ? `all ${s.heads} heads together` : "the layer’s attention"} by ${percent(s.attentionLengths[s.layer][row] / length)}.`],
      [["e", "E′"], ["", pre ? " = " : ` = ${norm}(`], ["e", "E"], ["", " + "], ["d", "ΔE"], ["", `${pre ? "" : ")"},  |ΔE| / |E| = ${number(s.addedLengths[row], 1)} / ${number(length, 1)}`]]),
    step("Each token by itself", "residual-stream", [`${count(s.architecture.intermediate_size)} neurons for each token; none reads another token.`, `For ‘${name}’ the largest is neuron ${s.neurons[row][0].id} at ${number(s.neurons[row][0].value, 1)}.`, `Their sum changes the stream by ${percent(s.feedForwardLengths[s.layer][row] / length)} of its length.`],
      [["e", "E″"], ["", pre ? " = " : ` = ${norm}(`], ["e", "E′"], ["", gated ? ` + W_down (${act}(gate) ⊙ up)${pre ? "" : ")"}` : ` + W_down ${act}(W_up x)${pre ? "" : ")"}`]]),
    step(s.layer + 1 < s.layers ? "On through the other layers" : "Out of the last layer", "residual-stream", onwardLines(s, last),
      [["", "lens: softmax(norm("], ["e", "E"], ["", ") · token vectors)"]]),
    step("The last vector meets every token", "next-token", nextLines(p, last, vocab),
      p.words ? [["", `p(${clip(bare(p.words[0].piece), 12)}) = softmax(${number(p.words[0].logit)} / T),  T = ${number(p.temperature, 1)}  →  ${percent(p.words[0].p)}`]] : [["", "–"]]),
    step("One token is drawn, and round again", "generate", [p.taken ? `‘${p.taken.piece}’ was drawn and joins the text.` : "A token is drawn by these probabilities and joins the text.", "The older streams do not change: only one new row is computed.", "Then everything happens again for that row."],
      [["", "text ← text + "], ["", p.taken ? `‘${p.taken.piece}’` : "token"]]),
  ];
}

const step = (name, door, lines, equation) => ({ name, door, lines, equation });

/** What is said when everything has arrived. */
export function overview(p) {
  const s = p.story;
  const would = p.words ? `The likeliest next token is ‘${clip(bare(p.words[0].piece), 14)}’ (${percent(p.words[0].p)}).` : "This model has no next token.";
  return step(s.n > 1 ? "A sentence, and the token after it" : "A token, and the one after it", "residual-stream",
    ["Read the top row from left to right: tokens, vectors, layers, next token.", "Below is one layer, opened: how tokens read from each other.", `${would} Press play to see why.`],
    [["", "text → tokens → "], ["e", "E"], ["", ` → ${s.layers} × ( + `], ["d", "ΔE"], ["", " ) → next token"]]);
}

const ordinal = (n) => `${n}${n % 100 > 10 && n % 100 < 14 ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th")}`;

/** One sentence about how words are cut, from the tokens themselves. */
function pieceLine(s) {
  const pieces = s.tokens.filter((token) => !token.special).map((token) => token.piece);
  if (pieces.length > 3 && pieces.every((piece) => [...piece].length === 1)) return "Here every character is a token.";
  const words = [];
  for (const piece of pieces) {
    const inner = piece.startsWith("##") || /^[\p{L}\p{M}]+$/u.test(piece);
    if (inner && words.length && /[\p{L}\p{M}]$/u.test(words.at(-1).at(-1))) words.at(-1).push(piece);
    else words.push([piece]);
  }
  const longest = words.reduce((a, b) => (b.length > a.length ? b : a), [""]);
  if (longest.length < 2) return "Here every word is one token.";
  const parts = longest.map((piece) => bare(piece).replace(/^##/, ""));
  return `A word may fall into pieces: ‘${clip(parts.join(""), 18)}’ is ${parts.length > 4 ? `${parts.length} tokens` : parts.join(" + ")}.`;
}

function rowSum(s, row) {
  if (s.grouped) return "A cell shows the largest weight in it, so rows do not add up here.";
  const sum = [...s.pattern[row]].reduce((a, b) => a + b, 0);
  return sum > 0.999 ? "Every row adds up to 1." : `This row adds up to ${number(sum)}: the rest goes to tokens that are not shown.`;
}

function onwardLines(s, last) {
  const more = s.layer + 1 < s.layers ? `The same happens in ${s.layer + 2 < s.layers ? `layers ${s.layer + 1} to ${s.layers - 1}` : `layer ${s.layer + 1}`}.` : "This is the stream after all layers.";
  if (!s.lens) return [more, "Each layer adds its changes to the streams.", "A last norm brings them to one size."];
  const ends = s.lens.map((words) => words[0]);
  const settled = ends.findIndex((_, i) => ends.slice(i).every((each) => each.id === ends.at(-1).id));
  return [more, "Below the streams: the next token if it were read there.", `After ‘${last}’ it is ‘${clip(bare(ends.at(-1).piece), 14)}’ ${settled > 0 ? `from layer ${settled - 1} on` : "from the embedding on"}.`];
}

function nextLines(p, last, vocab) {
  if (!p.words) return ["This model predicts no next token.", "Its last vectors are its result.", ""];
  const [first, second] = p.words;
  const also = second ? ` and ‘${clip(bare(second.piece), 12)}’ (${percent(second.p)})` : "";
  return [`Only the vector of ‘${last}’ is used for the next token.`, `Its product with the vectors of ${vocab} tokens are the logits.`, `Likeliest: ‘${clip(bare(first.piece), 12)}’ (${percent(first.p)})${also}.`];
}
