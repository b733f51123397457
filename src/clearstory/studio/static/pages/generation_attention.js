// Attended: the tokens before the newest one, shaded by how much it takes from each, in a head or the mean of a layer's.

import { latestRequest, fetchArrays } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as chips } from "../token_chips.js";
import { el } from "../dom.js";
import { pythonCall, percent } from "../format.js";

export function generationAttentionCard(context) {
  const requests = latestRequest();
  let lastRequest = null; // what was asked last, as one string
  let generated = null; // ids, the newest last
  let excludeFirst = false;
  let selectedPart = null;
  let result = null;
  const layer = el("input", { type: "number", min: 0, step: 1, name: "attended-layer", placeholder: "last", onchange: () => context.state.set({ layer: layer.value === "" ? null : layer.value }, { quiet: true }) });
  const head = el("select", { name: "attended-head", onchange: () => context.state.set({ head: head.value === "" ? null : head.value }, { quiet: true }) }, el("option", { value: "" }, "mean of all"));
  const partBox = el("select", { name: "attended-part", onchange: () => ((selectedPart = partBox.value), update()) });
  const partLabel = el("label", { hidden: true }, el("span", {}, "Part"), partBox);
  const tools = el(
    "div",
    { class: "settings" },
    el("label", {}, el("span", {}, "Layer"), layer),
    el("label", {}, el("span", {}, "Head"), head),
    partLabel,
    el("label", {}, el("input", { type: "checkbox", name: "aside", onchange: (event) => ((excludeFirst = event.target.checked), paint()) }), el("span", {}, "Set the first token aside")),
  );
  const card = makeCard({
    name: "attended",
    title: "What the newest token looks at",
    description: "Its row of attention, as the model reads it: what the token after it is chosen from.",
    tools,
  });
  card.root.classList.add("integer");
  card.root.hidden = true;
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  const row = el("div", {});
  const tokenChips = chips(row, { tokens: [] }, { onPick: ({ query, pinned }) => showWeight(query, pinned) });

  function requestSettings() {
    const own = { written: generated, layer: context.state.number("layer") ?? -1 };
    if (context.state.get("head") !== null) own.head = context.state.number("head");
    if (selectedPart) own.part = selectedPart;
    return own;
  }

  /** Asks where the token, the layer or the head is another one. `now`: the ids, the newest last; null for none. */
  function update(newIds = generated) {
    generated = newIds;
    const able = context.views().get("attention")?.available;
    card.root.hidden = !able || !generated?.length;
    if (card.root.hidden) {
      requests.cancel();
      lastRequest = null;
      return undefined;
    }
    const request = { model: context.model(), text: context.text(), function: "newest_token_attention", settings: requestSettings() };
    if (JSON.stringify(request) === lastRequest) return undefined;
    lastRequest = JSON.stringify(request);
    return context.track(
      card.fill(async () => {
        const response = await requests.run((signal) => fetchArrays(request, signal));
        result = response;
        updateControls();
        const table = { title: "Weights", columns: ["token", "id", "weight"], rows: response.labels.map((each, position) => [each, response.ids[position], response.weights.values[position]]) };
        return {
          title: `What ‘${response.query}’ looks at`,
          caption: response.caption,
          python: pythonCall("attended", "attended", request, request.settings),
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
      head.replaceChildren(el("option", { value: "" }, "mean of all"), ...Array.from({ length: result.heads }, (_, i) => el("option", { value: i }, String(i))));
    head.value = result.head ?? "";
    partLabel.hidden = result.parts.length < 2;
    partBox.replaceChildren(...result.parts.map((each) => el("option", { value: each, selected: each === result.part }, each)));
  }

  /** The strongest is darkest; with the first token aside, the strongest of the others. */
  function paint() {
    if (!result) return;
    const weights = [...result.weights.values];
    const max = Math.max(...weights.slice(excludeFirst && weights.length > 1 ? 1 : 0), 1e-12);
    tokenChips.update({
      tokens: result.pieces.map((piece, position) => ({ piece, id: result.ids[position], title: `${percent(weights[position])} of its weight` })),
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
    readout.textContent = index === null || index >= weights.length ? `Darkest: ${percent(Math.max(...[...weights].slice(excludeFirst && weights.length > 1 ? 1 : 0)))}. Point at a token to read its weight.` : `‘${result.labels[index]}’ (${index}): ${percent(weights[index])} of what ‘${result.query}’ takes${pinnedPosition === index ? ", pinned" : ""}.`;
  }

  return { root: card.root, update, destroy: () => requests.cancel() };
}
