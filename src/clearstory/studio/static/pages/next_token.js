// Next token: from logits to a choice, under temperature, top-k and top-p; what is cut off is greyed. A guess before the
// answer is shown, and why one token and not another.

import { latestRequest, postJson } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { el, slider } from "../dom.js";
import { viewCard } from "../view_card.js";
import { cellText, pythonLiteral, percent } from "../format.js";
import { guessGameCard } from "./guess_game.js";
import { logitDifferenceCard } from "./logit_difference.js";

/** Top-k as its slider goes: 0 keeps all. */
const KS = [0, 1, 2, 3, 5, 10, 20, 50, 100, 200];

export function mount(root, context, { views }) {
  const asking = latestRequest();
  const how = { temperature: context.state.number("temperature") ?? 1, top_k: context.state.number("top_k") ?? 0, top_p: context.state.number("top_p") ?? 1 };
  const set = (name, usual) => (value) => {
    how[name] = value;
    context.state.set({ [name]: value === usual ? null : value }, { quiet: true });
  };
  const tools = el(
    "div",
    { class: "sliders" },
    slider({ label: "Temperature", name: "temperature", min: 0, max: 2, step: 0.05, value: how.temperature, words: (v) => (v === 0 ? "0, greedy" : v.toFixed(2)), oninput: set("temperature", 1) }),
    slider({ label: "Top-k", name: "top_k", min: 0, max: KS.length - 1, step: 1, value: Math.max(0, KS.indexOf(how.top_k)), words: (v) => (KS[v] ? String(KS[v]) : "all"), oninput: (v) => set("top_k", 0)(KS[v]) }),
    slider({ label: "Top-p", name: "top_p", min: 0.05, max: 1, step: 0.05, value: how.top_p, words: (v) => v.toFixed(2), oninput: (v) => set("top_p", 1)(Math.min(1, v)) }),
  );
  const card = makeCard({ name: "choice", title: "What may come next", tools });
  const cards = views.filter((name) => name !== "logit-attribution").map((name) => viewCard(context, name));
  const why = logitDifferenceCard(context, views.includes("logit-attribution"));
  const covered = el("p", { class: "quiet", hidden: true, data: { covered: "" } }, "The answer is covered until you have guessed it, or end the game.");
  const answers = [card.root, why.root, ...cards.map((each) => each.root)];
  const guessing = guessGameCard(context, { onCover: cover });
  root.replaceChildren(el("div", { class: "cards" }, card.root, el("div", { class: "stack-of-cards" }, guessing.root, covered, why.root), ...cards.map((each) => each.root)));

  function cover(on) {
    covered.hidden = !on;
    for (const each of answers) each.classList.toggle("under-cover", on);
  }

  function update() {
    const wanted = { model: context.model(), text: context.text(), show: 40, ...how };
    const own = card.fill(async () => {
      const said = await asking.ask((signal) => postJson("next", wanted, signal));
      why.offer(said.rows);
      const table = { title: "The next token", columns: ["token", "id", "logit", "probability", "after the cuts"], rows: said.rows.map((r) => [r.piece, r.id, r.logit, r.probability, r.share]) };
      return {
        caption: words(said),
        python: snippet(wanted),
        tables: () => [table],
        files: { csv: async () => tablesCsv([table]) },
        mount: (body) => paint(body, said),
      };
    });
    return Promise.all([context.track(own), guessing.update(), ...cards.map((each) => each.update())]);
  }

  return { update, end: () => (asking.drop(), [guessing, why, ...cards].forEach((each) => each.end())) };
}

function words(said) {
  const cut = said.vocab - said.kept;
  const first = `Entropy ${said.entropy.toFixed(2)} bits`;
  if (!cut) return `${first}; nothing is cut off, and all ${said.vocab.toLocaleString("en-US")} tokens can come.`;
  return `${first}, ${said.entropy_after.toFixed(2)} after the cuts: ${said.kept.toLocaleString("en-US")} of ${said.vocab.toLocaleString("en-US")} tokens are left, which held ${percent(said.mass)} of the probability.`;
}

/** Bars of what can come, the cut ones grey; the numbers stand beside them, not under. */
function paint(body, said) {
  const most = Math.max(...said.rows.map((row) => Math.max(row.probability, row.share)), 1e-12);
  const rows = said.rows.map((row) =>
    el(
      "li",
      { class: row.kept ? "choice" : "choice cut", data: { id: row.id, probability: row.probability, share: row.share, kept: String(row.kept) }, title: `logit ${row.logit}` },
      el("span", { class: "mono piece-name" }, row.piece),
      el(
        "span",
        { class: "bar-room" },
        el("span", { class: "bar ghost", style: { width: `${((100 * row.probability) / most).toFixed(3)}%` } }),
        row.kept ? el("span", { class: "bar", style: { width: `${((100 * row.share) / most).toFixed(3)}%` } }) : null,
      ),
      el("span", { class: "n" }, row.kept ? percent(row.share) : "cut"),
      el("span", { class: "n soft" }, `logit ${cellText(row.logit)}`),
    ),
  );
  const left = said.vocab - said.rows.length;
  const rest = left === 0 ? "" : el("p", { class: "quiet" }, `The other ${left.toLocaleString("en-US")} tokens hold ${percent(said.rest)} together.`);
  body.replaceChildren(el("ol", { class: "choices" }, ...rows), rest);
  Object.assign(body.dataset, { entropy: said.entropy, kept: said.kept });
  return { update: () => {}, state: () => ({ kept: said.kept }), svg: () => null, csv: () => null };
}

const snippet = ({ model, text, temperature, top_k, top_p }) =>
  `import clearstory
from clearstory.generation.sampling import kept
from clearstory.generation.settings import Sampling

opened = clearstory.open(${pythonLiteral(model)})
logits = opened.logits([opened.tokenizer.encode(${pythonLiteral(text)})])[0, -1].double()
ids, probabilities = kept(logits / ${temperature || 1}, Sampling(top_k=${temperature ? top_k : 1}, top_p=${top_p}))
`;
