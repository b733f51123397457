// Next token page: the next-token distribution under temperature, top-k and top-p, with truncated tokens greyed out; the guess
// game; and the logit difference of two tokens.

import { latestRequest, postJson } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { el, slider } from "../dom.js";
import { viewCard } from "../view_card.js";
import { cellText, percent, promptSnippet } from "../format.js";
import { guessGameCard } from "./guess_game.js";
import { logitDifferenceCard } from "./logit_difference.js";

/** Values of the top-k slider; 0 keeps all tokens. */
const TOP_K_VALUES = [0, 1, 2, 3, 5, 10, 20, 50, 100, 200];

export function mount(root, context, { views }) {
  const requests = latestRequest();
  const sampling = { temperature: context.state.number("temperature") ?? 1, top_k: context.state.number("top_k") ?? 0, top_p: context.state.number("top_p") ?? 1 };
  const set = (name, defaultValue) => (value) => {
    sampling[name] = value;
    context.state.set({ [name]: value === defaultValue ? null : value }, { quiet: true });
  };
  const tools = el(
    "div",
    { class: "sliders" },
    slider({ label: "Temperature", name: "temperature", min: 0, max: 2, step: 0.05, value: sampling.temperature, format: (v) => (v === 0 ? "0, greedy" : v.toFixed(2)), oninput: set("temperature", 1) }),
    slider({ label: "Top-k", name: "top_k", min: 0, max: TOP_K_VALUES.length - 1, step: 1, value: Math.max(0, TOP_K_VALUES.indexOf(sampling.top_k)), format: (v) => (TOP_K_VALUES[v] ? String(TOP_K_VALUES[v]) : "all"), oninput: (v) => set("top_k", 0)(TOP_K_VALUES[v]) }),
    slider({ label: "Top-p", name: "top_p", min: 0.05, max: 1, step: 0.05, value: sampling.top_p, format: (v) => v.toFixed(2), oninput: (v) => set("top_p", 1)(Math.min(1, v)) }),
  );
  const card = makeCard({ name: "sampling", title: "Next-token distribution", tools });
  const cards = views.filter((name) => name !== "logit-attribution").map((name) => viewCard(context, name));
  const logitDifference = logitDifferenceCard(context, views.includes("logit-attribution"));
  const coverNote = el("p", { class: "quiet", hidden: true, data: { covered: "" } }, "The prediction is hidden until you have guessed or end the game.");
  const coverable = [card.root, logitDifference.root, ...cards.map((each) => each.root)];
  const guessGame = guessGameCard(context, { onCover: setCovered });
  root.replaceChildren(el("div", { class: "cards" }, card.root, el("div", { class: "stack-of-cards" }, guessGame.root, coverNote, logitDifference.root), ...cards.map((each) => each.root)));

  function setCovered(on) {
    coverNote.hidden = !on;
    for (const each of coverable) each.classList.toggle("covered-answer", on);
  }

  function update() {
    const request = { ...context.input(), show: 40, ...sampling };
    const sampled = card.fill(async () => {
      const response = await requests.run((signal) => postJson("next-token", request, signal));
      logitDifference.offer(response.tokens);
      const table = { title: "Next-token distribution", columns: ["token", "id", "logit", "probability", "sampling probability"], tokens: response.tokens.map((r) => [r.piece, r.id, r.logit, r.probability, r.sampling_probability]) };
      return {
        caption: samplingCaption(response),
        python: snippet(request),
        tables: () => [table],
        files: { csv: async () => tablesCsv([table]) },
        mount: (body) => renderBars(body, response),
      };
    });
    return Promise.all([context.track(sampled), guessGame.update(), ...cards.map((each) => each.update())]);
  }

  return { update, destroy: () => (requests.cancel(), [guessGame, logitDifference, ...cards].forEach((each) => each.destroy())) };
}

function samplingCaption(response) {
  const removed = response.vocab - response.kept;
  const sentence = `Entropy ${response.entropy.toFixed(2)} bits`;
  if (!removed) return `${sentence}; no truncation, all ${response.vocab.toLocaleString("en-US")} tokens can be sampled.`;
  return `${sentence}, ${response.sampling_entropy.toFixed(2)} after truncation: ${response.kept.toLocaleString("en-US")} of ${response.vocab.toLocaleString("en-US")} tokens are kept, with ${percent(response.kept_mass)} of the probability before truncation.`;
}

/** Probability bars; truncated tokens are grey. */
function renderBars(body, response) {
  const max = Math.max(...response.tokens.map((row) => Math.max(row.probability, row.sampling_probability)), 1e-12);
  const rows = response.tokens.map((row) =>
    el(
      "li",
      { class: row.kept ? "choice" : "choice cut", data: { id: row.id, probability: row.probability, sampling: row.sampling_probability, kept: String(row.kept) }, title: `logit ${row.logit}` },
      el("span", { class: "mono piece-name" }, row.piece),
      el(
        "span",
        { class: "bar-room" },
        el("span", { class: "bar ghost", style: { width: `${((100 * row.probability) / max).toFixed(3)}%` } }),
        row.kept ? el("span", { class: "bar", style: { width: `${((100 * row.sampling_probability) / max).toFixed(3)}%` } }) : null,
      ),
      el("span", { class: "n" }, row.kept ? percent(row.sampling_probability) : "truncated"),
      el("span", { class: "n soft" }, `logit ${cellText(row.logit)}`),
    ),
  );
  const hiddenCount = response.vocab - response.tokens.length;
  const restLine = hiddenCount === 0 ? "" : el("p", { class: "quiet" }, `The other ${hiddenCount.toLocaleString("en-US")} tokens have a total probability of ${percent(response.rest_mass)}.`);
  body.replaceChildren(el("ol", { class: "choices" }, ...rows), restLine);
  Object.assign(body.dataset, { entropy: response.entropy, kept: response.kept });
  return { update: () => {}, state: () => ({ kept: response.kept }), svg: () => null, csv: () => null };
}

const snippet = ({ model, text, temperature, top_k, top_p, ...request }) =>
  `from clearstory.generation.sampling import filtered_probabilities
from clearstory.generation.settings import Sampling
${promptSnippet({ model, text, ...request })}
logits = opened.logits([prompt.ids])[0, -1].double()
ids, probabilities = filtered_probabilities(logits / ${temperature || 1}, Sampling(top_k=${temperature ? top_k : 1}, top_p=${top_p}))
`;
