// Highlighted text: a text in spans, each coloured by its value. Hover to read a span, click to pin it.

import { el } from "../dom.js";
import { cellText, visibleWhitespace } from "../format.js";

/** data: a HighlightedText. */
export function mount(root, data, { onPick = (_) => {}, onMove = (_) => {} } = {}) {
  let view = data;
  let pinned = null;
  const text = el("div", { class: "spans", role: "listbox", "aria-label": "text spans" });
  const totals = el("p", { class: "totals" });
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  root.replaceChildren(text, readout, totals);

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
    updateReadout(null);
  }

  function piece(span, index) {
    if (span.value === null) return [el("span", { class: "plain" }, span.text)];
    const magnitude = view.signed ? Math.abs(span.value) : span.value;
    const level = view.thresholds.filter((each) => magnitude >= each).length;
    const shade = view.signed && level ? `${span.value < 0 ? "less" : "more"}-${level}` : `heat-${level}`;
    const node = el(
      "button",
      {
        type: "button", role: "option", class: `piece ${shade}`, "aria-selected": "false",
        data: { index, value: span.value }, title: span.note,
        onpointerenter: () => (updateReadout(index), onMove({ hovered: index, pinned })),
        onpointerleave: () => (updateReadout(pinned), onMove({ hovered: null, pinned })),
        onfocus: () => (updateReadout(index), onMove({ hovered: index, pinned })),
        onclick: () => pin(index),
        onkeydown: (event) => onKeyDown(event, node),
      },
      visibleWhitespace(span.text) || "·",
    );
    // A newline is shown as a symbol and also breaks the line.
    return span.text.includes("\n") ? [node, el("br")] : [node];
  }

  function pin(index) {
    pinned = pinned === index ? null : index;
    updateMarks();
    updateReadout(pinned);
    onMove({ hovered: index, pinned });
    onPick({ point: pinned, pinned: pinned !== null });
  }

  function updateMarks() {
    for (const each of text.querySelectorAll(".piece"))
      each.setAttribute("aria-selected", String(Number(each.dataset.index) === pinned));
  }

  /** Applies the move of a linked text, without reporting it. */
  function follow({ hovered, pinned: pinnedIndex }) {
    pinned = pinnedIndex;
    updateMarks();
    for (const each of text.querySelectorAll(".piece")) each.classList.toggle("pointed", Number(each.dataset.index) === hovered);
    updateReadout(hovered ?? pinned);
  }

  function updateReadout(index) {
    const span = index === null ? null : view.spans[index];
    readout.textContent = span ? span.note : "Hover a span to read it.";
  }

  function onKeyDown(event, node) {
    const all = [...text.querySelectorAll(".piece")];
    const direction = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (direction) {
      event.preventDefault();
      all[all.indexOf(node) + direction]?.focus();
    } else if (event.key === "Escape" && pinned !== null) {
      event.stopPropagation();
      pin(pinned);
    }
  }

  update(data);
  return { update, follow, state: () => ({ point: pinned }), svg: () => null, csv: () => null };
}
