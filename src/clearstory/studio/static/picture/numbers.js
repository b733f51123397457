// Numbers: what a part of the picture is, in one line: its number, and the equation with the numbers in it.
//
// A line is a list of [colour, text]; a colour is the letter of a class: e stream, q query, k key, v value, d change.

import { percent } from "../format.js";
import { bare } from "./paint.js";
import { masked, strongest } from "./story.js";

export { percent };

/** A number with a fixed count of decimals and a true minus sign. */
export const number = (x, digits = 2) => (Number.isFinite(x) ? x.toFixed(digits).replace("-", "−") : Number.isNaN(x) ? "–" : x < 0 ? "−∞" : "∞");

/** A factor by which scores follow from dot products, as text: "÷ √64" if it is that, else null. */
export function scaling(story, row, column) {
  const [dot, score] = [story.dots[row][column], story.scores[row][column]];
  const expected = dot / Math.sqrt(story.headDim);
  return Math.abs(expected - score) <= 1e-3 * Math.max(1, Math.abs(score)) ? `÷ √${story.headDim}` : null;
}

/** The line for a selection. @returns {[string, string][]} */
export function describe(p, h) {
  const s = p.story;
  const name = bare(s.labels[h.row] ?? "");
  const many = s.spans[h.row] && s.spans[h.row][1] - s.spans[h.row][0] > 1;
  const token = s.tokens[(s.spans[h.row]?.[1] ?? 1) - 1];
  const dimension = s.dimensions[h.index];
  switch (h.kind) {
    case "token":
      return [["", many ? `tokens ${s.spans[h.row][0]} to ${s.spans[h.row][1] - 1}; the row is that of the last, ‘${token.piece}’` : `‘${token.piece}’ is token ${token.id}, at position ${s.spans[h.row][0]}`]];
    case "small":
      return describeHead(s, h.index);
    case "embedding":
      return [["e", `E(${name})[${dimension}]`], ["", ` = ${number(s.stream[0][h.row][h.index] * s.rms[0][h.row], 3)}: ${number(s.stream[0][h.row][h.index])} × its rms ${number(s.rms[0][h.row], 3)}`]];
    case "stream":
      return describeStream(p, h, name);
    case "before":
      return [["e", `E(${name})[${dimension}]`], ["", ` = ${number(s.before[h.row][h.index])} × its rms ${number(s.rms[s.layer][h.row])}, the stream before layer ${s.layer}`]];
    case "query":
      return [["q", `q(${name})[${h.index}]`], ["", ` = ${number(s.query[h.row][h.index])}, from E(${name}); it meets ${readable(s, h.row)} keys`]];
    case "key":
      return [["k", `k(${name})[${h.index}]`], ["", ` = ${number(s.key[h.row][h.index])}, from E(${name}); ${readers(s, h.row)} queries meet it`]];
    case "value":
      return [["v", `v(${name})[${h.index}]`], ["", ` = ${number(s.value[h.row][h.index])}; most goes to ${takers(s, h.row)}`]];
    case "grid":
      return describeCell(s, h);
    case "output":
      return [["v", "Σ p·v"], ["", ` = ${weighted(s, h.row, 3)} → [${h.index}] = ${number(s.output[h.row][h.index], 3)}`]];
    case "added":
      return [["d", `ΔE(${name})[${dimension}]`], ["", ` = ${number(s.added[h.row][h.index], 3)} × rms; |ΔE| = ${number(s.addedLengths[h.row], 1)}, |E| = ${number(s.lengths[s.layer][h.row], 1)}`]];
    case "afterAttention":
      return [["e", "E′"], ["", " = "], ["e", `E ${number(s.before[h.row][h.index])}`], ["", " + "], ["d", `ΔE of all heads ${number(s.attentionAdded[h.row][h.index])}`], ["", `${s.architecture.norm_first ? "" : ", normalised,"} = ${number(s.afterAttention[h.row][h.index])}, at ${dimension} of ${name}`]];
    case "neurons": {
      const neuron = s.neurons[h.row][h.index];
      return [["d", `neuron ${neuron.id}`], ["", ` of ${name} = ${number(neuron.value)}; ${s.active[h.row].toLocaleString("en-US")} of ${s.architecture.intermediate_size.toLocaleString("en-US")} are over a tenth of the largest`]];
    }
    case "feedForward":
      return [["d", `FF(${name})[${dimension}]`], ["", ` = ${number(s.feedForwardAdded[h.row][h.index], 3)} × rms; |FF| = ${number(s.feedForwardLengths[s.layer][h.row], 1)}`]];
    case "after":
      return [["e", `E″(${name})[${dimension}]`], ["", ` = ${number(s.after[h.row][h.index])} × its rms ${number(s.rms[s.layer + 1][h.row])}; ${s.layer + 1 < s.layers ? `the input of layer ${s.layer + 1}` : "the input of the last norm"}`]];
    case "final":
      return [["e", `last(${name})[${dimension}]`], ["", ` = ${number(s.final[h.row][h.index])}${h.row === s.predicted ? "; its products with all token vectors are the logits" : "; its prediction is not shown"}`]];
    case "bar":
      return describeBar(p, h, name);
    default:
      return [];
  }
}

function describeStream(p, h, name) {
  const s = p.story;
  const [most] = strongest(s.contributions[h.layer][h.row].map((x, column) => (column === h.row ? 0 : x)), 1);
  const length = s.lengths[h.layer][h.row];
  const line = [["e", name], ["", ` in layer ${h.layer}, |E| = ${number(length, 1)}: attention adds ${percent(s.attentionLengths[h.layer][h.row] / length)} of its length`]];
  if (most?.p > 0) line.push(["", ", most from "], ["v", `${bare(s.labels[most.column])} (${percent(most.p)})`]);
  line.push(["", `; feed-forward ${percent(s.feedForwardLengths[h.layer][h.row] / length)}`]);
  if (s.lens && h.row === s.predicted) line.push(["", `; read here, the next token would be ‘${s.lens[h.layer + 1][0].piece}’ (${percent(s.lens[h.layer + 1][0].p)})`]);
  return line;
}

function describeCell(s, { row, column }) {
  const [from, to] = [bare(s.labels[row]), bare(s.labels[column])];
  if (masked(s, row, column)) return [["", `‘${from}’ cannot read ‘${to}’${column > row ? ", which comes later" : ""}: −∞, weight 0`]];
  const weight = percent(s.pattern[row][column]);
  if (s.grouped) return [["q", weight], ["", ` is the largest weight from a token of the group up to ‘${from}’ to one of the group up to ‘${to}’`]];
  const factor = scaling(s, row, column);
  return [["q", `q(${from})`], ["", " · "], ["k", `k(${to})`], ["", ` = ${number(s.dots[row][column])}; ${factor ?? "scaled, with its bias,"} = ${number(s.scores[row][column])}; softmax → `], ["q", weight]];
}

function describeBar(p, h, name) {
  const word = p.words[h.bar];
  return [["e", `last(${name})`], ["", ` → logit of ‘${word.piece}’ = ${number(word.logit)}; ÷ T ${number(p.temperature, 1)}, softmax → `], ["e", percent(word.p)]];
}

function describeHead(s, head) {
  const { first, previous } = habits(s, head);
  return [["q", `head ${s.layer}.${head}`], ["", `: on average ${percent(first)} on the first token, ${percent(previous)} on the one before; click to open it`]];
}

/** The mean shares of a head's weight on the first token and on the one before, from the second row on. */
export function habits(s, head) {
  const rows = [...s.patterns[s.layer][head]].slice(1);
  const mean = (pick) => rows.reduce((sum, row, i) => sum + pick(row, i + 1), 0) / Math.max(1, rows.length) / 255;
  return { first: mean((row) => row[0]), previous: mean((row, t) => row[t - 1]) };
}

const readable = (s, row) => s.scores[row].reduce((count, _, column) => count + (masked(s, row, column) ? 0 : 1), 0);
const readers = (s, column) => s.scores.reduce((count, _, row) => count + (masked(s, row, column) ? 0 : 1), 0);

const takers = (s, column) => strongest(s.pattern.map((row) => row[column]), 3).map(({ p, column: row }) => `${bare(s.labels[row])} ${percent(p)}`).join(", ");

/** Values with their weights: 0.41·v(blue) + 0.40·v(fluffy) + … */
export function weighted(s, row, count) {
  const parts = strongest(s.pattern[row], count).map(({ p, column }) => `${number(p)}·v(${bare(s.labels[column])})`);
  return `${parts.join(" + ")}${readable(s, row) > parts.length ? " + …" : ""}`;
}
