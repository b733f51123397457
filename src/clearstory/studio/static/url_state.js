// State: where the reader is, in the page's address, so that a link opens the same view again.
//
//   model, step      which model, and which checkpoint of its run
//   text             the sentence
//   page             which page
//   edits            what is changed inside of the model, one a line
//   layer, head      which head; query: which tokens are pinned, as 3 or 3,7; stage: which step of a walk
//   heads, how       heads that are combined, as 5.3;5.4 x2; part, target: of an encoder-decoder
//
// A page may keep more under names of its own.

import { signal } from "./dom.js";

export const DEFAULT_TEXT = "a fluffy blue creature roamed the verdant forest";

const readUrl = () => Object.fromEntries(new URLSearchParams(location.search));

const current = signal(readUrl());

/** What must be forgotten when something else changes: what was pinned belongs to the old sentence. */
const RESET_ON_CHANGE = {
  model: ["step", "layer", "head", "heads", "part", "target", "query", "stage", "from", "run", "edits", "word", "map", "one", "other"],
  text: ["query", "stage", "from"],
  page: ["stage"],
};

export const state = {
  get: (name) => current.get()[name] ?? null,
  number: (name) => (current.get()[name] === undefined ? null : Number(current.get()[name])),
  all: () => current.get(),
  on: current.on,
  /** Changes some names; null takes one away. `quiet` replaces the entry in the browser's history, for small moves. */
  set(changes, { quiet = false } = {}) {
    const previous = current.get();
    const next = { ...previous };
    for (const [name, value] of Object.entries(changes)) {
      // A first model or sentence is no other one: what a link says beside it stays.
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
  /** The pinned tokens, as numbers. */
  pinned: () => (current.get().query ? current.get().query.split(",").map(Number) : []),
};

addEventListener("popstate", () => current.set(readUrl()));
