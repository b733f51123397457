// Ways: one text written on greedily, drawn, and by beam search, side by side; the beams as a tree whose leaves can be read.

import { fetchFile, latestRequest, fetchArrays } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as tree } from "../render/tree.js";
import { el } from "../dom.js";
import { cellText, pythonCall, percent } from "../format.js";

/** `how()` gives the page's temperature, cuts and seed. */
export function decodingComparisonCard(context, how) {
  const asking = latestRequest();
  const field = (name, usual, least, most, step = 1) => {
    const input = el("input", { type: "number", min: least, max: most, step, name });
    input.value = context.state.number(name) ?? usual;
    return input;
  };
  const [beam, tokens, penalty] = [field("beam", 3, 2, 10), field("tokens", 12, 1, 64), field("penalty", 1, -5, 5, 0.1)];
  const compute = el("button", { type: "button", class: "strong", onclick: ask }, "Write all three");
  const stop = el("button", { type: "button", onclick: () => (asking.drop(), hush()) }, "Stop");
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
    says: "All three are weighed alike: by the sum of their log-probabilities, over their length to the power of the penalty.",
    tools,
  });
  card.root.classList.add("whole");
  let of = null; // what the card shows was written from

  const key = () => JSON.stringify([context.model(), context.text()]);

  function hush() {
    of = null;
    card.renderer()?.end?.();
    card.body.replaceChildren(el("p", { class: "quiet" }, "Beam search reads a few texts at once for each token, so it begins when asked."));
    card.root.dataset.state = "waiting";
  }

  function ask() {
    const { temperature, top_k, top_p, seed } = how();
    const settings = { max_tokens: Number(tokens.value), beam: Number(beam.value), length_penalty: Number(penalty.value), temperature, top_k, top_p, seed };
    const wanted = { model: context.model(), text: context.text(), what: "ways", settings };
    of = key();
    context.state.set({ beam: settings.beam, tokens: settings.max_tokens, penalty: settings.length_penalty === 1 ? null : settings.length_penalty }, { quiet: true });
    return context.track(
      card.fill(async () => {
        const said = await asking.ask((signal) => fetchArrays(wanted, signal));
        const tables = [listed("The three ways", said.ways.map((each) => [each.name, each])), listed("The beams that were kept", said.found.map((each, i) => [`beam ${i + 1}`, each])), nodes(said)];
        const view = { model: wanted.model, text: wanted.text, view: "generation", settings: { max_tokens: settings.max_tokens, beam: settings.beam } };
        return {
          caption: said.caption,
          python: pythonCall("ways", "ways", wanted, settings),
          tables: () => tables,
          // The library's own drawing weighs by length as it is.
          files: { csv: async () => tablesCsv(tables), ...(settings.length_penalty === 1 ? { svg: () => fetchFile(view, "svg") } : {}) },
          mount: (body) => paint(body, said),
        };
      }),
    );
  }

  function paint(body, said) {
    card.renderer()?.end?.();
    const leaf = el("p", { class: "leaf-text", "aria-live": "polite" }, "Point at a word to read the text up to it; a click or Enter keeps it, arrows move.");
    const field = el("div", { class: "beams" });
    body.replaceChildren(el("div", { class: "ways" }, ...said.ways.map(column)), el("h3", {}, "The beams, step by step"), field, leaf);
    const read = ({ point }) => {
      if (point === null) return;
      const node = said.tree.nodes[point];
      leaf.replaceChildren(el("b", {}, `score ${said.scores[point].toFixed(3)}`), ` · log-probability ${node.value.toFixed(3)} · ${node.fate}: `, el("span", { class: "prompt mono" }, context.text()), el("span", { class: "mono" }, said.texts[point]));
      Object.assign(leaf.dataset, { node: point, score: said.scores[point], text: said.texts[point] });
    };
    const drawn = tree(field, said.tree, { onPick: read });
    Object.assign(body.dataset, { beams: said.found.length, nodes: said.tree.nodes.length });
    return drawn;
  }

  return {
    root: card.root,
    /** Another text or model: what stands is not about it any more. A link that holds beams asks at once. */
    update() {
      if (of === key()) return undefined;
      if (of === null && context.state.get("beam") !== null && context.model() && card.root.dataset.state === "empty") return ask();
      return hush();
    },
    end: () => (asking.drop(), card.renderer()?.end?.()),
  };
}

/** One way: its tokens by their probabilities, its sums under them. */
function column(way) {
  const pieces = way.ids.map((id, place) => {
    const p = Math.exp(way.logprobs[place]);
    const level = Math.min(5, Math.floor(-Math.log2(Math.max(p, 1e-9)) / 1.5));
    return el("span", { class: `piece heat-${level}`, data: { id, logprob: way.logprobs[place] }, title: `${percent(p)}, id ${id}` }, way.pieces[place]);
  });
  const fact = (name, value, key) => el("span", { data: { total: key, value } }, `${name} `, el("b", {}, cellText(value)));
  return el(
    "section",
    { class: "way", data: { way: way.name } },
    el("h3", {}, way.name),
    el("div", { class: "written mono" }, ...pieces),
    el("p", { class: "totals" }, fact("score", way.score, "score"), fact("log-probability", way.total, "total"), fact("tokens", way.ids.length, "tokens")),
    el("p", { class: "quiet" }, way.ended ? "The text has ended." : "It would go on."),
  );
}

const listed = (title, rows) => ({
  title,
  columns: ["way", "text", "tokens", "log-probability", "score"],
  rows: rows.map(([name, each]) => [name, each.text, each.ids.length, each.total, each.score]),
});

const nodes = (said) => ({
  title: "The tree",
  columns: ["node", "after", "word", "log-probability", "score", "fate", "text"],
  rows: said.tree.nodes.map((each, place) => [place, each.parent, each.text, each.value, said.scores[place], each.fate, said.texts[place]]),
});
