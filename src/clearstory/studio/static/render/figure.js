// Figure: boxes and arrows at fixed positions.

import { el, svg } from "../dom.js";
import { cellText } from "../format.js";

const [CHAR_WIDTH, LINE_HEIGHT] = [7.6, 17];

/** data: a Figure; coordinates are in characters and lines. */
export function mount(root, data, { onPick = (_) => {} } = {}) {
  const container = el("div", { class: "wide" });
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  root.replaceChildren(container, readout);
  let hovered = null;

  function update(view) {
    const corners = [...view.boxes, ...view.frames].map((each) => [each.x + each.width, each.y + each.height]);
    for (const arrow of view.arrows) for (const [x, y] of arrow.points) corners.push([x + 1, y + 1]);
    const width = (Math.max(...corners.map((each) => each[0]), 1) + 1) * CHAR_WIDTH;
    const height = (Math.max(...corners.map((each) => each[1]), 1) + 1) * LINE_HEIGHT;
    const node = svg("svg", { class: "figure", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": view.title });
    const arrowHead = svg("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" });
    arrowHead.append(svg("path", { class: "tip", d: "M0 0L8 4L0 8z" }));
    node.append(svg("defs", {}, arrowHead));
    for (const group of view.frames) {
      const box = { x: group.x * CHAR_WIDTH, y: group.y * LINE_HEIGHT, width: group.width * CHAR_WIDTH, height: group.height * LINE_HEIGHT, rx: 8 };
      node.append(svg("rect", { ...box, class: "group" }));
      node.append(svg("text", { class: "ink", x: box.x + 6, y: box.y + 15 }, `${group.times} ×`));
    }
    for (const arrow of view.arrows) {
      const polylinePoints = arrow.points.map(([x, y]) => `${(x + 0.5) * CHAR_WIDTH},${(y + 0.5) * LINE_HEIGHT}`).join(" ");
      node.append(svg("polyline", { class: "arrow", points: polylinePoints, "marker-end": arrow.head ? "url(#tip)" : null }));
    }
    view.boxes.forEach((box, index) => node.append(boxNode(box, index)));
    container.replaceChildren(node);
    root.dataset.boxes = view.boxes.length;
    readout.textContent = "Hover a box to read it.";
  }

  function boxNode(box, index) {
    const [x, y, width, height] = [box.x * CHAR_WIDTH, box.y * LINE_HEIGHT, box.width * CHAR_WIDTH, box.height * LINE_HEIGHT];
    const lines = [box.name, box.shape, box.parameters === null ? "" : `${cellText(box.parameters)} parameters`].filter(Boolean);
    const visibleLines = lines.slice(0, Math.max(1, Math.floor(height / 14)));
    const start = y + height / 2 - ((visibleLines.length - 1) * 14) / 2 + 4;
    const description = lines.join(": ");
    return svg(
      "g",
      { class: `box role-${box.role}`, tabindex: "0", "data-box": index, onpointerenter: () => showReadout(index, description), onfocus: () => showReadout(index, description) },
      svg("rect", { x, y, width, height, rx: box.role === "add" ? height / 2 : 5 }),
      ...visibleLines.map((text, i) => svg("text", { class: i ? "soft middle" : "ink middle", x: x + width / 2, y: start + i * 14 }, text)),
    );
  }

  function showReadout(index, description) {
    hovered = index;
    readout.textContent = description;
    onPick({ point: index, pinned: false });
  }

  update(data);
  return { update, state: () => ({ point: hovered }), svg: () => null, csv: () => null };
}
