// Attended: the tokens before the newest one, shaded by how much it takes from each, in a head or the mean of a layer's.

import { latestRequest, fetchArrays } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as chips } from "../token_chips.js";
import { el } from "../dom.js";
import { pythonCall, percent } from "../format.js";

export function generationAttentionCard(context) {
  const asking = latestRequest();
  let asked = null; // what was asked last, as one string
  let written = null; // ids, the newest last
  let aside = false;
  let part = null;
  let known = null;
  const layer = el("input", { type: "number", min: 0, step: 1, name: "attended-layer", placeholder: "last", onchange: () => context.state.set({ layer: layer.value === "" ? null : layer.value }, { quiet: true }) });
  const head = el("select", { name: "attended-head", onchange: () => context.state.set({ head: head.value === "" ? null : head.value }, { quiet: true }) }, el("option", { value: "" }, "mean of all"));
  const partBox = el("select", { name: "attended-part", onchange: () => ((part = partBox.value), update()) });
  const partLabel = el("label", { hidden: true }, el("span", {}, "Part"), partBox);
  const tools = el(
    "div",
    { class: "settings" },
    el("label", {}, el("span", {}, "Layer"), layer),
    el("label", {}, el("span", {}, "Head"), head),
    partLabel,
    el("label", {}, el("input", { type: "checkbox", name: "aside", onchange: (event) => ((aside = event.target.checked), paint()) }), el("span", {}, "Set the first token aside")),
  );
  const card = makeCard({
    name: "attended",
    title: "What the newest token looks at",
    says: "Its row of attention, as the model reads it: what the token after it is chosen from.",
    tools,
  });
  card.root.classList.add("whole");
  card.root.hidden = true;
  const said = el("p", { class: "said", "aria-live": "polite" });
  const row = el("div", {});
  const drawn = chips(row, { tokens: [] }, { onPick: ({ query, pinned }) => read(query, pinned) });

  function settings() {
    const own = { written, layer: context.state.number("layer") ?? -1 };
    if (context.state.get("head") !== null) own.head = context.state.number("head");
    if (part) own.part = part;
    return own;
  }

  /** Asks where the token, the layer or the head is another one. `now`: the ids, the newest last; null for none. */
  function update(now = written) {
    written = now;
    const able = context.views().get("attention")?.able;
    card.root.hidden = !able || !written?.length;
    if (card.root.hidden) {
      asking.drop();
      asked = null;
      return undefined;
    }
    const wanted = { model: context.model(), text: context.text(), what: "attended", settings: settings() };
    if (JSON.stringify(wanted) === asked) return undefined;
    asked = JSON.stringify(wanted);
    return context.track(
      card.fill(async () => {
        const made = await asking.ask((signal) => fetchArrays(wanted, signal));
        known = made;
        form();
        const table = { title: "Weights", columns: ["token", "id", "weight"], rows: made.labels.map((each, place) => [each, made.ids[place], made.weights.values[place]]) };
        return {
          title: `What ‘${made.query}’ looks at`,
          caption: made.caption,
          python: pythonCall("attended", "attended", wanted, wanted.settings),
          tables: () => [table],
          files: { csv: async () => tablesCsv([table]) },
          mount: (body) => {
            body.replaceChildren(row, said);
            Object.assign(body.dataset, { layer: made.layer, head: made.head ?? "mean", count: made.ids.length });
            paint();
            return { update: () => {}, state: () => ({}), svg: () => null, csv: () => null };
          },
        };
      }),
    );
  }

  function form() {
    layer.max = known.layers - 1;
    if (document.activeElement !== layer) layer.value = known.layer;
    if (head.options.length !== known.heads + 1)
      head.replaceChildren(el("option", { value: "" }, "mean of all"), ...Array.from({ length: known.heads }, (_, i) => el("option", { value: i }, String(i))));
    head.value = known.head ?? "";
    partLabel.hidden = known.parts.length < 2;
    partBox.replaceChildren(...known.parts.map((each) => el("option", { value: each, selected: each === known.part }, each)));
  }

  /** The strongest is darkest; with the first token aside, the strongest of the others. */
  function paint() {
    if (!known) return;
    const weights = [...known.weights.values];
    const most = Math.max(...weights.slice(aside && weights.length > 1 ? 1 : 0), 1e-12);
    drawn.update({
      tokens: known.pieces.map((piece, place) => ({ piece, id: known.ids[place], title: `${percent(weights[place])} of its weight` })),
      pinned: known.part === "cross" ? [] : [weights.length - 1],
      shade: weights.map((each, place) => (aside && place === 0 ? 0 : Math.min(1, each / most))),
    });
    [...row.querySelectorAll(".chip")].forEach((chip, place) => (chip.dataset.weight = weights[place]));
    read(null, false);
  }

  let kept = null;
  function read(place, pinned) {
    if (pinned) kept = kept === place ? null : place;
    const at = place ?? kept;
    const weights = known.weights.values;
    said.textContent = at === null || at >= weights.length ? `Darkest: ${percent(Math.max(...[...weights].slice(aside && weights.length > 1 ? 1 : 0)))}. Point at a token to read its weight.` : `‘${known.labels[at]}’ (${at}): ${percent(weights[at])} of what ‘${known.query}’ takes${kept === at ? ", pinned" : ""}.`;
  }

  return { root: card.root, update, end: () => asking.drop() };
}
