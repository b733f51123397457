// Strips: the numbers of a story as images, on scales that make parts comparable.
//
// Streams are over their rms, full colour at four times the median. Σ p·V is on the scale of V, and both changes are on one
// scale, an eighth of the stream's: a head that does little looks pale.

import { fullAt, image } from "./paint.js";

export function drawStrips(s, colours) {
  const { pos, neg, soft, query, key, value, delta } = colours;
  const each = (rows, up, down, full = fullAt(rows)) => rows.map((row) => image([row], up, down, full));
  const full = fullAt(s.stream.flat().filter((_, i) => i % 3 === 0));
  const bands = [...s.stream[0][0].keys()].filter((i) => i % 2 === 0 || s.dimensions.length <= 16);
  return {
    embedding: each(s.stream[0], pos, neg, full),
    ribbon: s.labels.map((_, t) => image(bands.map((i) => s.stream.map((rows) => rows[t][i])), pos, neg, full)),
    slice: each(s.before, pos, neg, full),
    before: each(s.before, pos, neg, full),
    query: each(s.query, query, soft), key: each(s.key, key, soft), value: each(s.value, value, soft),
    output: each(s.output, value, soft, fullAt(s.value)),
    added: each(s.added, delta, soft, full / 8),
    afterAttention: each(s.afterAttention, pos, neg, full),
    feedForward: each(s.feedForwardAdded, delta, soft, full / 8),
    after: each(s.after, pos, neg, full),
    final: each(s.final, pos, neg),
    largestDot: Math.max(1e-9, ...s.dots.flatMap((row) => [...row].filter(Number.isFinite).map(Math.abs))),
    small: s.patterns[s.layer].map((rows) => image(rows.map((row) => [...row].map((byte) => byte / 255)), query, query, 0.8)),
  };
}
