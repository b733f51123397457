// Guess: the reader says the next token before the model's answer is shown, and both are scored in bits.

import { latestRequest, fetchArrays, ApiError, StaleResponse } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { el, slider } from "../dom.js";
import { pythonCall, percent as percent } from "../format.js";

/** Bits as they are read; what could not come takes endlessly many. */
const bitsOf = (value) => (value === null ? "∞" : value.toFixed(2));

/** `onCover(true)` while the answer may not be seen. */
export function guessGameCard(context, { onCover }) {
  const asking = latestRequest();
  let game = null; // {text, own, seed, place, pieces, offers, rounds, said}
  let sure = 0.5;
  let known = null; // the model and sentence that the game is about
  const which = el("select", { name: "guess-text" }, el("option", { value: "unseen" }, "a sentence you have not seen"), el("option", { value: "own" }, "your sentence, and what comes after it"));
  const beginButton = el("button", { type: "button", class: "strong", onclick: begin }, "Begin");
  const endButton = el("button", { type: "button", hidden: true, onclick: finish }, "End");
  const card = makeCard({
    name: "guess",
    title: "Guess first",
    says: "Say which token comes next, and how sure you are, before the answer is shown. Your guess has the share that you give it; the rest you leave to the model. What comes costs you, and it, −log₂ of its probability.",
    tools: el("div", { class: "settings" }, el("label", {}, el("span", {}, "Text"), which), el("span", { class: "buttons" }, beginButton, endButton)),
  });
  const key = () => JSON.stringify([context.model(), context.text()]);
  const asked = (what, text, settings) => ({ model: context.model(), text, what, settings });

  async function begin() {
    const own = which.value === "own";
    const seed = game && !game.own ? game.seed + 1 : 0;
    await tried(async (signal) => {
      const said = own ? null : await fetchArrays(asked("riddle", context.text(), { seed }), signal);
      const text = own ? context.text() : said.text;
      return ask({ text, own, seed, place: 1, rounds: [], said: null }, signal);
    });
  }

  /** What stands so far, and what is offered. */
  async function ask(next, signal) {
    const made = await fetchArrays(asked("offers", next.text, { place: next.place, seed: next.seed }), signal);
    return { ...next, pieces: made.pieces, offers: made.offers, said: null };
  }

  const say = (choice) =>
    tried(async (signal) => {
      const settings = { place: game.place, share: sure, ...choice };
      const said = await fetchArrays(asked("guess", game.text, settings), signal);
      const round = { place: game.place, ...said, share: sure, settings };
      return { ...game, said: round, rounds: said.came ? [...game.rounds, round] : game.rounds };
    });

  const onward = () => tried((signal) => ask({ ...game, place: game.place + 1 }, signal));

  /** Asks, and shows what came of it. */
  function tried(make) {
    const before = game;
    return context.track(
      card.fill(async () => {
        try {
          game = await asking.ask(make);
        } catch (error) {
          // A guess that is no token leaves the game as it was.
          if (!(error instanceof ApiError) || !before || error instanceof StaleResponse) throw error;
          return filled(error.message);
        }
        return filled();
      }),
    );
  }

  function finish() {
    game = null;
    known = null;
    update();
  }

  const table = () => ({
    title: "Rounds",
    columns: ["token", "your guess", "rank", "probability", "your share", "what came", "its rank", "its probability", "your bits", "the model's bits"],
    rows: (game?.rounds ?? []).map((each) => [each.place, each.guess.piece, each.guess.rank, each.guess.probability, each.share, each.came.piece, each.came.rank, each.came.probability, each.reader_bits, each.model_bits]),
  });

  function filled(problem = null) {
    known = key();
    endButton.hidden = !game;
    beginButton.textContent = game ? (game.own ? "Begin again" : "Another one") : "Begin";
    // Only what comes after the reader's own sentence is shown elsewhere on the page.
    onCover(Boolean(game?.own && !(game.place === game.pieces.length && game.said)));
    return {
      caption: looked(),
      python: game?.said ? pythonCall("guessing", "guess", asked("guess", game.text), game.said.settings) : null,
      tables: () => [table()],
      files: { csv: async () => tablesCsv([table()]) },
      mount: (body) => paint(body, problem),
    };
  }

  function sums() {
    const rounds = game?.rounds ?? [];
    const sum = (name) => rounds.reduce((total, each) => total + (each[name] ?? Infinity), 0);
    return { count: rounds.length, right: rounds.filter((each) => each.right).length, reader: sum("reader_bits"), model: sum("model_bits") };
  }

  function looked() {
    const now = sums();
    if (!now.count) return null;
    const ahead = Math.abs(now.reader - now.model) < 0.005 ? "as many as" : now.reader < now.model ? "fewer than" : "more than";
    return `${now.count} token${now.count === 1 ? "" : "s"}, ${now.right} guessed: you needed ${now.reader.toFixed(2)} bits, ${ahead} the model's ${now.model.toFixed(2)}.`;
  }

  function paint(body, problem) {
    const now = sums();
    Object.assign(body.dataset, { place: game?.place ?? "", rounds: now.count, reader: now.reader, model: now.model, state: !game ? "idle" : game.said ? "said" : "asked" });
    if (!game) {
      body.replaceChildren(el("p", { class: "quiet" }, "One token after another; the score runs along."));
      return { update: () => {}, state: () => ({}), svg: () => null, csv: () => null };
    }
    const shown = game.pieces.slice(0, game.place).map((piece, place) => {
      const round = game.rounds.find((each) => each.place === place);
      const level = round ? Math.min(5, Math.floor((round.model_bits ?? Infinity) / 1.5)) : 0;
      return el("span", { class: `piece heat-${level}`, title: round ? `${bitsOf(round.model_bits)} bits for the model` : "" }, piece);
    });
    body.replaceChildren(
      el("div", { class: "written mono" }, ...shown, el("span", { class: "piece next-gap" }, game.said?.came?.piece ?? "?")),
      game.said ? answer() : question(problem),
    );
    (game.said ? body.querySelector("button.strong") : body.querySelector("input[type=text]"))?.focus({ preventScroll: true });
    return { update: () => {}, state: () => ({ place: game.place }), svg: () => null, csv: () => null };
  }

  function question(problem) {
    const input = el("input", { type: "text", name: "guess", size: 16, "aria-label": "your guess", placeholder: "type a word", autocomplete: "off" });
    return el(
      "div",
      {},
      problem ? el("p", { class: "problem", role: "alert" }, `${problem}.`) : null,
      el(
        "form",
        { class: "settings", onsubmit: (event) => (event.preventDefault(), say({ word: input.value })) },
        el("label", {}, el("span", {}, "Your guess"), input),
        slider({ label: "How sure", name: "share", min: 0.05, max: 0.95, step: 0.05, value: sure, words: (v) => percent(v), oninput: (v) => (sure = v) }),
        el("button", { type: "submit", class: "strong" }, "Guess"),
      ),
      el("p", { class: "quiet" }, game.place < game.pieces.length ? "Or choose one; the token that comes is among them:" : "The text ends here: what would the model go on with? Or choose one:"),
      el("div", { class: "chips" }, ...game.offers.map((each) => el("button", { type: "button", class: "chip", data: { id: each.id }, onclick: () => say({ token: each.id }) }, each.piece))),
    );
  }

  function answer() {
    const { guess, came, likeliest, right } = game.said;
    const one = (each) => `‘${each.piece}’ (rank ${each.rank.toLocaleString("en-US")}, ${percent(each.probability)}, ${bitsOf(each.bits)} bits)`;
    const best = likeliest.slice(0, 3).map((each) => `${each.piece} ${percent(each.probability)}`).join(", ");
    const last = game.place >= game.pieces.length;
    return el(
      "div",
      { class: "answer", data: { guess: guess.id, rank: guess.rank, probability: guess.probability, bits: guess.bits, reader: game.said.reader_bits ?? "", model: game.said.model_bits ?? "", right: String(right) } },
      el("p", {}, right ? `Right: ${one(guess)} came.` : came ? `You said ${one(guess)}; what came is ${one(came)}.` : `You said ${one(guess)}; nothing comes after the text, so nothing is scored.`),
      came ? el("p", { class: "totals" }, el("span", {}, "you ", el("b", {}, `${bitsOf(game.said.reader_bits)} bits`)), el("span", {}, "the model ", el("b", {}, `${bitsOf(game.said.model_bits)} bits`))) : null,
      el("p", { class: "quiet" }, `The model thought: ${best}.`),
      last ? el("p", { class: "quiet" }, "That was the whole text.") : el("button", { type: "button", class: "strong", onclick: onward }, "Next token"),
    );
  }

  /** Another model or sentence ends the game. */
  function update() {
    card.root.hidden = context.traced()?.architecture === "encoder-decoder"; // which writes another text
    if (known === key()) return undefined;
    asking.drop();
    game = null;
    return card.fill(async () => filled());
  }

  return { root: card.root, update, end: () => asking.drop() };
}
