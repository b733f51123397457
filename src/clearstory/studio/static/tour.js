// Tour: six steps along the way of a sentence, told in a strip above the page; each opens the page that it speaks of. What
// it says is reckoned from the model at hand; where a family lacks something, it shows what this one has instead.

import { getJson, latestRequest, fetchArrays, postJson, ApiError, StaleResponse } from "./api.js";
import { el } from "./dom.js";
import { TINY_MODEL } from "./pages/home.js";
import { percent, visibleWhitespace } from "./format.js";

const DONE_KEY = "clearstory.tour";

/** The steps: the view that a model must be able to show, the page to open, what is said. `finds` gives more state. */
const STEPS = [
  { name: "Tokens", view: "tokens", page: "tokens", description: describeTokens },
  { name: "Embeddings", view: "embeddings", page: "embeddings", description: describeEmbeddings },
  { name: "Attention", view: "heads", page: "attention", description: describeAttention },
  { name: "One head", view: "head", page: "attention", finds: findHead, description: describeHead, card: "head" },
  { name: "Next token", view: "next-token", page: "next", description: describeNextToken },
  { name: "Generate", view: "generation", page: "generate", description: describeGeneration },
];

/** What is shown instead, the first that the model has. */
const ALTERNATIVE_VIEWS = {
  embeddings: ["ngram-counts", "posteriors"],
  heads: ["gates", "backoff", "viterbi"],
  head: ["activations", "surprisal", "architecture"],
  "next-token": ["fill-mask", "logit-lens", "architecture"],
  generation: ["architecture"],
};

/** Whether the reader has ended a tour in this browser before. */
export function tourDone() {
  try {
    return localStorage.getItem(DONE_KEY) !== null;
  } catch {
    return true; // where nothing may be remembered, nobody is asked twice
  }
}

function markDone() {
  try {
    localStorage.setItem(DONE_KEY, "done");
  } catch {
    // it begins anew next time
  }
}

/** `strip` is where it stands. update() is called when the page's address has changed. */
export function makeTour(context, strip) {
  const requests = latestRequest();
  const sentenceBox = el("p", { class: "tour-words", "aria-live": "polite" });
  const progress = el("span", { class: "tour-place" });
  const [back, next, end] = [button("Back", () => go(currentStep() - 1)), button("Next", () => go(currentStep() + 1)), button("End", finish)];
  const train = button("Train the built-in tiny model (a minute)", () => context.track(startTraining()));
  const children = [progress, sentenceBox, el("span", { class: "buttons" }, train, back, next, end)];
  let shownKey = null; // what is said, as one string
  let timer = 0;
  let cardToShow = null; // the card that a step speaks of, until it is brought into sight

  function button(text, act) {
    return el("button", { type: "button", onclick: act }, text);
  }

  const currentStep = () => context.state.number("tour");

  function finish() {
    markDone();
    clearTimeout(timer);
    requests.cancel();
    context.state.set({ tour: null }, { quiet: true });
  }

  function go(to) {
    if (to > STEPS.length) return finish();
    if (to < 1) return context.state.set({ tour: 0, page: "home" });
    return context.state.set({ tour: to, ...pageFor(STEPS[to - 1]) });
  }

  /** The page of a step, or of what is shown instead. */
  function pageFor(step) {
    const own = isAvailable(step.view) || !context.views().size;
    return { page: own ? step.page : pageOfView(alternativeView(step.view)), ...(step.finds ? { layer: null, head: null } : {}) };
  }

  const isAvailable = (name) => context.views().get(name)?.available ?? false;
  const alternativeView = (name) => ALTERNATIVE_VIEWS[name]?.find(isAvailable) ?? null;
  const pageOfView = (view) => /** @type {HTMLElement} */ (document.querySelector(`#rail a[data-views~="${view}"]:not([data-page="compare"])`))?.dataset.page ?? "views";

  async function update() {
    const stepNumber = currentStep();
    strip.hidden = stepNumber === null;
    if (stepNumber === null) {
      shownKey = null;
      strip.replaceChildren();
      return;
    }
    if (!strip.firstChild) strip.replaceChildren(...children);
    const key = JSON.stringify([stepNumber, context.model(), context.text(), context.views().size > 0]);
    if (key === shownKey) return;
    shownKey = key;
    back.hidden = stepNumber < 1;
    train.hidden = true;
    next.disabled = false;
    next.textContent = stepNumber === STEPS.length ? "Done" : stepNumber === 0 ? "Begin" : "Next";
    next.classList.add("strong");
    progress.textContent = stepNumber ? `${stepNumber} of ${STEPS.length} · ${STEPS[stepNumber - 1]?.name ?? ""}` : "Tour";
    strip.dataset.step = stepNumber;
    try {
      showSentence(await requests.run((signal) => sentence(stepNumber, signal)), stepNumber);
    } catch (error) {
      if (error instanceof StaleResponse) return;
      if (!(error instanceof ApiError)) throw error;
      showSentence(`${error.message}.`, stepNumber);
    }
  }

  function showSentence(sentences, stepNumber) {
    sentenceBox.textContent = sentences;
    strip.dataset.said = stepNumber;
  }

  async function sentence(stepNumber, signal) {
    if (!context.model()) return noModel(signal);
    if (stepNumber === 0) {
      const trace = context.trace();
      const modelDescription = trace ? ` (${trace.family}${trace.layers ? `, ${trace.layers} layer${trace.layers === 1 ? "" : "s"}` : ""})` : "";
      return `A sentence goes in, the next word comes out. Six steps follow yours through ${context.model()}${modelDescription}; the page stays yours all the while.`;
    }
    const step = STEPS[stepNumber - 1];
    if (!step) throw new ApiError(`the tour has ${STEPS.length} steps, and this is none of them`);
    const fetchView = (view, settings = {}) => postJson("view", { model: context.model(), text: context.text(), view, settings }, signal);
    if (!isAvailable(step.view)) return alternativeSentence(step, fetchView);
    const foundHead = step.finds ? await step.finds(context, signal) : null;
    if (foundHead && context.state.get("layer") === null) context.state.set({ layer: foundHead.layer, head: foundHead.head }, { quiet: true });
    const response = await step.description(context, fetchView, signal, foundHead);
    cardToShow = step.card ?? null;
    return response;
  }

  /** A family that has no such page. */
  async function alternativeSentence(step, fetchView) {
    const entry = context.views().get(step.view);
    const trace = context.trace();
    const modelDescription = trace?.architecture === "encoder" ? "an encoder" : trace?.family ?? "of another family";
    const missing = `This step needs ${entry?.needs ?? "another model"}; yours is ${modelDescription}.`;
    const view = alternativeView(step.view);
    if (!view) return missing;
    try {
      const shownView = await fetchView(view);
      const caption = shownView.caption ?? shownView.panels?.find((each) => each.caption)?.caption ?? "";
      return `${missing} Here is what it has. ${shownView.title}. ${caption}`;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return `${missing} The page shows what it has; of this sentence: ${error.message}.`;
    }
  }

  // ---- where there is no model yet

  async function noModel(signal) {
    const response = await getJson("models", {}, signal);
    const name = `runs/${TINY_MODEL.name}`;
    const run = response.models.find((each) => each.name === name);
    next.disabled = true;
    if (run && !run.problem && !response.training.includes(name)) {
      await context.reload();
      setTimeout(() => context.state.set({ model: name, tour: 1, page: "tokens" }));
      return "It has learnt.";
    }
    if (response.training.includes(name)) {
      clearTimeout(timer);
      timer = setTimeout(() => ((shownKey = null), currentStep() !== null && context.track(update())), 1500);
      return "The tiny model is learning from the King James Bible; the tour goes on by itself when it is ready, in about a minute.";
    }
    train.hidden = false;
    return "There is no model in this folder yet. A tiny one can be trained here in a minute; the tour then goes on by itself.";
  }

  async function startTraining() {
    train.hidden = true;
    try {
      await postJson("runs", TINY_MODEL);
      shownKey = null;
      await update();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      showSentence(`${error.message}.`, 0);
    }
  }

  /** Brings what is spoken of into sight, when all above it is painted. */
  function scrollToCard() {
    if (cardToShow) document.querySelector(`[data-card="${cardToShow}"]`)?.scrollIntoView({ block: "start" });
    cardToShow = null;
  }

  return { update, settle: scrollToCard, begin: () => context.state.set({ tour: 0, page: "home" }) };
}

// ---- what the steps say

function describeTokens(context) {
  const [tokens, text] = [context.tokens(), context.text()];
  const foundHead = [...text.matchAll(/\S+/gu)].map((match) => {
    // Places are told in characters, as Python counts them.
    const start = [...text.slice(0, match.index)].length;
    const stop = start + [...match[0]].length;
    return { word: match[0], pieces: tokens.filter((each) => each.start < stop && each.stop > start).length };
  });
  const most = foundHead.reduce((a, b) => (b.pieces > a.pieces ? b : a), { word: "", pieces: 0 });
  const whole = foundHead.filter((each) => each.pieces === 1).length;
  const split = most.pieces > 1 ? `‘${most.word}’ falls into ${most.pieces}, and ${whole || "none"} of ${foundHead.length} words ${whole === 1 ? "is" : "are"} one token each` : "each word is one";
  return `A model reads no letters but tokens, numbered pieces of text. Your sentence is ${tokens.length} of them, from a vocabulary of ${context.trace()?.vocab.toLocaleString("en-US")}: ${split}.`;
}

async function describeEmbeddings(context, fetchView) {
  const trace = await fetchView("embeddings");
  const first = `Each token is looked up: its number leads to a vector that was learnt. ${trace.title}.`;
  const word = context.selectedWord();
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
const HEAD_TYPES = {
  previous: "at the token before",
  next: "at the token after",
  first: "at the first token",
  last: "at the last token",
  same: "at the same token",
  induction: "at what followed the last time",
  diffuse: "at all alike",
  unclear: "at nothing clearly",
};

const headScores = (context, signal) => fetchArrays({ model: context.model(), text: context.text(), function: "head_scores", settings: {} }, signal);

async function describeAttention(context, fetchView, signal) {
  const scores = await headScores(context, signal);
  const all = scores.names.flat();
  const counts = scores.kinds.map((modelDescription) => [modelDescription, all.filter((each) => each === modelDescription).length]).filter(([, count]) => count);
  counts.sort((a, b) => b[1] - a[1]);
  const response = counts.slice(0, 3).map(([modelDescription, count]) => `${count} ${HEAD_TYPES[modelDescription] ?? modelDescription}`).join(", ");
  return `In attention each token takes from those that it may see. Here are all ${all.length} heads, ${scores.names.length} layers of ${scores.names[0].length}; by where they caption: ${response}.`;
}

/**
 * The head that does most clearly what it does. One that merely rests on a token or spreads tells little; what looks for
 * repetitions does so where something comes again.
 */
async function findHead(context, signal) {
  const scores = await headScores(context, signal);
  const [layers, heads, kinds] = scores.scores.shape;
  const ids = context.tokens().map((each) => each.id);
  const uninformative = new Set(["first", "last", "diffuse", ...(new Set(ids).size === ids.length ? ["induction", "same"] : [])]);
  let best = null;
  for (let layer = 0; layer < layers; layer++)
    for (let head = 0; head < heads; head++)
      for (let modelDescription = 0; modelDescription < kinds; modelDescription++) {
        const score = scores.scores.values[(layer * heads + head) * kinds + modelDescription];
        if (!uninformative.has(scores.kinds[modelDescription]) && (best === null || score > best.score)) best = { layer, head, kind: scores.kinds[modelDescription], score, clear: score >= scores.thresholds[scores.kinds[modelDescription]] };
      }
  return best;
}

function describeHead(context, fetchView, signal, foundHead) {
  const own = context.state.number("layer") === foundHead.layer && context.state.number("head") === foundHead.head;
  const score = `a share of ${foundHead.score.toFixed(2)} ${HEAD_TYPES[foundHead.kind]}`;
  const why = `Layer ${foundHead.layer}, head ${foundHead.head} was chosen because it is the ${foundHead.clear ? "clearest" : "least unclear"}: it looks with ${score}, more than any other.`;
  return `${why} ${own ? "The walk below goes" : "The walk goes"} from what it reads to what it adds: queries, keys, their products, softmax, values.`;
}

async function describeNextToken(context, fetchView, signal) {
  const response = await postJson("next-token", { model: context.model(), text: context.text(), show: 2 }, signal);
  const [one, two] = response.rows;
  return `What the model knows after the last token becomes a probability for each of ${response.vocab.toLocaleString("en-US")}. Likeliest after your sentence is ‘${one.piece}’ with ${percent(one.probability)}${two ? `, then ‘${two.piece}’ with ${percent(two.probability)}` : ""}; the model is as unsure as among ${(2 ** response.entropy).toFixed(1)} equally likely tokens.`;
}

async function describeGeneration(context, fetchView) {
  const trace = await fetchView("generation", { max_tokens: 8, temperature: 0 });
  const spans = trace.panels[0].spans.filter((each) => each.value !== null);
  const written = spans.map((each) => each.text).join("");
  return `What was chosen is read like the rest, and the next is asked for. Always taking the likeliest, ${spans.length} tokens on, it writes ‘${visibleWhitespace(written)}’; Play draws them instead.`;
}
