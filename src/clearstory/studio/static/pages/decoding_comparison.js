// Decoding comparison: greedy decoding, sampling and beam search side by side, and the beam search as a tree.

import { fetchFile, latestRequest, fetchArrays } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as mountTree } from "../render/tree.js";
import { el } from "../dom.js";
import { cellText, pythonCall, percent } from "../format.js";

/** `samplingSettings()` returns the page's temperature, top_k, top_p and seed. */
export function decodingComparisonCard(context, samplingSettings) {
  const requests = latestRequest();
  const numberField = (name, defaultValue, min, max, step = 1) => {
    const input = el("input", { type: "number", min, max, step, name });
    input.value = context.state.number(name) ?? defaultValue;
    return input;
  };
  const [beam, tokens, penalty] = [numberField("beam", 3, 2, 10), numberField("tokens", 12, 1, 64), numberField("penalty", 1, -5, 5, 0.1)];
  const compute = el("button", { type: "button", class: "strong", onclick: load }, "Generate all three");
  const stop = el("button", { type: "button", onclick: () => (requests.cancel(), showIdle()) }, "Stop");
  const tools = el(
    "div",
    { class: "settings" },
    el("label", {}, el("span", {}, "Beams"), beam),
    el("label", {}, el("span", {}, "Tokens"), tokens),
    el("label", {}, el("span", {}, "Length penalty"), penalty),
    el("span", { class: "buttons" }, compute, stop),
  );
  const card = makeCard({
    name: "decoding-comparison",
    title: "Greedy decoding, sampling and beam search",
    description: "Score: sum of the tokens' log-probabilities divided by length ** penalty.",
    tools,
  });
  card.root.classList.add("full-width");
  let shownKey = null; // the model and prompt of the shown result

  const key = () => JSON.stringify([context.input()]);

  function showIdle() {
    shownKey = null;
    card.renderer()?.destroy?.();
    card.body.replaceChildren(el("p", { class: "quiet" }, "Beam search takes a while. Press Generate all three to start."));
    card.root.dataset.state = "waiting";
  }

  function load() {
    const { temperature, top_k, top_p, seed } = samplingSettings();
    const settings = { max_tokens: Number(tokens.value), beam: Number(beam.value), length_penalty: Number(penalty.value), temperature, top_k, top_p, seed };
    const request = { ...context.input(), function: "compare_decoding", settings };
    shownKey = key();
    context.state.set({ beam: settings.beam, tokens: settings.max_tokens, penalty: settings.length_penalty === 1 ? null : settings.length_penalty }, { quiet: true });
    return context.track(
      card.fill(async () => {
        const response = await requests.run((signal) => fetchArrays(request, signal));
        const tables = [continuationsTable("The three methods", response.methods.map((each) => [each.name, each])), continuationsTable("Final beams", response.beams.map((each, i) => [`beam ${i + 1}`, each])), nodesTable(response)];
        const view = { model: request.model, text: request.text, view: "generation", settings: { max_tokens: settings.max_tokens, beam: settings.beam } };
        return {
          caption: response.caption,
          python: pythonCall("decoding_comparison", "compare_decoding", request, settings),
          tables: () => tables,
          // The view `generation` draws the same tree for a length penalty of 1.
          files: { csv: async () => tablesCsv(tables), ...(settings.length_penalty === 1 ? { svg: () => fetchFile(view, "svg") } : {}) },
          mount: (body) => paint(body, response),
        };
      }),
    );
  }

  function paint(body, response) {
    card.renderer()?.destroy?.();
    const nodeText = el("p", { class: "leaf-text", "aria-live": "polite" }, "Hover a token to read the text up to it; click or press Enter to pin it; use the arrow keys to move.");
    const container = el("div", { class: "beams" });
    body.replaceChildren(el("div", { class: "decoding-methods" }, ...response.methods.map(methodColumn)), el("h3", {}, "Beam search tree"), container, nodeText);
    const showNode = ({ point }) => {
      if (point === null) return;
      const node = response.tree.nodes[point];
      nodeText.replaceChildren(el("b", {}, `score ${response.scores[point].toFixed(3)}`), ` · log-probability ${node.value.toFixed(3)} · ${node.status}: `, el("span", { class: "prompt mono" }, context.text()), el("span", { class: "mono" }, response.texts[point]));
      Object.assign(nodeText.dataset, { node: point, score: response.scores[point], text: response.texts[point] });
    };
    const treeRenderer = mountTree(container, response.tree, { onPick: showNode });
    Object.assign(body.dataset, { beams: response.beams.length, nodes: response.tree.nodes.length });
    return treeRenderer;
  }

  return {
    root: card.root,
    /** Clears the result for another model or prompt. A link with a number of beams starts at once. */
    update() {
      if (shownKey === key()) return undefined;
      if (shownKey === null && context.state.get("beam") !== null && context.model() && card.root.dataset.state === "empty") return load();
      return showIdle();
    },
    destroy: () => (requests.cancel(), card.renderer()?.destroy?.()),
  };
}

/** One decoding method: its tokens coloured by surprisal, and its score. */
function methodColumn(method) {
  const tokenNodes = method.ids.map((id, index) => {
    const probability = Math.exp(method.logprobs[index]);
    const level = Math.min(5, Math.floor(-Math.log2(Math.max(probability, 1e-9)) / 1.5));
    return el("span", { class: `piece heat-${level}`, data: { id, logprob: method.logprobs[index] }, title: `${percent(probability)}, id ${id}` }, method.pieces[index]);
  });
  const totalItem = (name, value, key) => el("span", { data: { total: key, value } }, `${name} `, el("b", {}, cellText(value)));
  return el(
    "section",
    { class: "decoding-method", data: { method: method.name } },
    el("h3", {}, method.name),
    el("div", { class: "written mono" }, ...tokenNodes),
    el("p", { class: "totals" }, totalItem("score", method.score, "score"), totalItem("log-probability", method.logprob, "total"), totalItem("tokens", method.ids.length, "tokens")),
    el("p", { class: "quiet" }, method.ended ? "End of text." : "Stopped at the maximum length."),
  );
}

const continuationsTable = (title, rows) => ({
  title,
  columns: ["method", "text", "tokens", "log-probability", "score"],
  rows: rows.map(([name, each]) => [name, each.text, each.ids.length, each.logprob, each.score]),
});

const nodesTable = (response) => ({
  title: "Beam search tree",
  columns: ["node", "parent", "token", "log-probability", "score", "status", "text"],
  rows: response.tree.nodes.map((each, index) => [index, each.parent, each.text, each.value, response.scores[index], each.status, response.texts[index]]),
});
