// Generate: a text token by token. Each chip is coloured by its probability; a click shows what else could have come,
// what it looks at, and takes another way from there. Under it three ways of choosing side by side, and how fast it is.

import { postJson, ApiError, StaleResponse, latestRequest } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { el, slider } from "../dom.js";
import { cellText, pythonLiteral, percent } from "../format.js";
import { generationAttentionCard } from "./generation_attention.js";
import { generationSpeedCard } from "./generation_speed.js";
import { decodingComparisonCard } from "./decoding_comparison.js";

const KS = [0, 1, 5, 10, 20, 50, 100];

export function mount(root, context) {
  const asking = latestRequest();
  const USUAL = { temperature: 0.8, top_k: 0, top_p: 1, seed: 0 };
  const how = Object.fromEntries(Object.entries(USUAL).map(([name, usual]) => [name, context.state.number(name) ?? usual]));
  let steps = []; // what was written: {id, piece, probability, alternatives, text, forced}
  let shown = 0; // how many of them are on the page
  let chosen = null; // the step whose alternatives are shown
  let playing = false;
  let from = null; // the model and text that it was written from

  const play = el("button", { type: "button", class: "strong", onclick: () => (playing ? pause() : start()) }, "Play");
  const step = el("button", { type: "button", onclick: () => (pause(), context.track(oneMore())) }, "Step");
  const back = el("button", { type: "button", onclick: () => (pause(), show(shown - 1)) }, "Back");
  const anew = el("button", { type: "button", onclick: () => (pause(), begin()) }, "Begin anew");
  const seed = el("input", { type: "number", min: 0, step: 1, value: how.seed, name: "seed", onchange: () => set("seed")(Math.max(0, Math.floor(Number(seed.value)) || 0)) });
  const most = el("input", { type: "number", min: 1, max: 1000, step: 1, value: 60, name: "most" });
  const tools = el(
    "div",
    { class: "sliders" },
    slider({ label: "Temperature", name: "temperature", min: 0, max: 2, step: 0.05, value: how.temperature, words: (v) => (v === 0 ? "0, greedy" : v.toFixed(2)), oninput: set("temperature") }),
    slider({ label: "Top-k", name: "top_k", min: 0, max: KS.length - 1, step: 1, value: Math.max(0, KS.indexOf(how.top_k)), words: (v) => (KS[v] ? String(KS[v]) : "all"), oninput: (v) => set("top_k")(KS[v]) }),
    slider({ label: "Top-p", name: "top_p", min: 0.05, max: 1, step: 0.05, value: how.top_p, words: (v) => v.toFixed(2), oninput: set("top_p") }),
    el("label", {}, el("span", {}, "Seed"), seed),
    el("label", {}, el("span", {}, "At most"), most),
    el("div", { class: "buttons" }, play, step, back, anew),
  );
  const written = makeCard({ name: "written", title: "What it writes", tools });
  const others = makeCard({ name: "alternatives", title: "What else could have come" });
  const looks = generationAttentionCard(context);
  const three = decodingComparisonCard(context, () => how);
  const fast = generationSpeedCard(context);
  root.replaceChildren(el("div", { class: "cards wide-first" }, written.root, looks.root, others.root, fast.root, three.root));

  function set(name) {
    return (value) => {
      how[name] = value;
      context.state.set({ [name]: value === USUAL[name] ? null : value }, { quiet: true });
      // What stands was chosen another way; it stays, and what follows is chosen this way.
    };
  }

  function begin() {
    asking.drop();
    playing = false;
    play.textContent = "Play";
    steps = [];
    chosen = null;
    from = JSON.stringify([context.model(), context.text()]);
    return show(0);
  }

  /** A step after those that were asked for before it, of the same text. */
  let turn = Promise.resolve();
  const oneMore = () => {
    const of = from;
    return (turn = turn.then(() => (of === from && root.isConnected ? forward() : undefined)));
  };

  /** One more token: one that is known already, or a new one. */
  async function forward() {
    if (shown < steps.length) return show(shown + 1);
    if (steps.at(-1)?.ended) return undefined;
    const asked = { model: context.model(), text: context.text(), written: steps.map((each) => each.id), show: 12, ...how };
    try {
      const began = performance.now();
      const said = await asking.ask((signal) => postJson("step", asked, signal));
      steps.push({ ...said, milliseconds: performance.now() - began });
      chosen = null;
      return show(steps.length);
    } catch (error) {
      if (error instanceof StaleResponse) return undefined;
      pause();
      if (!(error instanceof ApiError)) throw error;
      return written.fail(error.message);
    }
  }

  async function start() {
    playing = true;
    play.textContent = "Pause";
    while (playing && root.isConnected) {
      const known = shown < steps.length;
      if (!known && (steps.length >= Number(most.value) || steps.at(-1)?.ended)) break;
      await context.track(Promise.resolve(forward()));
      if (known) await new Promise((done) => setTimeout(done, 120));
    }
    pause();
  }

  function pause() {
    playing = false;
    play.textContent = "Play";
    looks.update(ids());
  }

  /** Another token in the place of step `place`; what came after it goes. */
  function branch(place, other) {
    pause();
    asking.drop();
    const old = steps[place];
    steps = steps.slice(0, place);
    steps.push({ ...old, id: other.id, piece: other.piece, probability: other.probability, rank: null, ended: false, forced: true, text: null });
    chosen = null;
    return show(steps.length);
  }

  function show(count) {
    shown = Math.max(0, Math.min(steps.length, count));
    back.disabled = shown === 0;
    step.disabled = shown === steps.length && Boolean(steps.at(-1)?.ended);
    if (chosen !== null && chosen >= shown) chosen = null;
    const rows = steps.slice(0, shown).map((each, place) => [place, each.piece, each.id, each.probability, each.rank, each.entropy]);
    const table = { title: "Tokens written", columns: ["step", "token", "id", "probability", "rank", "entropy (bits)"], rows };
    const first = written.fill(async () => ({
      caption: looked(),
      python: snippet(),
      tables: () => [table],
      files: { csv: async () => tablesCsv([table]) },
      mount: paint,
    }));
    return context.track(Promise.all([first, alternatives(), playing ? undefined : looks.update(ids())]));
  }

  /** What was written up to the step that is chosen, or the last one. */
  const ids = () => steps.slice(0, (chosen ?? shown - 1) + 1).map((each) => each.id);

  function looked() {
    const now = steps.slice(0, shown);
    if (!now.length) return "Step writes one token; Play goes on until the end.";
    const mean = now.reduce((sum, each) => sum - Math.log2(each.probability), 0) / now.length;
    const wild = now.reduce((a, b) => (b.probability < a.probability ? b : a));
    const end = now.at(-1).ended ? " The text has ended." : "";
    return `${now.length} token${now.length === 1 ? "" : "s"}, ${mean.toFixed(2)} bits each on average; least likely was ‘${wild.piece}’ with ${percent(wild.probability)}.${end}`;
  }

  function paint(body) {
    const now = steps.slice(0, shown);
    const nodes = now.map((each, place) => {
      // Likely tokens are light, surprising ones strong: how many halvings of probability each took.
      const level = Math.min(5, Math.floor(-Math.log2(Math.max(each.probability, 1e-9)) / 1.5));
      return el(
        "button",
        {
          type: "button", class: `piece heat-${level}${each.forced ? " forced" : ""}`, "aria-pressed": String(place === chosen),
          data: { place, id: each.id, probability: each.probability },
          title: `${percent(each.probability)}${each.rank ? `, rank ${each.rank}` : ", chosen by hand"}`,
          onclick: () => ((chosen = place), show(shown)),
        },
        each.piece,
      );
    });
    const source = context.traced()?.architecture === "encoder-decoder" ? el("span", { class: "source" }, "from ") : null;
    const prompt = el("span", { class: "prompt" }, source, context.text(), source ? " → " : "");
    body.replaceChildren(el("div", { class: "written mono" }, prompt, ...nodes));
    Object.assign(body.dataset, { count: now.length, text: now.at(-1)?.text ?? "" });
    return { update: () => {}, state: () => ({ count: shown, chosen }), svg: () => null, csv: () => null };
  }

  function alternatives() {
    const place = chosen ?? shown - 1;
    const each = steps[place];
    others.root.hidden = !each;
    if (!each) return undefined;
    const table = { title: "Alternatives", columns: ["token", "id", "logit", "probability", "after the cuts"], rows: each.alternatives.map((r) => [r.piece, r.id, r.logit, r.probability, r.share]) };
    return others.fill(async () => ({
      title: `Step ${place}: ‘${each.piece}’ and what else could have come`,
      caption: `Entropy ${each.entropy.toFixed(2)} bits; ${each.kept.toLocaleString("en-US")} tokens could be drawn. A click takes another way.`,
      tables: () => [table],
      files: { csv: async () => tablesCsv([table]) },
      mount(body) {
        const top = Math.max(...each.alternatives.map((row) => row.probability), 1e-12);
        body.replaceChildren(
          el("ol", { class: "choices" }, ...each.alternatives.map((row) =>
            el(
              "li",
              { class: `choice${row.kept ? "" : " cut"}${row.id === each.id ? " taken" : ""}`, data: { id: row.id, probability: row.probability } },
              el("button", { type: "button", class: "mono piece-name", title: "take this one", onclick: () => branch(place, row) }, row.piece),
              el("span", { class: "bar-room" }, el("span", { class: "bar", style: { width: `${((100 * row.probability) / top).toFixed(3)}%` } })),
              el("span", { class: "n" }, percent(row.probability)),
              el("span", { class: "n soft" }, `logit ${cellText(row.logit)}`),
            ),
          )),
        );
        return { update: () => {}, state: () => ({ place }), svg: () => null, csv: () => null };
      },
    }));
  }

  const snippet = () =>
    `import clearstory\n\nmade = clearstory.generate(${pythonLiteral(context.model())}, ${pythonLiteral(context.text())}, max_tokens=${Math.max(1, shown)}, temperature=${how.temperature}, top_k=${how.top_k}, top_p=${how.top_p}, seed=${how.seed})\nprint(made.text)\n`;

  return {
    update() {
      const same = from === JSON.stringify([context.model(), context.text()]);
      return Promise.all([same ? looks.update() : begin(), three.update(), fast.update()]);
    },
    end: () => (asking.drop(), (playing = false), [looks, three, fast].forEach((each) => each.end())),
  };
}
