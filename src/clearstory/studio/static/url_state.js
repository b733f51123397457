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

const read = () => Object.fromEntries(new URLSearchParams(location.search));

const now = signal(read());

/** What must be forgotten when something else changes: what was pinned belongs to the old sentence. */
const FORGET = {
  model: ["step", "layer", "head", "heads", "part", "target", "query", "stage", "from", "run", "edits", "word", "map", "one", "other"],
  text: ["query", "stage", "from"],
  page: ["stage"],
};

export const state = {
  get: (name) => now.get()[name] ?? null,
  number: (name) => (now.get()[name] === undefined ? null : Number(now.get()[name])),
  all: () => now.get(),
  on: now.on,
  /** Changes some names; null takes one away. `quiet` replaces the entry in the browser's history, for small moves. */
  set(changes, { quiet = false } = {}) {
    const before = now.get();
    const next = { ...before };
    for (const [name, value] of Object.entries(changes)) {
      // A first model or sentence is no other one: what a link says beside it stays.
      if (before[name] !== undefined && String(value ?? "") !== String(before[name]))
        for (const other of FORGET[name] ?? []) if (!(other in changes)) delete next[other];
      if (value === null || value === undefined || value === "") delete next[name];
      else next[name] = String(value);
    }
    const address = `?${new URLSearchParams(next)}`;
    if (address === `?${new URLSearchParams(before)}`) return;
    history[quiet ? "replaceState" : "pushState"](null, "", address);
    now.set(next);
  },
  /** The pinned tokens, as numbers. */
  pinned: () => (now.get().query ? now.get().query.split(",").map(Number) : []),
};

addEventListener("popstate", () => now.set(read()));
