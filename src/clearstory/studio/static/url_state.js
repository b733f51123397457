// URL state: the selected model, text, page and tokens in the query string, so that a link opens the same page again.
//
//   model, step      the model, and the checkpoint of its run
//   text             the sentence
//   raw, system      1: no chat template; the system message. specials=0: no special tokens around the text
//   page             the page
//   interventions    interventions on the model, one per line
//   layer, head      the attention head; query: pinned tokens, as 3 or 3,7; panel: the panel of a report
//   drawn, rows, at  in the picture of one sentence: the ids of drawn tokens, the window of tokens, the point of the round
//   pin              the pinned part of that picture, as grid.3.2
//   heads, reduce    combined heads, as 5.3;5.4 x2, and the reduction; part, target: for an encoder-decoder
//
// Pages may store more under names of their own.

import { signal } from "./dom.js";

export const DEFAULT_TEXT = "a fluffy blue creature roamed the verdant forest";

const readUrl = () => Object.fromEntries(new URLSearchParams(location.search));

const current = signal(readUrl());

/** Names that are reset when another name changes: pinned tokens belong to the old sentence. */
const RESET_ON_CHANGE = {
  model: ["step", "raw", "system", "layer", "head", "heads", "part", "target", "query", "panel", "first_token", "run", "interventions", "word", "words", "axis_from", "axis_to", "drawn", "pin", "rows", "at"],
  text: ["query", "panel", "first_token", "drawn", "pin", "rows", "at"],
  page: ["panel"],
};

export const state = {
  get: (name) => current.get()[name] ?? null,
  number: (name) => (current.get()[name] === undefined ? null : Number(current.get()[name])),
  all: () => current.get(),
  on: current.on,
  /** Changes some names; null removes one. `quiet` replaces the entry in the browser's history, for small changes. */
  set(changes, { quiet = false } = {}) {
    const previous = current.get();
    const next = { ...previous };
    for (const [name, value] of Object.entries(changes)) {
      // Setting a first model or sentence resets nothing: the other values of a link are kept.
      if (previous[name] !== undefined && String(value ?? "") !== String(previous[name]))
        for (const other of RESET_ON_CHANGE[name] ?? []) if (!(other in changes)) delete next[other];
      if (value === null || value === undefined || value === "") delete next[name];
      else next[name] = String(value);
    }
    const url = `?${new URLSearchParams(next)}`;
    if (url === `?${new URLSearchParams(previous)}`) return;
    history[quiet ? "replaceState" : "pushState"](null, "", url);
    current.set(next);
  },
  /** Positions of the pinned tokens. */
  pinned: () => (current.get().query ? current.get().query.split(",").map(Number) : []),
};

addEventListener("popstate", () => current.set(readUrl()));
