// One sentence: the page of the living picture. It reads the address, asks for passes and rows, and keeps what is chosen.

import { ApiError, StaleResponse, fetchArrays, latestRequest } from "../api.js";
import { makePicture } from "../picture/picture.js";
import { fitsAnotherRow, passRequest, readAddress, rowLimit, rowRequest } from "../picture/requests.js";
import { parseSelection, selectionText } from "../picture/selection.js";
import { appendRow, causal, readStory } from "../picture/story.js";
import { ALL } from "../picture/timeline.js";

const FAMILIES = { recurrent: "a recurrent network", hmm: "a hidden Markov model", ngram: "an n-gram model", mixture: "a mixture of models" };

let played = false; // the picture plays by itself once a visit
let opened = false; // whether a sentence was shown in this visit

export function mount(root, context) {
  const { state } = context;
  const requests = latestRequest();
  const rowRequests = latestRequest();
  let key = null; // of the request that the picture shows or waits for
  let identity = null; // of the model and the sentence
  let restart = false; // whether the next story is of another sentence
  let pointing = false; // whether the picture itself sets the hovered token

  const picture = makePicture(root, {
    address: (page) => `?${new URLSearchParams({ ...state.all(), page })}`,
    pageName,
    openPage(page, event) {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      context.go(page);
    },
    text: () => context.text(),
    edit: (text) => text !== "" && state.set({ text }),
    openHead: (layer, head) => state.set({ layer, head }),
    keep: (changes) => state.set(changes, { quiet: true }),
    hoverRow(row) {
      pointing = true;
      context.hoveredToken.set(row === null ? null : position(row));
      pointing = false;
    },
    pin: (selection) => state.set({ pin: selectionText(selection), query: selection ? position(selection.row) : null }, { quiet: true }),
    window: moveWindow,
    next: nextRow,
  });
  const { p } = picture;

  /** The token that a row stands for. */
  const position = (row) => (p.story && row < p.story.n ? p.story.spans[row][1] - 1 : null);

  const unsubscribe = context.hoveredToken.on((at) => {
    if (!p.story || pointing) return;
    const row = at === null ? -1 : p.story.spans.findIndex(([start, stop]) => start <= at && at < stop);
    p.hover = row < 0 ? null : { kind: "token", row };
    p.dirty = true;
  });

  const limit = () => rowLimit(root.clientWidth || innerWidth);
  const request = (changes = {}) => passRequest(context, { ...readAddress(context), ...changes }, limit());

  async function update() {
    if (!context.model()) return picture.notice("There is no model yet. Train one, or link a folder with one, on the page Home.");
    const now = JSON.stringify([state.get("model"), context.text(), context.prompt()]);
    const isNew = identity !== now;
    if (isNew && identity !== null && ["drawn", "pin", "rows", "at"].some((name) => state.get(name) !== null)) {
      identity = now;
      restart = true;
      p.pinned = null;
      return state.set({ drawn: null, pin: null, rows: null, at: null }, { quiet: true });
    }
    if (readsAsMessage()) return state.set({ raw: 1 }, { quiet: true });
    const body = request();
    const wanted = JSON.stringify(body);
    if (wanted === key) return follow();
    const begins = identity === null || isNew || restart || p.story === null;
    [key, identity] = [wanted, now];
    p.root.setAttribute("aria-busy", "true");
    try {
      const answer = await requests.run((signal) => fetchArrays(body, signal));
      restart = false;
      receive(answer, begins);
    } catch (error) {
      if (error instanceof StaleResponse) throw error;
      key = null;
      if (!(error instanceof ApiError)) throw error;
      if (isNew) p.story = null; // what is drawn is of another text
      picture.notice(error.message);
    } finally {
      if (key === wanted || key === null) p.root.removeAttribute("aria-busy");
    }
  }

  /** Whether the example sentence would be read as a user's message: a visit begins with the sentence itself. */
  function readsAsMessage() {
    const fresh = !opened && ["text", "raw", "system"].every((name) => state.get(name) === null);
    opened = true;
    return fresh && Boolean(context.trace()?.prompt?.chat);
  }

  function receive(answer, begins) {
    if (answer.kind !== "transformer" || !answer.parts.includes("decoder") || answer.parts.length > 1) {
      p.story = null;
      const family = FAMILIES[answer.kind] ?? "a Transformer with an encoder";
      return picture.notice(`This picture is drawn for Transformer decoders, and this model is ${family}. The other pages of the rail show it.`);
    }
    picture.notice(null);
    const story = readStory(answer);
    context.keepHead(story.layer, story.head);
    const { drawn } = readAddress(context);
    p.temperature = Math.min(2, Math.max(0.1, state.number("temperature") ?? 1));
    picture.show(story, { drawn, round: 0, cannotDraw: reason(story), chosenRow: drawn.length ? story.n - 1 : null, source: context.trace()?.prompt?.chat ? null : [...context.text()] });
    follow();
    const at = state.number("at");
    if (begins && at === null && !played && !picture.clock.still()) {
      played = true;
      p.at = 0;
      return picture.playOnce();
    }
    if (begins) picture.clock.jump(at ?? ALL, "open");
    return undefined;
  }

  /** Takes over what the address says beside the request: the pinned part and the temperature. */
  function follow() {
    if (!p.story) return;
    const pinned = parseSelection(state.get("pin"), p.story);
    const marked = state.pinned()[0];
    const row = marked === undefined ? -1 : p.story.spans.findIndex(([start, stop]) => start <= marked && marked < stop);
    const temperature = Math.min(2, Math.max(0.1, state.number("temperature") ?? 1));
    const chosen = pinned && (row < 0 || row === pinned.row) ? pinned : row >= 0 ? { kind: "token", row } : null;
    if (JSON.stringify(chosen) === JSON.stringify(p.pinned) && temperature === p.temperature) return;
    p.pinned = chosen;
    p.temperature = temperature;
    picture.renew();
  }

  /** Why no token can be appended; null if it can. */
  function reason(story) {
    if (!story.next || !causal(story)) return "This model predicts no next token";
    if (story.spans.at(-1)[1] !== story.tokens.length) return "The rows end before the text does: show the whole text, or its end, to append a token";
    return null;
  }

  /** Asks for the row of a token; the promise is kept with what shows the next round. */
  async function nextRow(word) {
    const { story } = p;
    const drawn = [...p.drawn, word.id];
    const single = fitsAnotherRow(story, limit());
    const { rows } = readAddress(context);
    const moved = rows && { rows: [rows[0] + 1, rows[1] + 1] };
    const body = single ? rowRequest(context, story, drawn, limit()) : request({ drawn, ...moved, layer: story.layer, head: story.head });
    try {
      const answer = await context.track(rowRequests.run((signal) => fetchArrays(body, signal)));
      return () => {
        const joined = single ? appendRow(story, answer) : readStory(answer);
        key = JSON.stringify(request({ drawn, ...moved }));
        state.set({ drawn: drawn.join("."), at: null, pin: null, query: null, ...(moved ? { rows: moved.rows.join(".") } : {}) }, { quiet: true });
        picture.show(joined, { drawn, round: p.round + 1, pinned: null, chosenRow: joined.n - 1, cannotDraw: reason(joined) });
      };
    } catch (error) {
      if (error instanceof ApiError) {
        p.note = error.message;
        p.cannotDraw = error.message;
        picture.renew();
      }
      throw error;
    }
  }

  /** Zooms into single tokens, moves along them, or shows the whole text. */
  function moveWindow(action) {
    const { story } = p;
    const total = story.tokens.length;
    const size = Math.min(limit(), total);
    const [start] = story.spans[0];
    const marked = p.pinned ? story.spans[p.pinned.row][0] - Math.floor(size / 2) : total;
    const first = { zoom: marked, back: start - size, forth: start + size, whole: 0 }[action];
    const from = Math.max(0, Math.min(total - size, first));
    p.pinned = null;
    state.set({ rows: action === "whole" ? null : `${from}.${from + size}`, pin: null, query: null });
  }

  return {
    update,
    back: update,
    destroy() {
      requests.cancel();
      rowRequests.cancel();
      unsubscribe();
      picture.destroy();
    },
  };
}

const PAGES = { tokens: "Tokens", embeddings: "Embeddings", "residual-stream": "Stream", attention: "Attention", "next-token": "Next token", generate: "Generate", interventions: "Experiment" };

/** The name of a page, as the rail says it. */
function pageName(page) {
  const link = document.querySelector(`a[data-page="${page}"]`);
  return link?.textContent ?? PAGES[page];
}

