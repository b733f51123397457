// Ways: one text written on greedily, drawn, and by beam search, side by side; the beams as a tree whose leaves can be read.

import { fetchFile, latestRequest, fetchArrays } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as mountTree } from "../render/tree.js";
import { el } from "../dom.js";
import { cellText, pythonCall, percent } from "../format.js";

/** `how()` gives the page's temperature, cuts and seed. */
export function decodingComparisonCard(context, samplingSettings) {
  const requests = latestRequest();
  const numberField = (name, defaultValue, min, max, step = 1) => {
    const input = el("input", { type: "number", min, max, step, name });
    input.value = context.state.number(name) ?? defaultValue;
    return input;
  };
  const [beam, tokens, penalty] = [numberField("beam", 3, 2, 10), numberField("tokens", 12, 1, 64), numberField("penalty", 1, -5, 5, 0.1)];
  const compute = el("button", { type: "button", class: "strong", onclick: load }, "Write all three");
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
    name: "ways",
    title: "Greedy, drawn and by beam search",
    description: "All three are weighed alike: by the sum of their log-probabilities, over their length to the power of the penalty.",
    tools,
  });
  card.root.classList.add("integer");
  let shownKey = null; // what the card shows was written from

  const key = () => JSON.stringify([context.model(), context.text()]);

  function showIdle() {
    shownKey = null;
    card.renderer()?.destroy?.();
    card.body.replaceChildren(el("p", { class: "quiet" }, "Beam search reads a few texts at once for each token, so it begins when asked."));
    card.root.dataset.state = "waiting";
  }

  function load() {
    const { temperature, top_k, top_p, seed } = samplingSettings();
    const settings = { max_tokens: Number(tokens.value), beam: Number(beam.value), length_penalty: Number(penalty.value), temperature, top_k, top_p, seed };
    const request = { model: context.model(), text: context.text(), function: "compare_decoding", settings };
    shownKey = key();
    context.state.set({ beam: settings.beam, tokens: settings.max_tokens, penalty: settings.length_penalty === 1 ? null : settings.length_penalty }, { quiet: true });
    return context.track(
      card.fill(async () => {
        const response = await requests.run((signal) => fetchArrays(request, signal));
        const tables = [continuationsTable("The three ways", response.ways.map((each) => [each.name, each])), continuationsTable("The beams that were kept", response.found.map((each, i) => [`beam ${i + 1}`, each])), nodesTable(response)];
        const view = { model: request.model, text: request.text, view: "generation", settings: { max_tokens: settings.max_tokens, beam: settings.beam } };
        return {
          caption: response.caption,
          python: pythonCall("ways", "ways", request, settings),
          tables: () => tables,
          // The library's own drawing weighs by length as it is.
          files: { csv: async () => tablesCsv(tables), ...(settings.length_penalty === 1 ? { svg: () => fetchFile(view, "svg") } : {}) },
          mount: (body) => paint(body, response),
        };
      }),
    );
  }

  function paint(body, response) {
    card.renderer()?.destroy?.();
    const nodeText = el("p", { class: "leaf-text", "aria-live": "polite" }, "Point at a word to read the text up to it; a click or Enter keeps it, arrows move.");
    const numberField = el("div", { class: "beams" });
    body.replaceChildren(el("div", { class: "decoding-methods" }, ...response.ways.map(methodColumn)), el("h3", {}, "The beams, step by step"), numberField, nodeText);
    const showNode = ({ point }) => {
      if (point === null) return;
      const node = response.tree.nodes[point];
      nodeText.replaceChildren(el("b", {}, `score ${response.scores[point].toFixed(3)}`), ` · log-probability ${node.value.toFixed(3)} · ${node.status}: `, el("span", { class: "prompt mono" }, context.text()), el("span", { class: "mono" }, response.texts[point]));
      Object.assign(nodeText.dataset, { node: point, score: response.scores[point], text: response.texts[point] });
    };
    const treeRenderer = mountTree(numberField, response.tree, { onPick: showNode });
    Object.assign(body.dataset, { beams: response.found.length, nodes: response.tree.nodes.length });
    return treeRenderer;
  }

  return {
    root: card.root,
    /** Another text or model: what stands is not about it any more. A link that holds beams asks at once. */
    update() {
      if (shownKey === key()) return undefined;
      if (shownKey === null && context.state.get("beam") !== null && context.model() && card.root.dataset.state === "empty") return load();
      return showIdle();
    },
    destroy: () => (requests.cancel(), card.renderer()?.destroy?.()),
  };
}

/** One way: its tokens by their probabilities, its sums under them. */
function methodColumn(method) {
  const tokenNodes = method.ids.map((id, index) => {
    const probability = Math.exp(method.logprobs[index]);
    const level = Math.min(5, Math.floor(-Math.log2(Math.max(probability, 1e-9)) / 1.5));
    return el("span", { class: `piece heat-${level}`, data: { id, logprob: method.logprobs[index] }, title: `${percent(probability)}, id ${id}` }, method.pieces[index]);
  });
  const totalItem = (name, value, key) => el("span", { data: { total: key, value } }, `${name} `, el("b", {}, cellText(value)));
  return el(
    "section",
    { class: "decoding-method", data: { way: method.name } },
    el("h3", {}, method.name),
    el("div", { class: "written mono" }, ...tokenNodes),
    el("p", { class: "totals" }, totalItem("score", method.score, "score"), totalItem("log-probability", method.total, "total"), totalItem("tokens", method.ids.length, "tokens")),
    el("p", { class: "quiet" }, method.ended ? "The text has ended." : "It would go on."),
  );
}

const continuationsTable = (title, rows) => ({
  title,
  columns: ["way", "text", "tokens", "log-probability", "score"],
  rows: rows.map(([name, each]) => [name, each.text, each.ids.length, each.total, each.score]),
});

const nodesTable = (response) => ({
  title: "The tree",
  columns: ["node", "after", "word", "log-probability", "score", "status", "text"],
  rows: response.tree.nodes.map((each, index) => [index, each.parent, each.text, each.value, response.scores[index], each.status, response.texts[index]]),
});
