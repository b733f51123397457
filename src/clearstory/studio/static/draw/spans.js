// Spans: a text in pieces, each coloured by its number. Hovering reads a piece, a click pins it.

import { el } from "../kit.js";
import { cellText, visible } from "../words.js";

/** data: a Spans. */
export function mount(root, data, { onPick = () => {} } = {}) {
  let view = data;
  let pinned = null;
  const text = el("div", { class: "spans", role: "listbox", "aria-label": "the text in its pieces" });
  const totals = el("p", { class: "totals" });
  const said = el("p", { class: "said", "aria-live": "polite" });
  root.replaceChildren(text, said, totals);

  function update(next) {
    view = next;
    pinned = null;
    text.replaceChildren(...view.spans.flatMap(piece));
    totals.replaceChildren(
      ...Object.entries(view.totals ?? {}).map(([name, value]) =>
        el("span", { data: { total: name, value: value ?? "" } }, `${name} `, el("b", {}, cellText(value))),
      ),
    );
    root.dataset.pieces = view.spans.length;
    say(null);
  }

  function piece(span, place) {
    if (span.value === null) return [el("span", { class: "plain" }, span.text)];
    const level = view.levels.filter((each) => span.value >= each).length;
    const node = el(
      "button",
      {
        type: "button", role: "option", class: `piece heat-${level}`, "aria-selected": "false",
        data: { place, value: span.value }, title: span.note,
        onpointerenter: () => say(place),
        onpointerleave: () => say(pinned),
        onfocus: () => say(place),
        onclick: () => pin(place),
        onkeydown: (event) => keys(event, node),
      },
      visible(span.text) || "·",
    );
    // A line feed is shown, and is one.
    return span.text.includes("\n") ? [node, el("br")] : [node];
  }

  function pin(place) {
    pinned = pinned === place ? null : place;
    for (const each of text.querySelectorAll(".piece"))
      each.setAttribute("aria-selected", String(Number(each.dataset.place) === pinned));
    say(pinned);
    onPick({ point: pinned, pinned: pinned !== null });
  }

  function say(place) {
    const span = place === null ? null : view.spans[place];
    said.textContent = span ? span.note : "Point at a piece to read it.";
  }

  function keys(event, node) {
    const all = [...text.querySelectorAll(".piece")];
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (way) {
      event.preventDefault();
      all[all.indexOf(node) + way]?.focus();
    } else if (event.key === "Escape" && pinned !== null) {
      event.stopPropagation();
      pin(pinned);
    }
  }

  update(data);
  return { update, state: () => ({ point: pinned }), svg: () => null, csv: () => null };
}
