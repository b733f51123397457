// Tour: six steps from the sentence to the generated text, in a strip above the page. Each step opens the page that it
// describes, with values of the selected model; if the model does not support a step's view, an alternative is shown.

import { getJson, latestRequest, fetchArrays, postJson, ApiError, StaleResponse } from "./api.js";
import { el } from "./dom.js";
import { TINY_MODEL } from "./pages/home.js";
import { stored } from "./stored.js";
import { percent, splitText, visibleWhitespace } from "./format.js";

const DONE_KEY = "clearstory.tour";

/** The steps: the required view, the page to open, and the text. `find` returns more URL state. */
const STEPS = [
  { name: "Tokens", view: "tokens", page: "tokens", description: describeTokens },
  { name: "Embeddings", view: "embeddings", page: "embeddings", description: describeEmbeddings },
  { name: "Attention", view: "heads", page: "attention", description: describeAttention },
  { name: "One head", view: "head", page: "attention", find: findHead, description: describeHead, card: "head" },
  { name: "Next token", view: "next-token", page: "next-token", description: describeNextToken },
  { name: "Generate", view: "generation", page: "generate", description: describeGeneration },
];

/** Alternatives to a view that the model does not support; the first supported one is shown. */
const ALTERNATIVE_VIEWS = {
  embeddings: ["ngram-counts", "posteriors"],
  heads: ["gates", "backoff", "viterbi"],
  head: ["activations", "surprisal", "architecture"],
  "next-token": ["fill-mask", "logit-lens", "architecture"],
  generation: ["architecture"],
};

/** Whether a tour has been completed in this browser. */
export const tourDone = () => stored.get(DONE_KEY) !== null;

/** `strip` is the tour's element. update() is called after each change of the URL state. */
export function makeTour(context, strip) {
  const requests = latestRequest();
  const sentenceBox = el("p", { class: "tour-text", "aria-live": "polite" });
  const progress = el("span", { class: "tour-progress" });
  const [back, next, end] = [button("Back", () => go(currentStep() - 1)), button("Next", () => go(currentStep() + 1)), button("End", finish)];
  const train = button("Train the built-in tiny model (a minute)", () => context.track(startTraining()));
  const children = [progress, sentenceBox, el("span", { class: "buttons" }, train, back, next, end)];
  let shownKey = null; // key of the shown text
  let timer = 0;
  let cardToShow = null; // the card to scroll to once the page is drawn

  function button(text, act) {
    return el("button", { type: "button", onclick: act }, text);
  }

  const currentStep = () => context.state.number("tour");

  function finish() {
    stored.set(DONE_KEY, "done");
    clearTimeout(timer);
    requests.cancel();
    context.state.set({ tour: null }, { quiet: true });
  }

  function go(to) {
    if (to > STEPS.length) return finish();
    if (to < 1) return context.state.set({ tour: 0, page: "home" });
    return context.state.set({ tour: to, ...pageFor(STEPS[to - 1]) });
  }

  /** The page of a step, or of its alternative. */
  function pageFor(step) {
    const own = isAvailable(step.view) || !context.views().size;
    return { page: own ? step.page : pageOfView(alternativeView(step.view)), ...(step.find ? { layer: null, head: null } : {}) };
  }

  const isAvailable = (name) => context.views().get(name)?.available ?? false;
  const alternativeView = (name) => ALTERNATIVE_VIEWS[name]?.find(isAvailable) ?? null;
  const pageOfView = (view) => /** @type {HTMLElement} */ (document.querySelector(`#rail a[data-views~="${view}"]:not([data-page="compare"])`))?.dataset.page ?? "all-views";

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
    next.textContent = stepNumber === STEPS.length ? "Done" : stepNumber === 0 ? "Start" : "Next";
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
    strip.dataset.shown = stepNumber;
  }

  async function sentence(stepNumber, signal) {
    if (!context.model()) return noModel(signal);
    if (stepNumber === 0) {
      const trace = context.trace();
      const modelDescription = trace ? ` (${trace.family}${trace.layers ? `, ${trace.layers} layer${trace.layers === 1 ? "" : "s"}` : ""})` : "";
      return `From text to next-token prediction: six steps follow your sentence through ${context.model()}${modelDescription}. You can use the page at any time.`;
    }
    const step = STEPS[stepNumber - 1];
    if (!step) throw new ApiError(`the tour has ${STEPS.length} steps`);
    const fetchView = (view, settings = {}) => postJson("view", { ...context.input(), view, settings }, signal);
    if (!isAvailable(step.view)) return alternativeSentence(step, fetchView);
    const foundHead = step.find ? await step.find(context, signal) : null;
    if (foundHead && context.state.get("layer") === null) context.state.set({ layer: foundHead.layer, head: foundHead.head }, { quiet: true });
    const response = await step.description(context, fetchView, signal, foundHead);
    cardToShow = step.card ?? null;
    return response;
  }

  /** The text of a step whose view the model does not support. */
  async function alternativeSentence(step, fetchView) {
    const entry = context.views().get(step.view);
    const trace = context.trace();
    const modelDescription = trace?.architecture === "encoder" ? "an encoder" : trace?.family ?? "of another family";
    const missing = `This step needs ${entry?.needs ?? "another model"}; this model is ${modelDescription}.`;
    const view = alternativeView(step.view);
    if (!view) return missing;
    try {
      const shownView = await fetchView(view);
      const caption = shownView.caption ?? shownView.panels?.find((each) => each.caption)?.caption ?? "";
      return `${missing} Shown instead: ${shownView.title}. ${caption}`;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return `${missing} The page shows an alternative: ${error.message}.`;
    }
  }

  // ---- without a model

  async function noModel(signal) {
    const response = await getJson("models", {}, signal);
    const name = `runs/${TINY_MODEL.name}`;
    const run = response.models.find((each) => each.name === name);
    next.disabled = true;
    if (run && !run.problem && !response.training.includes(name)) {
      await context.reload();
      setTimeout(() => context.state.set({ model: name, tour: 1, page: "tokens" }));
      return "The tiny model is trained.";
    }
    if (response.training.includes(name)) {
      clearTimeout(timer);
      timer = setTimeout(() => ((shownKey = null), currentStep() !== null && context.track(update())), 1500);
      return "The tiny model is training on the King James Bible. The tour continues by itself in about a minute.";
    }
    train.hidden = false;
    return "There is no model in this folder yet. A tiny one can be trained here in a minute; the tour then continues by itself.";
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

  /** Scrolls to the card of the current step. */
  function scrollToCard() {
    if (cardToShow) document.querySelector(`[data-card="${cardToShow}"]`)?.scrollIntoView({ block: "start" });
    cardToShow = null;
  }

  return { update, scrollToCard, begin: () => context.state.set({ tour: 0, page: "home" }) };
}

// ---- the texts of the steps

function describeTokens(context) {
  const [tokens, text] = [context.tokens(), context.text()];
  const words = splitText(text, /\S+/gu).map(({ word, start, stop }) => ({ word, pieces: tokens.filter((each) => each.text !== null && each.start < stop && each.stop > start).length }));
  const most = words.reduce((a, b) => (b.pieces > a.pieces ? b : a), { word: "", pieces: 0 });
  const whole = words.filter((each) => each.pieces === 1).length;
  const split = most.pieces > 1 ? `‘${most.word}’ is split into ${most.pieces}; ${whole || "none"} of ${words.length} words ${whole === 1 ? "is" : "are"} one token each` : "each word is one";
  return `A model processes tokens, numbered pieces of text. Your sentence is ${tokens.length} of them, from a vocabulary of ${context.trace()?.vocab.toLocaleString("en-US")}: ${split}.`;
}

async function describeEmbeddings(context, fetchView) {
  const view = await fetchView("embeddings");
  const first = `Each token id is mapped to a learned embedding vector. ${view.title}.`;
  const word = context.selectedWord();
  try {
    const near = await postJson("view", { model: context.model(), text: word, view: "neighbours", settings: { top: 1 } });
    const table = near.kind === "table" ? near : near.panels?.find((each) => each.kind === "table");
    const [piece] = table.rows[0];
    const cosine = table.rows[0][table.columns.findIndex((name) => name.startsWith("cosine"))];
    return `${first} Words used in similar ways have similar vectors: nearest to ‘${visibleWhitespace(word)}’ is ‘${piece}’, with a cosine similarity of ${cosine.toFixed(2)}.`;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return first;
  }
}

/** What the head types attend to. */
const HEAD_TYPES = {
  previous: "to the previous token",
  next: "to the next token",
  first: "to the first token",
  last: "to the last token",
  same: "to the same token",
  induction: "to the token after the previous occurrence (induction, measured on repeated random tokens)",
  diffuse: "to all tokens evenly",
  unclear: "without a clear pattern",
};

const headScores = (context, signal) => fetchArrays({ ...context.input(), function: "head_scores", settings: {} }, signal);

async function describeAttention(context, fetchView, signal) {
  const scores = await headScores(context, signal);
  const all = scores.names.flat();
  const counts = scores.kinds.map((type) => [type, all.filter((each) => each === type).length]).filter(([, count]) => count);
  counts.sort((a, b) => b[1] - a[1]);
  const summary = counts.slice(0, 3).map(([type, count]) => `${count} ${HEAD_TYPES[type] ?? type}`).join(", ");
  return `In attention each token takes information from the tokens it can see. Here are all ${all.length} heads, ${scores.names.length} layers of ${scores.names[0].length}; they attend ${summary}.`;
}

/**
 * The head with the highest score of its type. Heads that attend to a fixed token or to all tokens are skipped, and induction
 * heads if no token is repeated.
 */
async function findHead(context, signal) {
  const scores = await headScores(context, signal);
  const [layers, heads, kinds] = scores.scores.shape;
  const ids = context.tokens().map((each) => each.id);
  const uninformative = new Set(["first", "last", "diffuse", ...(new Set(ids).size === ids.length ? ["induction", "same"] : [])]);
  let best = null;
  for (let layer = 0; layer < layers; layer++)
    for (let head = 0; head < heads; head++)
      for (let kind = 0; kind < kinds; kind++) {
        const score = scores.scores.values[(layer * heads + head) * kinds + kind];
        if (!uninformative.has(scores.kinds[kind]) && (best === null || score > best.score)) best = { layer, head, kind: scores.kinds[kind], score, clear: score >= scores.thresholds[scores.kinds[kind]] };
      }
  return best;
}

function describeHead(context, fetchView, signal, foundHead) {
  const own = context.state.number("layer") === foundHead.layer && context.state.number("head") === foundHead.head;
  const score = `an average weight of ${foundHead.score.toFixed(2)} ${HEAD_TYPES[foundHead.kind]}`;
  const why = `Layer ${foundHead.layer}, head ${foundHead.head} ${foundHead.clear ? "has the clearest pattern" : "comes closest to a clear pattern"}: it attends with ${score}.`;
  return `${why} The report below ${own ? "" : "(for this head) "}shows its computation: queries, keys, scores, softmax, values, output.`;
}

async function describeNextToken(context, fetchView, signal) {
  const response = await postJson("next-token", { ...context.input(), show: 2 }, signal);
  const [one, two] = response.tokens;
  return `The final hidden state of the last token gives a probability for each of the ${response.vocab.toLocaleString("en-US")} tokens. The likeliest next token is ‘${one.piece}’ with ${percent(one.probability)}${two ? `, then ‘${two.piece}’ with ${percent(two.probability)}` : ""}; the perplexity is that of ${(2 ** response.entropy).toFixed(1)} equally likely tokens.`;
}

async function describeGeneration(context, fetchView) {
  const view = await fetchView("generation", { max_tokens: 8, temperature: 0 });
  const spans = view.panels[0].spans.filter((each) => each.value !== null);
  const generated = spans.map((each) => each.text).join("");
  return `The generated token is appended and the next one predicted. Greedy decoding of ${spans.length} tokens gives ‘${visibleWhitespace(generated)}’; Play samples instead.`;
}
