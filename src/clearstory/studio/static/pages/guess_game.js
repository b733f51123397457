// Guess game: the reader guesses the next token before the model's prediction is shown; both are scored in bits.

import { latestRequest, fetchArrays, ApiError, StaleResponse } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { el, slider } from "../dom.js";
import { pythonCall, percent as percent } from "../format.js";

/** Bits with two decimals; null stands for infinity, the bits of an impossible token. */
const bitsOf = (value) => (value === null ? "∞" : value.toFixed(2));

/** `onCover(true)` is called while the predictions on the page must be hidden. */
export function guessGameCard(context, { onCover }) {
  const requests = latestRequest();
  let game = null; // {text, own, seed, position, pieces, options, rounds, result}
  let confidence = 0.5;
  let shownKey = null; // the model and sentence of the game
  const textSelect = el("select", { name: "guess-text" }, el("option", { value: "unseen" }, "an unseen example sentence"), el("option", { value: "own" }, "your sentence and its continuation"));
  const beginButton = el("button", { type: "button", class: "strong", onclick: begin }, "Start");
  const endButton = el("button", { type: "button", hidden: true, onclick: end }, "End");
  const card = makeCard({
    name: "guess",
    title: "Guess the next token",
    description: "Guess the next token and state your confidence before the prediction is shown. Your guess gets that probability, the other tokens share the rest in the model's proportions. Both are scored by −log₂ of the actual token's probability.",
    tools: el("div", { class: "settings" }, el("label", {}, el("span", {}, "Text"), textSelect), el("span", { class: "buttons" }, beginButton, endButton)),
  });
  const key = () => JSON.stringify([context.input()]);
  const arrayRequest = (name, text, settings) => ({ model: context.model(), text, function: name, settings });

  async function begin() {
    const ownText = textSelect.value === "own";
    const seed = game && !game.own ? game.seed + 1 : 0;
    await play(async (signal) => {
      const response = ownText ? null : await fetchArrays(arrayRequest("guess_sentence", context.text(), { seed }), signal);
      const text = ownText ? context.text() : response.text;
      return loadOptions({ text, own: ownText, seed, position: 1, rounds: [], result: null }, signal);
    });
  }

  /** Loads the tokens so far and the options for the next one. */
  async function loadOptions(next, signal) {
    const options = await fetchArrays(arrayRequest("guess_options", next.text, { position: next.position, seed: next.seed }), signal);
    return { ...next, pieces: options.pieces, options: options.options, result: null };
  }

  const submitGuess = (choice) =>
    play(async (signal) => {
      const settings = { position: game.position, confidence, ...choice };
      const response = await fetchArrays(arrayRequest("score_guess", game.text, settings), signal);
      const score = { position: game.position, ...response, confidence, settings };
      return { ...game, result: score, rounds: response.actual ? [...game.rounds, score] : game.rounds };
    });

  const nextPosition = () => play((signal) => loadOptions({ ...game, position: game.position + 1 }, signal));

  /** Sends a request and shows the resulting game. */
  function play(make) {
    const previous = game;
    return context.track(
      card.fill(async () => {
        try {
          game = await requests.run(make);
        } catch (error) {
          // An invalid guess leaves the game unchanged.
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
    columns: ["position", "guess", "guess rank", "guess probability", "confidence", "actual token", "actual rank", "actual probability", "reader bits", "model bits"],
    rows: (game?.rounds ?? []).map((each) => [each.position, each.guess.piece, each.guess.rank, each.guess.probability, each.confidence, each.actual.piece, each.actual.rank, each.actual.probability, each.reader_bits, each.model_bits]),
  });

  function cardContent(problem = null) {
    shownKey = key();
    endButton.hidden = !game;
    beginButton.textContent = game ? (game.own ? "Restart" : "Next sentence") : "Start";
    // The other cards show the prediction after the whole sentence, so they are hidden for the reader's own sentence.
    onCover(Boolean(game?.own && !(game.position === game.pieces.length && game.result)));
    return {
      caption: scoreCaption(),
      python: game?.result ? pythonCall("guess_game", "score_guess", arrayRequest("score_guess", game.text), game.result.settings) : null,
      tables: () => [table()],
      files: { csv: async () => tablesCsv([table()]) },
      mount: (body) => paint(body, problem),
    };
  }

  function computeTotals() {
    const rounds = game?.rounds ?? [];
    const sum = (name) => rounds.reduce((total, each) => total + (each[name] ?? Infinity), 0);
    return { count: rounds.length, correct: rounds.filter((each) => each.correct).length, reader: sum("reader_bits"), model: sum("model_bits") };
  }

  function scoreCaption() {
    const totals = computeTotals();
    if (!totals.count) return null;
    const comparison = Math.abs(totals.reader - totals.model) < 0.005 ? "as many as" : totals.reader < totals.model ? "fewer than" : "more than";
    return `${totals.count} token${totals.count === 1 ? "" : "s"}, ${totals.correct} guessed correctly: you needed ${totals.reader.toFixed(2)} bits, ${comparison} the model's ${totals.model.toFixed(2)}.`;
  }

  function paint(body, problem) {
    const totals = computeTotals();
    Object.assign(body.dataset, { position: game?.position ?? "", rounds: totals.count, reader: totals.reader, model: totals.model, state: !game ? "idle" : game.result ? "answered" : "open" });
    if (!game) {
      body.replaceChildren(el("p", { class: "quiet" }, "One token after another, with a running score."));
      return { update: () => {}, state: () => ({}), svg: () => null, csv: () => null };
    }
    const shown = game.pieces.slice(0, game.position).map((piece, position) => {
      const score = game.rounds.find((each) => each.position === position);
      const level = score ? Math.min(5, Math.floor((score.model_bits ?? Infinity) / 1.5)) : 0;
      return el("span", { class: `piece heat-${level}`, title: score ? `${bitsOf(score.model_bits)} bits (model)` : "" }, piece);
    });
    body.replaceChildren(
      el("div", { class: "written mono" }, ...shown, el("span", { class: "piece blank-token" }, game.result?.actual?.piece ?? "?")),
      game.result ? resultNode() : guessForm(problem),
    );
    (game.result ? body.querySelector("button.strong") : body.querySelector("input[type=text]"))?.focus({ preventScroll: true });
    return { update: () => {}, state: () => ({ position: game.position }), svg: () => null, csv: () => null };
  }

  function guessForm(problem) {
    const input = el("input", { type: "text", name: "guess", size: 16, "aria-label": "your guess", placeholder: "type a word", autocomplete: "off" });
    return el(
      "div",
      {},
      problem ? el("p", { class: "hint", role: "status" }, `${problem}.`) : null,
      el(
        "form",
        { class: "settings", onsubmit: (event) => (event.preventDefault(), submitGuess({ word: input.value })) },
        el("label", {}, el("span", {}, "Your guess"), input),
        slider({ label: "Confidence", name: "confidence", min: 0.05, max: 0.95, step: 0.05, value: confidence, format: (v) => percent(v), oninput: (v) => (confidence = v) }),
        el("button", { type: "submit", class: "strong" }, "Guess"),
      ),
      el("p", { class: "quiet" }, game.position < game.pieces.length ? "Or choose an option; the actual token is among them:" : "End of the text: guess how the model continues it, or choose an option:"),
      el("div", { class: "chips" }, ...game.options.map((each) => el("button", { type: "button", class: "chip", data: { id: each.id }, onclick: () => submitGuess({ token_id: each.id }) }, each.piece))),
    );
  }

  function resultNode() {
    const { guess, actual, likeliest, correct } = game.result;
    const describe = (each) => `‘${each.piece}’ (rank ${each.rank.toLocaleString("en-US")}, ${percent(each.probability)}, ${bitsOf(each.bits)} bits)`;
    const top = likeliest.slice(0, 3).map((each) => `${each.piece} ${percent(each.probability)}`).join(", ");
    const last = game.position >= game.pieces.length;
    return el(
      "div",
      { class: "answer", data: { guess: guess.id, rank: guess.rank, probability: guess.probability, bits: guess.bits, reader: game.result.reader_bits ?? "", model: game.result.model_bits ?? "", correct: String(correct) } },
      el("p", {}, correct ? `Correct: ${describe(guess)}.` : actual ? `Your guess: ${describe(guess)}; actual token: ${describe(actual)}.` : `Your guess: ${describe(guess)}. The text has no further token, so there is no score.`),
      actual ? el("p", { class: "totals" }, el("span", {}, "you ", el("b", {}, `${bitsOf(game.result.reader_bits)} bits`)), el("span", {}, "the model ", el("b", {}, `${bitsOf(game.result.model_bits)} bits`))) : null,
      el("p", { class: "quiet" }, `Model prediction: ${top}.`),
      last ? el("p", { class: "quiet" }, "End of the text.") : el("button", { type: "button", class: "strong", onclick: nextPosition }, "Next token"),
    );
  }

  /** Ends the game for another model or sentence. */
  function update() {
    card.root.hidden = context.trace()?.architecture === "encoder-decoder"; // it generates a target, not a continuation
    if (shownKey === key()) return undefined;
    requests.cancel();
    game = null;
    return card.fill(async () => cardContent());
  }

  return { root: card.root, update, destroy: () => requests.cancel() };
}
