// Picture: one sentence from its tokens to the next token, and round again. This module holds its state and joins its parts.

import { el } from "../dom.js";
import { buildFrame, placeAt } from "./frame.js";
import { axisBox, wire } from "./gestures.js";
import { drawGrid, drawLinks } from "./grid_drawing.js";
import { drawColumns, drawDrawer, drawNotes, drawRows, drawValues } from "./layer_drawing.js";
import { layout } from "./layout.js";
import { palette } from "./paint.js";
import { fillBars, fillHeads, fillSentence, fillSpans, fillTables, narrate } from "./panels.js";
import { focusRow, parseSelection, selectionText } from "./selection.js";
import { overview, steps } from "./steps.js";
import { clearestRow, distribution, threadsOf } from "./story.js";
import { drawLast, drawStreams, drawTaken, drawVectors, drawWords } from "./stream_drawing.js";
import { drawStrips } from "./strips.js";
import { ALL, STEP, makeClock, stepAt } from "./timeline.js";

/**
 * A picture in an element. `ask` is what it wants from the page around it:
 * openHead(layer, head), pin(selection), keep(changes of the address), edit(text), window(action), next(token) -> Promise<boolean>
 * @param {HTMLElement} root
 * @param {any} ask
 */
export function makePicture(root, ask) {
  const frame = buildFrame(ask.address, ask.openPage);
  /** @type {any} */
  const p = {
    ...frame, pinnedLine: frame.pinned, textLines: frame.lines, temperature_input: frame.temperature, // elements
    ctx: frame.canvas.getContext("2d"), story: null, storyNumber: 0, at: ALL, playing: false, round: 0, drawn: [],
    hover: null, pinned: null, chosenRow: null, pointer: null, temperature: 1, taken: null, note: "", lines: [], dirty: false, cannotDraw: null,
  };
  root.replaceChildren(frame.root);
  let waiting = null; // the next row: null, "pending", "ready"
  let once = false; // whether the round that plays is the last one

  const clock = makeClock(p, { paint, enter, end, rest });
  const unwire = wire(p, clock, { point, pin, draw, openHead: ask.openHead, temperature: setTemperature, edit, span: ask.window });
  p.showDoor = (page) => {
    p.door.textContent = `Open: ${ask.pageName(page)}`;
    p.door.href = ask.address(page);
    p.door.onclick = (event) => ask.openPage(page, event);
  };

  // ---- what is shown

  /** Shows a story; `changes` are fields of the picture that belong to it. */
  function show(story, changes = {}) {
    Object.assign(p, { story, hover: null, taken: null, note: "" }, changes);
    p.storyNumber++;
    p.clearest = clearestRow(story);
    p.threads = threadsOf(story);
    if (p.pinned) p.pinned = parseSelection(selectionText(p.pinned), story);
    fillSentence(p);
    fillSpans(p);
    renew();
    place();
    fillHeads(p);
  }

  /** What depends on the temperature. */
  function renew() {
    const { story } = p;
    const found = story.next && distribution(story.next, p.temperature);
    p.words = found?.words ?? null;
    p.entropy = found?.entropy ?? null;
    fillBars(p);
    fillTables(p);
    retell();
  }

  /** The texts of the steps, which speak of the marked row and of the drawn token. */
  function retell() {
    p.lines = [...steps(p, focusRow(p)), overview(p)];
    p.narrated = -1;
    p.dirty = true;
  }

  function place() {
    if (!p.story || !frame.root.clientWidth) return;
    const width = frame.root.clientWidth;
    const top = frame.stage.querySelector(".picture-top");
    const room = Math.max(420, innerHeight - (frame.stage.getBoundingClientRect().top + scrollY) - 4);
    p.box = layout({ width, height: room, top: /** @type {HTMLElement} */ (top).offsetHeight + 2, n: p.story.n, heads: p.story.heads });
    const { box } = p;
    frame.root.style.setProperty("--u", String(box.u));
    frame.root.classList.toggle("narrow", box.narrow);
    const ratio = Math.min(devicePixelRatio || 1, 2);
    p.canvas.width = Math.round(width * ratio);
    p.canvas.height = Math.round(box.height * ratio);
    placeAt(p.canvas, { x: 0, y: 0, w: width, h: box.height });
    frame.stage.style.setProperty("height", `${box.height}px`);
    p.ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    [...p.chips.children].forEach((chip, t) => placeAt(chip, box.chip(t)));
    [...p.small.children].forEach((button, i) => placeAt(button, box.small[i]));
    placeAt(p.grid, box.grid);
    placeAt(p.axis, axisBox(p));
    placeAt(p.next, box.bars);
    placeAt(p.headBar, box.headBar);
    if (box.side) placeAt(p.side, box.side);
    else for (const name of ["left", "top", "width", "height"]) p.side.style.removeProperty(name);
    for (const title of p.titles) {
      const spot = box.title[title.dataset.part];
      title.hidden = !spot;
      if (spot) [title.style.left, title.style.top] = [`${spot[0]}px`, `${spot[1]}px`];
    }
    for (const title of p.titles) if (title.dataset.part === "stream") title.firstChild.textContent = box.narrow ? `${p.story.layers} layers` : `Stream through ${p.story.layers} layer${p.story.layers === 1 ? "" : "s"}`;
    const base = frame.stage.getBoundingClientRect().top;
    p.barMiddles = [...p.bars.children].map((bar) => bar.getBoundingClientRect()).map((r) => r.top - base + r.height / 2); // asking in every frame would cost a layout
    p.colours = palette(frame.root);
    p.art = drawStrips(p.story, p.colours);
    p.dirty = true;
  }

  function paint() {
    p.ctx.clearRect(0, 0, p.box.width, p.box.height);
    p.ctx.imageSmoothingEnabled = false;
    drawDrawer(p);
    drawVectors(p);
    drawWords(p);
    drawStreams(p);
    drawRows(p);
    drawGrid(p);
    drawColumns(p);
    drawNotes(p);
    drawValues(p);
    drawLinks(p);
    drawLast(p);
    drawTaken(p);
    narrate(p);
  }

  // ---- time

  /** A step begins: on a phone the page follows it; a token is drawn in the last one. */
  function enter(step, cause) {
    if (p.box?.narrow && cause !== "open") {
      const { opened, tail, bars } = p.box.scroll;
      const goal = step >= STEP.next && step < ALL ? bars : step >= STEP.add && step < STEP.onward ? tail : step >= STEP.open && step < STEP.add ? opened : 0;
      const base = frame.stage.getBoundingClientRect().top + scrollY;
      scrollTo({ top: goal ? base + goal - 60 : 0, behavior: clock.still() ? "auto" : "smooth" });
    }
    if (step !== STEP.draw || cause === "jump" || cause === "open" || p.taken || !p.words || p.cannotDraw) return undefined;
    if (once) {
      once = false;
      return clock.jump(ALL);
    }
    return take(sampled());
  }

  function sampled() {
    const total = p.words.reduce((sum, word) => sum + word.p, 0);
    let r = Math.random() * total;
    p.note = total < 0.99 ? `Drawn among the ${p.words.length} likeliest tokens, which have ${(100 * total).toFixed(0)}%.` : "";
    return p.words.find((word) => (r -= word.p) <= 0) ?? p.words[0];
  }

  function take(word) {
    p.taken = word;
    waiting = "pending";
    retell();
    return ask.next(word).then(
      (begin) => (waiting = begin),
      () => {
        waiting = null;
        p.taken = null;
        p.playing = false;
      },
    );
  }

  /** The round is over. The next begins when its row has come; without one everything is shown. */
  function end() {
    if (waiting === "pending") return false;
    const begin = waiting;
    waiting = null;
    if (begin) {
      p.at = clock.still() ? ALL : 0;
      begin();
      if (clock.still()) p.playing = false;
    } else {
      p.playing = false;
      p.at = ALL;
    }
    p.dirty = true;
    if (!p.playing) rest();
    return true;
  }

  function rest() {
    frame.root.dataset.at = String(Math.round(p.at * 1e4) / 1e4);
    ask.keep({ at: p.at >= ALL ? null : Math.round(p.at * 1e4) / 1e4 });
  }

  // ---- hands

  function point(h) {
    if (JSON.stringify(h) === JSON.stringify(p.hover)) return moveTip();
    p.hover = h;
    p.dirty = true;
    ask.hoverRow(h?.kind === "small" ? null : (h?.row ?? null));
    return moveTip();
  }

  /** The tip stands beside the pointer, on the side where there is room. */
  function moveTip() {
    requestAnimationFrame(() => {
      if (p.tip.hidden || !p.pointer) return;
      const [w, h] = [p.tip.offsetWidth, p.tip.offsetHeight];
      const x = p.pointer.x + 18 + w > p.box.width ? p.pointer.x - w - 14 : p.pointer.x + 18;
      const y = p.pointer.y + 22 + h > p.box.height ? p.pointer.y - h - 12 : p.pointer.y + 22;
      [p.tip.style.left, p.tip.style.top] = [`${Math.max(4, x)}px`, `${Math.max(4, y)}px`];
    });
  }

  function pin(h, always = false) {
    p.pinned = h && (always || JSON.stringify(h) !== JSON.stringify(p.pinned)) ? h : null;
    if (p.story) {
      retell();
      fillHeads(p);
    }
    ask.pin(p.pinned);
  }

  /** Appends the k-th of the bars, or a token drawn by the probabilities. */
  function draw(k) {
    if (!p.story || !p.words || p.cannotDraw || waiting === "pending") return;
    const coming = take(k === null ? sampled() : p.words[k]);
    p.hover = null;
    p.pinned = null;
    p.dirty = true;
    if (clock.still()) return void coming.then(end);
    once = true;
    p.at = STEP.draw;
    p.playing = true;
  }

  function setTemperature(value) {
    p.temperature = value;
    renew();
    ask.keep({ temperature: value === 1 ? null : value });
  }

  /** The sentence becomes a text field in its place. */
  function edit() {
    p.reading.hidden = true;
    p.editor.hidden = false;
    p.editor.value = ask.text();
    p.editor.focus();
    p.editor.setSelectionRange(p.editor.value.length, p.editor.value.length);
    grow();
    place();
  }
  const grow = () => {
    p.editor.style.setProperty("height", "auto");
    p.editor.style.setProperty("height", `${Math.min(p.editor.scrollHeight + 2, 160)}px`);
  };
  const closeEditor = () => {
    if (p.editor.hidden) return;
    p.editor.hidden = true;
    p.reading.hidden = false;
    place();
  };
  p.editor.oninput = () => (grow(), place());
  p.editor.onblur = closeEditor;
  p.editor.onkeydown = (event) => {
    if (event.key === "Escape") closeEditor();
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    closeEditor();
    ask.edit(p.editor.value);
  };

  let resizing = 0;
  const resized = () => {
    cancelAnimationFrame(resizing);
    resizing = requestAnimationFrame(place);
  };
  const watcher = new ResizeObserver(resized);
  watcher.observe(root);
  addEventListener("resize", resized);
  document.addEventListener("theme", resized);
  clock.start();

  return {
    p, clock, show, renew, place,
    /** A notice in place of the picture, or none. */
    notice(text) {
      frame.notice.hidden = !text;
      frame.notice.textContent = text ?? "";
      frame.stage.hidden = frame.numbers.hidden = Boolean(text) && !p.story;
    },
    stepAt: () => stepAt(p),
    playOnce() {
      once = true;
      clock.play(true);
    },
    destroy() {
      clock.stop();
      unwire();
      watcher.disconnect();
      removeEventListener("resize", resized);
      document.removeEventListener("theme", resized);
      root.replaceChildren(el("p", {}));
    },
  };
}
