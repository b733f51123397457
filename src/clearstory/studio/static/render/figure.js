// Placed: the boxes and arrows of a figure.

import { el, svg } from "../dom.js";
import { cellText } from "../format.js";

const [LETTER, LINE] = [7.6, 17];

/** data: a Figure, in letters and lines. */
export function mount(root, data, { onPick = (_) => {} } = {}) {
  const field = el("div", { class: "wide" });
  const said = el("p", { class: "said", "aria-live": "polite" });
  root.replaceChildren(field, said);
  let at = null;

  function update(view) {
    const ends = [...view.boxes, ...view.groups].map((each) => [each.x + each.width, each.y + each.height]);
    for (const arrow of view.arrows) for (const [x, y] of arrow.through) ends.push([x + 1, y + 1]);
    const width = (Math.max(...ends.map((each) => each[0]), 1) + 1) * LETTER;
    const height = (Math.max(...ends.map((each) => each[1]), 1) + 1) * LINE;
    const node = svg("svg", { class: "figure", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": view.title });
    const tip = svg("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" });
    tip.append(svg("path", { class: "tip", d: "M0 0L8 4L0 8z" }));
    node.append(svg("defs", {}, tip));
    for (const group of view.groups) {
      const box = { x: group.x * LETTER, y: group.y * LINE, width: group.width * LETTER, height: group.height * LINE, rx: 8 };
      node.append(svg("rect", { ...box, class: "group" }));
      node.append(svg("text", { class: "ink", x: box.x + 6, y: box.y + 15 }, `${group.times} ×`));
    }
    for (const arrow of view.arrows) {
      const way = arrow.through.map(([x, y]) => `${(x + 0.5) * LETTER},${(y + 0.5) * LINE}`).join(" ");
      node.append(svg("polyline", { class: "arrow", points: way, "marker-end": arrow.head ? "url(#tip)" : null }));
    }
    view.boxes.forEach((box, place) => node.append(boxed(box, place)));
    field.replaceChildren(node);
    root.dataset.boxes = view.boxes.length;
    said.textContent = "Point at a box to read it.";
  }

  function boxed(box, place) {
    const [x, y, width, height] = [box.x * LETTER, box.y * LINE, box.width * LETTER, box.height * LINE];
    const lines = [box.name, box.shape, box.parameters === null ? "" : `${cellText(box.parameters)} parameters`].filter(Boolean);
    const fits = lines.slice(0, Math.max(1, Math.floor(height / 14)));
    const start = y + height / 2 - ((fits.length - 1) * 14) / 2 + 4;
    const words = lines.join(": ");
    return svg(
      "g",
      { class: `box tone-${box.tone}`, tabindex: "0", "data-box": place, onpointerenter: () => say(place, words), onfocus: () => say(place, words) },
      svg("rect", { x, y, width, height, rx: box.tone === "add" ? height / 2 : 5 }),
      ...fits.map((text, i) => svg("text", { class: i ? "soft middle" : "ink middle", x: x + width / 2, y: start + i * 14 }, text)),
    );
  }

  function say(place, words) {
    at = place;
    said.textContent = words;
    onPick({ point: place, pinned: false });
  }

  update(data);
  return { update, state: () => ({ point: at }), svg: () => null, csv: () => null };
}
