// Generation attention: the tokens before the newest one, shaded by its attention weights, for one head or a layer's mean.

import { latestRequest, fetchArrays } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as chips } from "../token_chips.js";
import { el } from "../dom.js";
import { pythonCall, percent } from "../format.js";

export function generationAttentionCard(context) {
  const requests = latestRequest();
  let lastRequest = null; // the last request as JSON
  let generated = null; // ids of the generated tokens
  let excludeFirst = false;
  let selectedPart = null;
  let result = null;
  const layer = el("input", { type: "number", min: 0, step: 1, name: "attention-layer", placeholder: "last", onchange: () => context.state.set({ layer: layer.value === "" ? null : layer.value }, { quiet: true }) });
  const head = el("select", { name: "attention-head", onchange: () => context.state.set({ head: head.value === "" ? null : head.value }, { quiet: true }) }, el("option", { value: "" }, "mean of all heads"));
  const partBox = el("select", { name: "attention-part", onchange: () => ((selectedPart = partBox.value), update()) });
  const partLabel = el("label", { hidden: true }, el("span", {}, "Part"), partBox);
  const tools = el(
    "div",
    { class: "settings" },
    el("label", {}, el("span", {}, "Layer"), layer),
    el("label", {}, el("span", {}, "Head"), head),
    partLabel,
    el("label", {}, el("input", { type: "checkbox", name: "exclude-first", onchange: (event) => ((excludeFirst = event.target.checked), paint()) }), el("span", {}, "Exclude the first token")),
  );
  const card = makeCard({
    name: "newest-token-attention",
    title: "Attention of the newest token",
    description: "The attention weights from the newest token to each token before it.",
    tools,
  });
  card.root.classList.add("full-width");
  card.root.hidden = true;
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  const row = el("div", {});
  const tokenChips = chips(row, { tokens: [] }, { onPick: ({ query, pinned }) => showWeight(query, pinned) });

  function requestSettings() {
    const settings = { generated, layer: context.state.number("layer") ?? -1 };
    if (context.state.get("head") !== null) settings.head = context.state.number("head");
    if (selectedPart) settings.part = selectedPart;
    return settings;
  }

  /** Sends a request if the generated ids, the layer or the head have changed. */
  function update(newIds = generated) {
    generated = newIds;
    const available = context.views().get("attention")?.available;
    card.root.hidden = !available || !generated?.length;
    if (card.root.hidden) {
      requests.cancel();
      lastRequest = null;
      return undefined;
    }
    const request = { ...context.input(), function: "newest_token_attention", settings: requestSettings() };
    if (JSON.stringify(request) === lastRequest) return undefined;
    lastRequest = JSON.stringify(request);
    return context.track(
      card.fill(async () => {
        const response = await requests.run((signal) => fetchArrays(request, signal));
        result = response;
        updateControls();
        const table = { title: "Weights", columns: ["token", "id", "weight"], rows: response.labels.map((each, position) => [each, response.ids[position], response.weights.values[position]]) };
        return {
          title: `Attention of ‘${response.query}’`,
          caption: response.caption,
          python: pythonCall("generation_attention", "newest_token_attention", request, request.settings),
          tables: () => [table],
          files: { csv: async () => tablesCsv([table]) },
          mount: (body) => {
            body.replaceChildren(row, readout);
            Object.assign(body.dataset, { layer: response.layer, head: response.head ?? "mean", count: response.ids.length });
            paint();
            return { update: () => {}, state: () => ({}), svg: () => null, csv: () => null };
          },
        };
      }),
    );
  }

  function updateControls() {
    layer.max = result.layers - 1;
    if (document.activeElement !== layer) layer.value = result.layer;
    if (head.options.length !== result.heads + 1)
      head.replaceChildren(el("option", { value: "" }, "mean of all heads"), ...Array.from({ length: result.heads }, (_, i) => el("option", { value: i }, String(i))));
    head.value = result.head ?? "";
    partLabel.hidden = result.parts.length < 2;
    partBox.replaceChildren(...result.parts.map((each) => el("option", { value: each, selected: each === result.part }, each)));
  }

  /** Shades the tokens by weight, relative to the largest one (or the largest one after the first token). */
  function paint() {
    if (!result) return;
    const weights = [...result.weights.values];
    const max = Math.max(...weights.slice(excludeFirst && weights.length > 1 ? 1 : 0), 1e-12);
    tokenChips.update({
      tokens: result.pieces.map((piece, position) => ({ piece, id: result.ids[position], title: `weight ${percent(weights[position])}` })),
      pinned: result.part === "cross" ? [] : [weights.length - 1],
      shade: weights.map((each, position) => (excludeFirst && position === 0 ? 0 : Math.min(1, each / max))),
    });
    [...row.querySelectorAll(".chip")].forEach((chip, position) => (chip.dataset.weight = weights[position]));
    showWeight(null, false);
  }

  let pinnedPosition = null;
  function showWeight(position, pinned) {
    if (pinned) pinnedPosition = pinnedPosition === position ? null : position;
    const index = position ?? pinnedPosition;
    const weights = result.weights.values;
    readout.textContent = index === null || index >= weights.length ? `Largest weight: ${percent(Math.max(...[...weights].slice(excludeFirst && weights.length > 1 ? 1 : 0)))}. Hover a token to read its weight.` : `‘${result.labels[index]}’ (${index}): weight ${percent(weights[index])} from ‘${result.query}’${pinnedPosition === index ? ", pinned" : ""}.`;
  }

  return { root: card.root, update, destroy: () => requests.cancel() };
}
