// Generate page: text generated token by token. Each token is coloured by its probability; a click shows its alternatives and
// its attention, and an alternative can be chosen instead. Below: a comparison of decoding methods, and the generation speed.

import { postJson, ApiError, StaleResponse, latestRequest } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { el, slider } from "../dom.js";
import { cellText, percent, promptKeywords, pythonLiteral } from "../format.js";
import { generationAttentionCard } from "./generation_attention.js";
import { generationSpeedCard } from "./generation_speed.js";
import { decodingComparisonCard } from "./decoding_comparison.js";

export function mount(root, context) {
  const requests = latestRequest();
  const DEFAULTS = { temperature: 0.8, top_k: 0, top_p: 1, seed: 0, ...context.trace()?.sampling }; // the model's own where it has them
  const sampling = Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, context.state.number(name) ?? value]));
  const TOP_K_VALUES = [...new Set([0, 1, 5, 10, 20, 50, 100, sampling.top_k])].sort((a, b) => a - b);
  let tokens = []; // generated tokens: {id, piece, probability, alternatives, text, forced}
  let shownCount = 0; // number of tokens shown
  let selected = null; // index of the token whose alternatives are shown
  let playing = false;
  let sourceKey = null; // the model and prompt of the tokens

  const playButton = el("button", { type: "button", class: "strong", onclick: () => (playing ? pause() : start()) }, "Play");
  const stepButton = el("button", { type: "button", onclick: () => (pause(), context.track(queueToken())) }, "Step");
  const backButton = el("button", { type: "button", onclick: () => (pause(), showTokens(shownCount - 1)) }, "Back");
  const restartButton = el("button", { type: "button", onclick: () => (pause(), restart()) }, "Restart");
  const seed = el("input", { type: "number", min: 0, step: 1, value: sampling.seed, name: "seed", onchange: () => set("seed")(Math.max(0, Math.floor(Number(seed.value)) || 0)) });
  const maxTokens = el("input", { type: "number", min: 1, max: 1000, step: 1, value: 60, name: "max-tokens" });
  const tools = el(
    "div",
    { class: "sliders" },
    slider({ label: "Temperature", name: "temperature", min: 0, max: 2, step: 0.05, value: sampling.temperature, format: (v) => (v === 0 ? "0, greedy" : v.toFixed(2)), oninput: set("temperature") }),
    slider({ label: "Top-k", name: "top_k", min: 0, max: TOP_K_VALUES.length - 1, step: 1, value: TOP_K_VALUES.indexOf(sampling.top_k), format: (v) => (TOP_K_VALUES[v] ? String(TOP_K_VALUES[v]) : "all"), oninput: (v) => set("top_k")(TOP_K_VALUES[v]) }),
    slider({ label: "Top-p", name: "top_p", min: 0.05, max: 1, step: 0.05, value: sampling.top_p, format: (v) => v.toFixed(2), oninput: set("top_p") }),
    el("label", {}, el("span", {}, "Seed"), seed),
    el("label", {}, el("span", {}, "Max tokens"), maxTokens),
    el("div", { class: "buttons" }, playButton, stepButton, backButton, restartButton),
  );
  const generatedCard = makeCard({ name: "generated", title: "Generated text", tools });
  const alternativesCard = makeCard({ name: "alternatives", title: "Alternatives" });
  const attentionCard = generationAttentionCard(context);
  const decodingCard = decodingComparisonCard(context, () => sampling);
  const speedCard = generationSpeedCard(context);
  root.replaceChildren(el("div", { class: "cards wide-first" }, generatedCard.root, attentionCard.root, alternativesCard.root, speedCard.root, decodingCard.root));

  function set(name) {
    return (value) => {
      sampling[name] = value;
      context.state.set({ [name]: value === DEFAULTS[name] ? null : value }, { quiet: true });
      // Existing tokens are kept; the new setting applies to the following ones.
    };
  }

  function restart() {
    requests.cancel();
    playing = false;
    playButton.textContent = "Play";
    tokens = [];
    selected = null;
    sourceKey = JSON.stringify([context.input()]);
    return showTokens(0);
  }

  /** Queues one more token after those already requested for the same prompt. */
  let queue = Promise.resolve();
  const queueToken = () => {
    const sourceAtStart = sourceKey;
    return (queue = queue.then(() => (sourceAtStart === sourceKey && root.isConnected ? forward() : undefined)));
  };

  /** Shows one more token, requesting it if necessary. */
  async function forward() {
    if (shownCount < tokens.length) return showTokens(shownCount + 1);
    if (tokens.at(-1)?.ended) return undefined;
    const request = { ...context.input(), generated: tokens.map((each) => each.id), show: 12, ...sampling };
    try {
      const startTime = performance.now();
      const response = await requests.run((signal) => postJson("generated-token", request, signal));
      tokens.push({ ...response, milliseconds: performance.now() - startTime });
      selected = null;
      return showTokens(tokens.length);
    } catch (error) {
      if (error instanceof StaleResponse) return undefined;
      pause();
      if (!(error instanceof ApiError)) throw error;
      return generatedCard.fail(error.message);
    }
  }

  async function start() {
    playing = true;
    playButton.textContent = "Pause";
    while (playing && root.isConnected) {
      const isKnown = shownCount < tokens.length;
      if (!isKnown && (tokens.length >= Number(maxTokens.value) || tokens.at(-1)?.ended)) break;
      await context.track(Promise.resolve(forward()));
      if (isKnown) await new Promise((done) => setTimeout(done, 120));
    }
    pause();
  }

  function pause() {
    playing = false;
    playButton.textContent = "Play";
    attentionCard.update(generatedIds());
  }

  /** Replaces the token at an index by an alternative and drops the tokens after it. */
  function branch(index, alternative) {
    pause();
    requests.cancel();
    const replaced = tokens[index];
    tokens = tokens.slice(0, index);
    tokens.push({ ...replaced, id: alternative.id, piece: alternative.piece, probability: alternative.probability, rank: null, ended: false, forced: true, text: null });
    selected = null;
    return showTokens(tokens.length);
  }

  function showTokens(count) {
    shownCount = Math.max(0, Math.min(tokens.length, count));
    backButton.disabled = shownCount === 0;
    stepButton.disabled = shownCount === tokens.length && Boolean(tokens.at(-1)?.ended);
    if (selected !== null && selected >= shownCount) selected = null;
    const rows = tokens.slice(0, shownCount).map((each, index) => [index, each.piece, each.id, each.probability, each.rank, each.entropy]);
    const table = { title: "Generated tokens", columns: ["step", "token", "id", "probability", "rank", "entropy (bits)"], rows };
    const first = generatedCard.fill(async () => ({
      caption: generatedCaption(),
      python: snippet(),
      tables: () => [table],
      files: { csv: async () => tablesCsv([table]) },
      mount: renderTokens,
    }));
    return context.track(Promise.all([first, fillAlternatives(), playing ? undefined : attentionCard.update(generatedIds())]));
  }

  /** Ids of the tokens up to the selected one, or to the last one. */
  const generatedIds = () => tokens.slice(0, (selected ?? shownCount - 1) + 1).map((each) => each.id);

  function generatedCaption() {
    const visible = tokens.slice(0, shownCount);
    if (!visible.length) return "Step generates one token; Play continues until the end of the text.";
    const mean = visible.reduce((sum, each) => sum - Math.log2(each.probability), 0) / visible.length;
    const leastLikely = visible.reduce((a, b) => (b.probability < a.probability ? b : a));
    const end = visible.at(-1).ended ? " End of text." : "";
    return `${visible.length} token${visible.length === 1 ? "" : "s"}, ${mean.toFixed(2)} bits per token on average; the least likely was ‘${leastLikely.piece}’ with ${percent(leastLikely.probability)}.${end}`;
  }

  function renderTokens(body) {
    const visible = tokens.slice(0, shownCount);
    const nodes = visible.map((each, index) => {
      // Colour by surprisal in bits: likely tokens are light.
      const level = Math.min(5, Math.floor(-Math.log2(Math.max(each.probability, 1e-9)) / 1.5));
      return el(
        "button",
        {
          type: "button", class: `piece heat-${level}${each.forced ? " forced" : ""}`, "aria-pressed": String(index === selected),
          data: { position: index, id: each.id, probability: each.probability },
          title: `${percent(each.probability)}${each.rank ? `, rank ${each.rank}` : ", chosen manually"}`,
          onclick: () => ((selected = index), showTokens(shownCount)),
        },
        each.piece,
      );
    });
    const isChat = context.trace()?.prompt.chat;
    const source = isChat || context.trace()?.architecture === "encoder-decoder" ? el("span", { class: "source" }, isChat ? "user: " : "from ") : null;
    const prompt = el("span", { class: "prompt" }, source, context.text(), source ? " → " : "");
    body.replaceChildren(el("div", { class: "written mono" }, prompt, ...nodes));
    Object.assign(body.dataset, { count: visible.length, text: visible.at(-1)?.text ?? "" });
    return { update: () => {}, state: () => ({ count: shownCount, chosen: selected }), svg: () => null, csv: () => null };
  }

  function fillAlternatives() {
    const index = selected ?? shownCount - 1;
    const each = tokens[index];
    alternativesCard.root.hidden = !each;
    if (!each) return undefined;
    const table = { title: "Alternatives", columns: ["token", "id", "logit", "probability", "sampling probability"], rows: each.alternatives.map((r) => [r.piece, r.id, r.logit, r.probability, r.sampling_probability]) };
    return alternativesCard.fill(async () => ({
      title: `Token ${index}: ‘${each.piece}’ and its alternatives`,
      caption: `Entropy ${each.entropy.toFixed(2)} bits; ${each.kept.toLocaleString("en-US")} tokens can be sampled. Click one to continue with it instead.`,
      tables: () => [table],
      files: { csv: async () => tablesCsv([table]) },
      mount(body) {
        const maxProbability = Math.max(...each.alternatives.map((row) => row.probability), 1e-12);
        body.replaceChildren(
          el("ol", { class: "choices" }, ...each.alternatives.map((row) =>
            el(
              "li",
              { class: `choice${row.kept ? "" : " cut"}${row.id === each.id ? " taken" : ""}`, data: { id: row.id, probability: row.probability } },
              el("button", { type: "button", class: "mono piece-name", title: "use this token", onclick: () => branch(index, row) }, row.piece),
              el("span", { class: "bar-room" }, el("span", { class: "bar", style: { width: `${((100 * row.probability) / maxProbability).toFixed(3)}%` } })),
              el("span", { class: "n" }, percent(row.probability)),
              el("span", { class: "n soft" }, `logit ${cellText(row.logit)}`),
            ),
          )),
        );
        return { update: () => {}, state: () => ({ position: index }), svg: () => null, csv: () => null };
      },
    }));
  }

  const snippet = () =>
    `import clearstory\n\nmade = clearstory.generate(${pythonLiteral(context.model())}, ${pythonLiteral(context.text())}${promptKeywords(context.prompt())}, max_tokens=${Math.max(1, shownCount)}, temperature=${sampling.temperature}, top_k=${sampling.top_k}, top_p=${sampling.top_p}, seed=${sampling.seed})\nprint(made.text)\n`;

  return {
    update() {
      const same = sourceKey === JSON.stringify([context.input()]);
      return Promise.all([same ? attentionCard.update() : restart(), decodingCard.update(), speedCard.update()]);
    },
    destroy: () => (requests.cancel(), (playing = false), [attentionCard, decodingCard, speedCard].forEach((each) => each.destroy())),
  };
}
