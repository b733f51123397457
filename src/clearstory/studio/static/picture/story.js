// Story: the arrays of a walkthrough as rows by token, and the row that a drawn token adds to them.

/**
 * One forward pass as the picture draws it. R rows of tokens, N layers. Streams are divided by their root mean square.
 * @param {Record<string, any>} answer what `POST /api/arrays` returns for the function walkthrough
 */
export function readStory(answer) {
  const part = answer.opened.part;
  const of = (name) => matrices(answer[`${part}.${name}`]);
  const head = (name) => matrices(answer[`head.${name}`]);
  const spans = answer.groups[part];
  const { layer, head: number, head_dim } = answer.opened;
  const rms = of("rms");
  const scaled = (rows, stage) => rows.map((row, t) => row.map((x) => x / rms[stage][t]));
  const stream = of("stream");
  const pieces = answer.pieces;
  const neuronValues = head("neuron_values");
  const lensIds = answer["lens.ids"] ? matrices(answer["lens.ids"]) : null;
  const lensShares = answer["lens.probabilities"] ? matrices(answer["lens.probabilities"]) : null;
  return {
    model: answer.model, tokens: answer.tokens, spans, n: spans.length, grouped: spans.some(([start, stop]) => stop - start > 1),
    labels: spans.map(([, stop]) => answer.tokens[stop - 1].piece),
    layers: stream.length - 1, heads: answer[`${part}.patterns`].shape[1], width: answer.width, dimensions: answer.dimensions,
    architecture: answer.architecture, layer, head: number, headDim: head_dim, rms,
    stream: stream.map((rows, stage) => scaled(rows, stage)),
    lengths: of("lengths"), attentionLengths: of("attention_lengths"), feedForwardLengths: of("feed_forward_lengths"),
    contributions: of("contributions"), patterns: of("patterns"), final: of("final"),
    query: head("query"), key: head("key"), value: head("value"), output: head("output"),
    dots: head("dots"), scores: head("scores"), pattern: head("pattern"),
    before: scaled(head("before"), layer), added: scaled(head("added"), layer), attentionAdded: scaled(head("attention_added"), layer),
    afterAttention: scaled(head("after_attention"), layer), feedForwardAdded: scaled(head("feed_forward_added"), layer),
    after: scaled(head("after"), layer + 1),
    addedLengths: [...answer["head.added_lengths"].values], active: [...answer["head.active_neurons"].values],
    neurons: matrices(answer["head.neuron_ids"]).map((ids, t) => [...ids].map((id, i) => ({ id, value: neuronValues[t][i] }))),
    lens: lensIds && lensIds.map((ids, stage) => [...ids].map((id, i) => ({ id, piece: pieces[id], p: lensShares[stage][i] }))),
    next: readNext(answer),
    predicted: answer.row === null ? null : spans.findIndex(([start, stop]) => start <= answer.row && answer.row < stop),
  };
}

/** The nested rows of an array: of (N, R, K) a list of N lists of R typed arrays. */
function matrices({ shape, values }) {
  const nest = (dimensions, start, size) => {
    if (dimensions.length === 1) return values.subarray(start, start + size);
    const step = size / dimensions[0];
    return Array.from({ length: dimensions[0] }, (_, i) => nest(dimensions.slice(1), start + i * step, step));
  };
  return nest(shape, 0, values.length);
}

function readNext(answer) {
  if (!answer.next) return null;
  const { start, width, vocab, impossible } = answer.next;
  const words = [...answer["next.ids"].values].map((id, i) => ({ id, piece: answer.pieces[id], logit: answer["next.logits"].values[i] }));
  return { words, counts: [...answer["next.counts"].values], means: [...answer["next.means"].values], start, width, vocab, impossible };
}

const BY_STAGE = ["stream", "lengths", "rms"];
const BY_LAYER = ["attentionLengths", "feedForwardLengths"];
const BY_ROW = ["final", "query", "output", "before", "added", "attentionAdded", "afterAttention", "feedForwardAdded", "after", "addedLengths", "active", "neurons"];

/** The story with one more row: that of the token which was drawn, the only one that the answer has. */
export function appendRow(story, answer) {
  const row = readStory(answer);
  const last = (each) => each[each.length - 1];
  const joined = { ...story, tokens: row.tokens, spans: [...story.spans, last(row.spans)], labels: [...story.labels, last(row.labels)], n: story.n + 1 };
  for (const name of BY_STAGE) joined[name] = story[name].map((rows, stage) => [...rows, last(row[name][stage])]);
  for (const name of BY_LAYER) joined[name] = story[name].map((rows, layer) => [...rows, last(row[name][layer])]);
  for (const name of BY_ROW) joined[name] = [...story[name], last(row[name])];
  // A causal row gives no weight to a token after it, and carries nothing from there.
  const widen = (rows, added, fill) => [...rows.map((each) => Float32Array.of(...each, fill)), last(added)];
  joined.contributions = story.contributions.map((rows, layer) => widen(rows, row.contributions[layer], 0));
  joined.patterns = story.patterns.map((heads, layer) => heads.map((rows, head) => widen(rows, row.patterns[layer][head], 0)));
  joined.pattern = widen(story.pattern, row.pattern, 0);
  joined.scores = widen(story.scores, row.scores, -Infinity);
  joined.dots = widen(story.dots, row.dots, NaN);
  for (const name of ["key", "value"]) joined[name] = [...story[name], last(row[name])];
  return { ...joined, lens: row.lens, next: row.next, predicted: story.n };
}

/** Whether a weight is impossible: the query may not read that key. */
export const masked = (story, row, column) => story.scores[row][column] === -Infinity;

/** Whether no token reads a later one. */
export const causal = (story) => story.scores.every((row, t) => row.every((_, s) => s <= t || masked(story, t, s)));

/**
 * Probabilities of the likeliest tokens at a temperature and the entropy in bits, from their logits and a histogram of the
 * others: `distribution_at` of the library.
 */
export function distribution(next, temperature) {
  const largest = next.words[0].logit;
  const scaled = next.words.map((word) => (word.logit - largest) / temperature);
  const rest = next.means.map((mean) => (mean - largest) / temperature);
  const weights = scaled.map(Math.exp);
  const restWeights = rest.map((x, i) => next.counts[i] * Math.exp(x));
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  const total = sum(weights) + sum(restWeights);
  const energy = sum(weights.map((w, i) => w * scaled[i])) + sum(restWeights.map((w, i) => (w ? w * rest[i] : 0)));
  return {
    words: next.words.map((word, i) => ({ ...word, p: weights[i] / total })),
    entropy: (Math.log(total) - energy / total) / Math.LN2,
  };
}

/** The token whose row says most about the head: the largest second weight, the first token and the row's own left out. */
export function clearestRow(story) {
  const score = story.pattern.map((row, t) => {
    const others = [...row].filter((_, s) => s !== 0 && s !== t && story.spans[s]).sort((a, b) => b - a);
    return (others[1] ?? 0) + 0.01 * (others[0] ?? 0);
  });
  return score.indexOf(Math.max(...score));
}

/** The columns of a row by weight, the largest first. */
export const strongest = (row, count) => [...row].map((p, column) => ({ p, column })).sort((a, b) => b.p - a.p).slice(0, count);

/** What token `t` takes from token `s` in layer `l`, over the length of its stream: the largest first. */
export function threadsOf(story) {
  const all = [];
  story.contributions.forEach((rows, l) => rows.forEach((row, t) => row.forEach((x, s) => { if (s !== t && x > 0) all.push({ l, t, s, x }); })));
  return all.sort((a, b) => b.x - a.x);
}
