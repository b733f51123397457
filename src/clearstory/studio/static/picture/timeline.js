// Timeline: where in a round the picture is, how far each part of each row has come, and the clock that moves it.

import { ease } from "./paint.js";

/** The steps of a round by number. */
export const STEP = { tokens: 0, vectors: 1, stream: 2, open: 3, project: 4, dots: 5, mask: 6, softmax: 7, values: 8, add: 9, feedForward: 10, onward: 11, next: 12, draw: 13 };

/** The number of steps; a picture at this point shows everything. */
export const ALL = 14;

/** Where a step rests once it has been walked through. */
export const END = 0.9995;

const SECONDS = [2.4, 2.4, 3.6, 2.2, 2.6, 3.2, 2.8, 2.4, 3.4, 2.8, 2.8, 3.4, 2.8, 2.4];

export const stepAt = (p) => Math.min(ALL, Math.floor(p.at + 0.0001));

/** Whether a row belongs to an earlier round: it does not move any more. */
const settled = (p, row) => p.round > 0 && row < p.story.n - 1;

/** How far a part of a row has come in a step, from 0 to 1; later rows follow a little behind. */
export function arrival(p, step, row = 0, spread = 0.5) {
  const now = Math.floor(p.at);
  if (settled(p, row)) return 1;
  if (now !== step) return now > step ? 1 : 0;
  const late = p.round ? 0 : (spread * row) / p.story.n;
  return ease(((p.at - now) * 1.02 - late) / (1 - spread + 1e-9 + (p.round ? spread : 0)));
}

/** How far a row has come in a stretch of one step, which is given by its start and end from 0 to 1. */
export function stretch(p, step, row, from, to) {
  const now = Math.floor(p.at);
  if (settled(p, row) || now > step) return 1;
  if (now < step) return 0;
  const late = p.round ? 0 : (0.45 * (to - from) * row) / p.story.n;
  return ease((p.at - now - from - late) / ((to - from) * 0.55));
}

/** How far a cell of the grid has come in the step of the dot products. */
export function cellArrival(p, row, column) {
  const now = Math.floor(p.at);
  const n = p.story.n;
  if (settled(p, row) || now > STEP.dots) return 1;
  if (now < STEP.dots) return 0;
  const late = p.round ? column / n : (row * n + column) / (n * n);
  return ease(((p.at - now) * 1.15 - late) * 8);
}

/** The cell whose product is made now. */
export function cellNow(p) {
  const n = p.story.n;
  const f = (p.at - Math.floor(p.at)) * 1.15;
  if (p.round) return { row: n - 1, column: Math.min(n - 1, Math.floor(f * n)) };
  const k = Math.min(n * n - 1, Math.floor(f * n * n));
  return { row: Math.floor(k / n), column: k % n };
}

/**
 * The clock. It paints only when something moves or has changed.
 * @param {any} p the picture
 * @param {{paint: () => void, enter: (step: number, cause: "clock"|"step"|"jump"|"open") => void, end: () => boolean, rest: () => void}} hands `enter`: a step begins;
 *   `end`: the round is over, true when the next one can begin; `rest`: the picture stands still
 */
export function makeClock(p, hands) {
  let glide = null; // where a single step comes to rest
  let before = 0;
  let held = 0;
  let frame = 0;
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  function tick(now) {
    const passed = Math.min(0.1, (now - before) / 1000 || 0);
    before = now;
    if (p.story && (p.playing || glide !== null)) advance(passed);
    if (p.dirty && p.story) {
      p.dirty = false;
      hands.paint();
    }
    frame = requestAnimationFrame(tick);
  }

  function advance(passed) {
    const was = stepAt(p);
    if (still.matches && p.playing) {
      held += passed;
      if (held < 1.2 * SECONDS[Math.min(ALL - 1, was)]) return;
      held = 0;
      p.at = was + 1 >= ALL ? ALL : was + 1 + END;
    } else {
      const rate = (glide === null ? 1 : 1.4) / SECONDS[Math.min(ALL - 1, was)];
      p.at = Math.min(glide ?? ALL, p.at + passed * rate);
    }
    if (stepAt(p) !== was) hands.enter(stepAt(p), "clock");
    if (glide !== null && p.at >= glide) {
      glide = null;
      hands.rest();
    } else if (p.at >= ALL && !hands.end()) p.at = ALL - 1 + END; // the next row is still being computed
    p.dirty = true;
  }

  return {
    still: () => still.matches,
    start() {
      if (!frame) frame = requestAnimationFrame(tick);
    },
    stop() {
      cancelAnimationFrame(frame);
      frame = 0;
    },
    /** Plays, or pauses where it is. */
    play(on) {
      if (on && p.at >= ALL) p.at = 0;
      p.playing = on;
      glide = null;
      held = 99;
      p.dirty = true;
      if (!on) hands.rest();
      else hands.enter(stepAt(p), "step");
    },
    /** One step on or back, at rest where the step has ended; forward the values move there. */
    go(by) {
      p.playing = false;
      if (p.at >= ALL) p.at = by > 0 ? 0 : ALL - 0.001;
      const now = Math.floor(p.at + 0.002);
      glide = null;
      if (by < 0) p.at = now === 0 ? 0 : now - 1 + END;
      else if (now >= ALL || (by > 0 && now === ALL - 1 && p.at >= ALL - 0.01)) {
        p.at = ALL;
        hands.end();
      } else if (still.matches) p.at = now + END;
      else glide = now + END;
      hands.enter(stepAt(p), "step");
      p.dirty = true;
      if (glide === null) hands.rest();
    },
    /** Jumps to a point of the round; a page that opens there stays at its top. */
    jump(at, cause = /** @type {"jump"|"open"} */ ("jump")) {
      p.playing = false;
      glide = null;
      p.at = Math.max(0, Math.min(ALL, at));
      hands.enter(stepAt(p), cause);
      p.dirty = true;
      hands.rest();
    },
  };
}
