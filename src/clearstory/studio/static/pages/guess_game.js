// Guess: the reader says the next token before the model's answer is shown, and both are scored in bits.

import { latestRequest, fetchArrays, ApiError, StaleResponse } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { el, slider } from "../dom.js";
import { pythonCall, percent as percent } from "../format.js";

/** Bits as they are read; what could not come takes endlessly many. */
const bitsOf = (value) => (value === null ? "∞" : value.toFixed(2));

/** `onCover(true)` while the answer may not be seen. */
export function guessGameCard(context, { onCover }) {
  const requests = latestRequest();
  let game = null; // {text, own, seed, place, pieces, offers, rounds, said}
  let confidence = 0.5;
  let shownKey = null; // the model and sentence that the game is about
  const textSelect = el("select", { name: "guess-text" }, el("option", { value: "unseen" }, "a sentence you have not seen"), el("option", { value: "own" }, "your sentence, and what comes after it"));
  const beginButton = el("button", { type: "button", class: "strong", onclick: begin }, "Begin");
  const endButton = el("button", { type: "button", hidden: true, onclick: end }, "End");
  const card = makeCard({
    name: "guess",
    title: "Guess first",
    description: "Say which token comes next, and how sure you are, before the answer is shown. Your guess has the share that you give it; the rest you leave to the model. What comes costs you, and it, −log₂ of its probability.",
    tools: el("div", { class: "settings" }, el("label", {}, el("span", {}, "Text"), textSelect), el("span", { class: "buttons" }, beginButton, endButton)),
  });
  const key = () => JSON.stringify([context.model(), context.text()]);
  const arrayRequest = (what, text, settings) => ({ model: context.model(), text, what, settings });

  async function begin() {
    const ownText = textSelect.value === "own";
    const seed = game && !game.own ? game.seed + 1 : 0;
    await play(async (signal) => {
      const response = ownText ? null : await fetchArrays(arrayRequest("riddle", context.text(), { seed }), signal);
      const text = ownText ? context.text() : response.text;
      return loadOptions({ text, own: ownText, seed, place: 1, rounds: [], said: null }, signal);
    });
  }

  /** What stands so far, and what is offered. */
  async function loadOptions(next, signal) {
    const options = await fetchArrays(arrayRequest("offers", next.text, { place: next.place, seed: next.seed }), signal);
    return { ...next, pieces: options.pieces, offers: options.offers, said: null };
  }

  const submitGuess = (choice) =>
    play(async (signal) => {
      const settings = { place: game.place, share: confidence, ...choice };
      const response = await fetchArrays(arrayRequest("guess", game.text, settings), signal);
      const score = { place: game.place, ...response, share: confidence, settings };
      return { ...game, said: score, rounds: response.came ? [...game.rounds, score] : game.rounds };
    });

  const nextPosition = () => play((signal) => loadOptions({ ...game, place: game.place + 1 }, signal));

  /** Asks, and shows what came of it. */
  function play(make) {
    const previous = game;
    return context.track(
      card.fill(async () => {
        try {
          game = await requests.run(make);
        } catch (error) {
          // A guess that is no token leaves the game as it was.
          if (!(error instanceof ApiError) || !previous || error instanceof StaleResponse) throw error;
          return cardContent(error.message);
        }
        return cardContent();
      }),
    );
  }

  function end() {
    game = null;
    shownKey = null;
    update();
  }

  const table = () => ({
    title: "Rounds",
    columns: ["token", "your guess", "rank", "probability", "your share", "what came", "its rank", "its probability", "your bits", "the model's bits"],
    rows: (game?.rounds ?? []).map((each) => [each.place, each.guess.piece, each.guess.rank, each.guess.probability, each.share, each.came.piece, each.came.rank, each.came.probability, each.reader_bits, each.model_bits]),
  });

  function cardContent(problem = null) {
    shownKey = key();
    endButton.hidden = !game;
    beginButton.textContent = game ? (game.own ? "Begin again" : "Another one") : "Begin";
    // Only what comes after the reader's own sentence is shown elsewhere on the page.
    onCover(Boolean(game?.own && !(game.place === game.pieces.length && game.said)));
    return {
      caption: scoreCaption(),
      python: game?.said ? pythonCall("guessing", "guess", arrayRequest("guess", game.text), game.said.settings) : null,
      tables: () => [table()],
      files: { csv: async () => tablesCsv([table()]) },
      mount: (body) => paint(body, problem),
    };
  }

  function computeTotals() {
    const rounds = game?.rounds ?? [];
    const sum = (name) => rounds.reduce((total, each) => total + (each[name] ?? Infinity), 0);
    return { count: rounds.length, right: rounds.filter((each) => each.right).length, reader: sum("reader_bits"), model: sum("model_bits") };
  }

  function scoreCaption() {
    const totals = computeTotals();
    if (!totals.count) return null;
    const comparison = Math.abs(totals.reader - totals.model) < 0.005 ? "as many as" : totals.reader < totals.model ? "fewer than" : "more than";
    return `${totals.count} token${totals.count === 1 ? "" : "s"}, ${totals.right} guessed: you needed ${totals.reader.toFixed(2)} bits, ${comparison} the model's ${totals.model.toFixed(2)}.`;
  }

  function paint(body, problem) {
    const totals = computeTotals();
    Object.assign(body.dataset, { place: game?.place ?? "", rounds: totals.count, reader: totals.reader, model: totals.model, state: !game ? "idle" : game.said ? "said" : "asked" });
    if (!game) {
      body.replaceChildren(el("p", { class: "quiet" }, "One token after another; the score runs along."));
      return { update: () => {}, state: () => ({}), svg: () => null, csv: () => null };
    }
    const shown = game.pieces.slice(0, game.place).map((piece, position) => {
      const score = game.rounds.find((each) => each.place === position);
      const level = score ? Math.min(5, Math.floor((score.model_bits ?? Infinity) / 1.5)) : 0;
      return el("span", { class: `piece heat-${level}`, title: score ? `${bitsOf(score.model_bits)} bits for the model` : "" }, piece);
    });
    body.replaceChildren(
      el("div", { class: "written mono" }, ...shown, el("span", { class: "piece blank-token" }, game.said?.came?.piece ?? "?")),
      game.said ? resultNode() : guessForm(problem),
    );
    (game.said ? body.querySelector("button.strong") : body.querySelector("input[type=text]"))?.focus({ preventScroll: true });
    return { update: () => {}, state: () => ({ place: game.place }), svg: () => null, csv: () => null };
  }

  function guessForm(problem) {
    const input = el("input", { type: "text", name: "guess", size: 16, "aria-label": "your guess", placeholder: "type a word", autocomplete: "off" });
    return el(
      "div",
      {},
      problem ? el("p", { class: "problem", role: "alert" }, `${problem}.`) : null,
      el(
        "form",
        { class: "settings", onsubmit: (event) => (event.preventDefault(), submitGuess({ word: input.value })) },
        el("label", {}, el("span", {}, "Your guess"), input),
        slider({ label: "How sure", name: "share", min: 0.05, max: 0.95, step: 0.05, value: confidence, format: (v) => percent(v), oninput: (v) => (confidence = v) }),
        el("button", { type: "submit", class: "strong" }, "Guess"),
      ),
      el("p", { class: "quiet" }, game.place < game.pieces.length ? "Or choose one; the token that comes is among them:" : "The text ends here: what would the model go on with? Or choose one:"),
      el("div", { class: "chips" }, ...game.offers.map((each) => el("button", { type: "button", class: "chip", data: { id: each.id }, onclick: () => submitGuess({ token: each.id }) }, each.piece))),
    );
  }

  function resultNode() {
    const { guess, came: actual, likeliest, right: correct } = game.said;
    const describe = (each) => `‘${each.piece}’ (rank ${each.rank.toLocaleString("en-US")}, ${percent(each.probability)}, ${bitsOf(each.bits)} bits)`;
    const top = likeliest.slice(0, 3).map((each) => `${each.piece} ${percent(each.probability)}`).join(", ");
    const last = game.place >= game.pieces.length;
    return el(
      "div",
      { class: "answer", data: { guess: guess.id, rank: guess.rank, probability: guess.probability, bits: guess.bits, reader: game.said.reader_bits ?? "", model: game.said.model_bits ?? "", right: String(correct) } },
      el("p", {}, correct ? `Right: ${describe(guess)} came.` : actual ? `You said ${describe(guess)}; what came is ${describe(actual)}.` : `You said ${describe(guess)}; nothing comes after the text, so nothing is scored.`),
      actual ? el("p", { class: "totals" }, el("span", {}, "you ", el("b", {}, `${bitsOf(game.said.reader_bits)} bits`)), el("span", {}, "the model ", el("b", {}, `${bitsOf(game.said.model_bits)} bits`))) : null,
      el("p", { class: "quiet" }, `The model thought: ${top}.`),
      last ? el("p", { class: "quiet" }, "That was the whole text.") : el("button", { type: "button", class: "strong", onclick: nextPosition }, "Next token"),
    );
  }

  /** Another model or sentence ends the game. */
  function update() {
    card.root.hidden = context.trace()?.architecture === "encoder-decoder"; // which writes another text
    if (shownKey === key()) return undefined;
    requests.cancel();
    game = null;
    return card.fill(async () => cardContent());
  }

  return { root: card.root, update, destroy: () => requests.cancel() };
}
