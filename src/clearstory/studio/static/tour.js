// Tour: six steps along the way of a sentence, told in a strip above the page; each opens the page that it speaks of. What
// it says is reckoned from the model at hand; where a family lacks something, it shows what this one has instead.

import { getJson, latestRequest, fetchArrays, postJson, ApiError, StaleResponse } from "./api.js";
import { el } from "./dom.js";
import { TINY_MODEL } from "./pages/home.js";
import { percent, visibleWhitespace } from "./format.js";

const DONE = "clearstory.tour";

/** The steps: the view that a model must be able to show, the page to open, what is said. `finds` gives more state. */
const STEPS = [
  { name: "Tokens", view: "tokens", page: "tokens", says: tokensSay },
  { name: "Embeddings", view: "embeddings", page: "embeddings", says: embeddingsSay },
  { name: "Attention", view: "heads", page: "attention", says: attentionSays },
  { name: "One head", view: "head", page: "attention", finds: findHead, says: headSays, card: "head" },
  { name: "Next token", view: "next-token", page: "next", says: nextSays },
  { name: "Generate", view: "generation", page: "generate", says: generateSays },
];

/** What is shown instead, the first that the model has. */
const INSTEAD = {
  embeddings: ["ngram-counts", "posteriors"],
  heads: ["gates", "backoff", "viterbi"],
  head: ["activations", "surprisal", "architecture"],
  "next-token": ["fill-mask", "logit-lens", "architecture"],
  generation: ["architecture"],
};

/** Whether the reader has ended a tour in this browser before. */
export function tourDone() {
  try {
    return localStorage.getItem(DONE) !== null;
  } catch {
    return true; // where nothing may be remembered, nobody is asked twice
  }
}

function remember() {
  try {
    localStorage.setItem(DONE, "done");
  } catch {
    // it begins anew next time
  }
}

/** `strip` is where it stands. update() is called when the page's address has changed. */
export function makeTour(context, strip) {
  const asking = latestRequest();
  const words = el("p", { class: "tour-words", "aria-live": "polite" });
  const place = el("span", { class: "tour-place" });
  const [back, next, end] = [button("Back", () => go(number() - 1)), button("Next", () => go(number() + 1)), button("End", finish)];
  const train = button("Train the built-in tiny model (a minute)", () => context.track(begin()));
  const parts = [place, words, el("span", { class: "buttons" }, train, back, next, end)];
  let told = null; // what is said, as one string
  let waiting = 0;
  let goal = null; // the card that a step speaks of, until it is brought into sight

  function button(text, act) {
    return el("button", { type: "button", onclick: act }, text);
  }

  const number = () => context.state.number("tour");

  function finish() {
    remember();
    clearTimeout(waiting);
    asking.drop();
    context.state.set({ tour: null }, { quiet: true });
  }

  function go(to) {
    if (to > STEPS.length) return finish();
    if (to < 1) return context.state.set({ tour: 0, page: "home" });
    return context.state.set({ tour: to, ...opened(STEPS[to - 1]) });
  }

  /** The page of a step, or of what is shown instead. */
  function opened(step) {
    const own = able(step.view) || !context.views().size;
    return { page: own ? step.page : pageOf(other(step.view)), ...(step.finds ? { layer: null, head: null } : {}) };
  }

  const able = (name) => context.views().get(name)?.able ?? false;
  const other = (name) => INSTEAD[name]?.find(able) ?? null;
  const pageOf = (view) => /** @type {HTMLElement} */ (document.querySelector(`#rail a[data-views~="${view}"]:not([data-page="compare"])`))?.dataset.page ?? "views";

  async function update() {
    const at = number();
    strip.hidden = at === null;
    if (at === null) {
      told = null;
      strip.replaceChildren();
      return;
    }
    if (!strip.firstChild) strip.replaceChildren(...parts);
    const key = JSON.stringify([at, context.model(), context.text(), context.views().size > 0]);
    if (key === told) return;
    told = key;
    back.hidden = at < 1;
    train.hidden = true;
    next.disabled = false;
    next.textContent = at === STEPS.length ? "Done" : at === 0 ? "Begin" : "Next";
    next.classList.add("strong");
    place.textContent = at ? `${at} of ${STEPS.length} · ${STEPS[at - 1]?.name ?? ""}` : "Tour";
    strip.dataset.step = at;
    try {
      say(await asking.ask((signal) => sentence(at, signal)), at);
    } catch (error) {
      if (error instanceof StaleResponse) return;
      if (!(error instanceof ApiError)) throw error;
      say(`${error.message}.`, at);
    }
  }

  function say(sentences, at) {
    words.textContent = sentences;
    strip.dataset.said = at;
  }

  async function sentence(at, signal) {
    if (!context.model()) return noModel(signal);
    if (at === 0) {
      const seen = context.traced();
      const kind = seen ? ` (${seen.family}${seen.layers ? `, ${seen.layers} layer${seen.layers === 1 ? "" : "s"}` : ""})` : "";
      return `A sentence goes in, the next word comes out. Six steps follow yours through ${context.model()}${kind}; the page stays yours all the while.`;
    }
    const step = STEPS[at - 1];
    if (!step) throw new ApiError(`the tour has ${STEPS.length} steps, and this is none of them`);
    const ask = (view, settings = {}) => postJson("view", { model: context.model(), text: context.text(), view, settings }, signal);
    if (!able(step.view)) return instead(step, ask);
    const found = step.finds ? await step.finds(context, signal) : null;
    if (found && context.state.get("layer") === null) context.state.set({ layer: found.layer, head: found.head }, { quiet: true });
    const said = await step.says(context, ask, signal, found);
    goal = step.card ?? null;
    return said;
  }

  /** A family that has no such page. */
  async function instead(step, ask) {
    const known = context.views().get(step.view);
    const seen = context.traced();
    const kind = seen?.architecture === "encoder" ? "an encoder" : seen?.family ?? "of another family";
    const lacks = `This step needs ${known?.needs ?? "another model"}; yours is ${kind}.`;
    const view = other(step.view);
    if (!view) return lacks;
    try {
      const shown = await ask(view);
      const look = shown.caption ?? shown.panels?.find((each) => each.caption)?.caption ?? "";
      return `${lacks} Here is what it has. ${shown.title}. ${look}`;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return `${lacks} The page shows what it has; of this sentence: ${error.message}.`;
    }
  }

  // ---- where there is no model yet

  async function noModel(signal) {
    const said = await getJson("models", {}, signal);
    const name = `runs/${TINY_MODEL.name}`;
    const run = said.models.find((each) => each.name === name);
    next.disabled = true;
    if (run && !run.note && !said.training.includes(name)) {
      await context.reload();
      setTimeout(() => context.state.set({ model: name, tour: 1, page: "tokens" }));
      return "It has learnt.";
    }
    if (said.training.includes(name)) {
      clearTimeout(waiting);
      waiting = setTimeout(() => ((told = null), number() !== null && context.track(update())), 1500);
      return "The tiny model is learning from the King James Bible; the tour goes on by itself when it is ready, in about a minute.";
    }
    train.hidden = false;
    return "There is no model in this folder yet. A tiny one can be trained here in a minute; the tour then goes on by itself.";
  }

  async function begin() {
    train.hidden = true;
    try {
      await postJson("runs", TINY_MODEL);
      told = null;
      await update();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      say(`${error.message}.`, 0);
    }
  }

  /** Brings what is spoken of into sight, when all above it is painted. */
  function settle() {
    if (goal) document.querySelector(`[data-card="${goal}"]`)?.scrollIntoView({ block: "start" });
    goal = null;
  }

  return { update, settle, begin: () => context.state.set({ tour: 0, page: "home" }) };
}

// ---- what the steps say

function tokensSay(context) {
  const [tokens, text] = [context.tokens(), context.text()];
  const found = [...text.matchAll(/\S+/gu)].map((match) => {
    // Places are told in characters, as Python counts them.
    const start = [...text.slice(0, match.index)].length;
    const stop = start + [...match[0]].length;
    return { word: match[0], pieces: tokens.filter((each) => each.start < stop && each.stop > start).length };
  });
  const most = found.reduce((a, b) => (b.pieces > a.pieces ? b : a), { word: "", pieces: 0 });
  const whole = found.filter((each) => each.pieces === 1).length;
  const split = most.pieces > 1 ? `‘${most.word}’ falls into ${most.pieces}, and ${whole || "none"} of ${found.length} words ${whole === 1 ? "is" : "are"} one token each` : "each word is one";
  return `A model reads no letters but tokens, numbered pieces of text. Your sentence is ${tokens.length} of them, from a vocabulary of ${context.traced()?.vocab.toLocaleString("en-US")}: ${split}.`;
}

async function embeddingsSay(context, ask) {
  const seen = await ask("embeddings");
  const first = `Each token is looked up: its number leads to a vector that was learnt. ${seen.title}.`;
  const word = context.word();
  try {
    const near = await postJson("view", { model: context.model(), text: word, view: "neighbours", settings: { top: 1 } });
    const table = near.kind === "table" ? near : near.panels?.find((each) => each.kind === "table");
    const [piece] = table.rows[0];
    const cosine = table.rows[0][table.columns.findIndex((name) => name.startsWith("cosine"))];
    return `${first} Words used alike point the same way: nearest to ‘${visibleWhitespace(word)}’ is ‘${piece}’, with a cosine of ${cosine.toFixed(2)}.`;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return first;
  }
}

/** Where a head of a kind looks. */
const LOOKS = {
  previous: "at the token before",
  next: "at the token after",
  first: "at the first token",
  last: "at the last token",
  same: "at the same token",
  induction: "at what followed the last time",
  diffuse: "at all alike",
  unclear: "at nothing clearly",
};

const measured = (context, signal) => fetchArrays({ model: context.model(), text: context.text(), what: "measures", settings: {} }, signal);

async function attentionSays(context, ask, signal) {
  const made = await measured(context, signal);
  const all = made.names.flat();
  const counts = made.kinds.map((kind) => [kind, all.filter((each) => each === kind).length]).filter(([, count]) => count);
  counts.sort((a, b) => b[1] - a[1]);
  const said = counts.slice(0, 3).map(([kind, count]) => `${count} ${LOOKS[kind] ?? kind}`).join(", ");
  return `In attention each token takes from those that it may see. Here are all ${all.length} heads, ${made.names.length} layers of ${made.names[0].length}; by where they caption: ${said}.`;
}

/**
 * The head that does most clearly what it does. One that merely rests on a token or spreads tells little; what looks for
 * repetitions does so where something comes again.
 */
async function findHead(context, signal) {
  const made = await measured(context, signal);
  const [layers, heads, kinds] = made.scores.shape;
  const ids = context.tokens().map((each) => each.id);
  const dull = new Set(["first", "last", "diffuse", ...(new Set(ids).size === ids.length ? ["induction", "same"] : [])]);
  let best = null;
  for (let layer = 0; layer < layers; layer++)
    for (let head = 0; head < heads; head++)
      for (let kind = 0; kind < kinds; kind++) {
        const score = made.scores.values[(layer * heads + head) * kinds + kind];
        if (!dull.has(made.kinds[kind]) && (best === null || score > best.score)) best = { layer, head, kind: made.kinds[kind], score, clear: score >= made.thresholds[made.kinds[kind]] };
      }
  return best;
}

function headSays(context, ask, signal, found) {
  const own = context.state.number("layer") === found.layer && context.state.number("head") === found.head;
  const score = `a share of ${found.score.toFixed(2)} ${LOOKS[found.kind]}`;
  const why = `Layer ${found.layer}, head ${found.head} was chosen because it is the ${found.clear ? "clearest" : "least unclear"}: it looks with ${score}, more than any other.`;
  return `${why} ${own ? "The walk below goes" : "The walk goes"} from what it reads to what it adds: queries, keys, their products, softmax, values.`;
}

async function nextSays(context, ask, signal) {
  const said = await postJson("next", { model: context.model(), text: context.text(), show: 2 }, signal);
  const [one, two] = said.rows;
  return `What the model knows after the last token becomes a probability for each of ${said.vocab.toLocaleString("en-US")}. Likeliest after your sentence is ‘${one.piece}’ with ${percent(one.probability)}${two ? `, then ‘${two.piece}’ with ${percent(two.probability)}` : ""}; the model is as unsure as among ${(2 ** said.entropy).toFixed(1)} equally likely tokens.`;
}

async function generateSays(context, ask) {
  const seen = await ask("generation", { max_tokens: 8, temperature: 0 });
  const spans = seen.panels[0].spans.filter((each) => each.value !== null);
  const written = spans.map((each) => each.text).join("");
  return `What was chosen is read like the rest, and the next is asked for. Always taking the likeliest, ${spans.length} tokens on, it writes ‘${visibleWhitespace(written)}’; Play draws them instead.`;
}
