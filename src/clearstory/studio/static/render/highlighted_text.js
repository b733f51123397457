// Spans: a text in pieces, each coloured by its number. Hovering reads a piece, a click pins it.

import { el } from "../dom.js";
import { cellText, visibleWhitespace } from "../format.js";

/** data: a Spans. */
export function mount(root, data, { onPick = (_) => {}, onMove = (_) => {} } = {}) {
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
    const size = view.signed ? Math.abs(span.value) : span.value;
    const level = view.levels.filter((each) => size >= each).length;
    const shade = view.signed && level ? `${span.value < 0 ? "less" : "more"}-${level}` : `heat-${level}`;
    const node = el(
      "button",
      {
        type: "button", role: "option", class: `piece ${shade}`, "aria-selected": "false",
        data: { place, value: span.value }, title: span.note,
        onpointerenter: () => (say(place), onMove({ at: place, pinned })),
        onpointerleave: () => (say(pinned), onMove({ at: null, pinned })),
        onfocus: () => (say(place), onMove({ at: place, pinned })),
        onclick: () => pin(place),
        onkeydown: (event) => keys(event, node),
      },
      visibleWhitespace(span.text) || "·",
    );
    // A line feed is shown, and is one.
    return span.text.includes("\n") ? [node, el("br")] : [node];
  }

  function pin(place) {
    pinned = pinned === place ? null : place;
    mark();
    say(pinned);
    onMove({ at: place, pinned });
    onPick({ point: pinned, pinned: pinned !== null });
  }

  function mark() {
    for (const each of text.querySelectorAll(".piece"))
      each.setAttribute("aria-selected", String(Number(each.dataset.place) === pinned));
  }

  /** What is pointed at or pinned in a text beside this one, as this one's pieces. */
  function follow({ at, pinned: held }) {
    pinned = held;
    mark();
    for (const each of text.querySelectorAll(".piece")) each.classList.toggle("pointed", Number(each.dataset.place) === at);
    say(at ?? pinned);
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
  return { update, follow, state: () => ({ point: pinned }), svg: () => null, csv: () => null };
}
