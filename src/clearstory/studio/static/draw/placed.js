// Placed: kinds whose parts have places: the boxes and arrows of a figure, the points of a map.

import { el, redrawn, svg } from "../kit.js";
import { cellText } from "../words.js";

const [LETTER, LINE] = [7.6, 17];

/** data: a Figure, in letters and lines. */
export function mount(root, data, { onPick = () => {} } = {}) {
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

/** data: a Map. Both axes have one scale; labels that would cover others are shown when their point is looked at. */
export function map(root, data, { onPick = () => {} } = {}) {
  let view = data;
  let at = null;
  const field = el("div", {});
  const legend = el("p", { class: "legend" });
  const said = el("p", { class: "said", "aria-live": "polite" });
  root.replaceChildren(legend, field, said);
  const end = redrawn(root, paint);

  function update(next) {
    view = next;
    paint(root.clientWidth || 600);
    said.textContent = "Point at a word to read it.";
  }

  function paint(width) {
    const points = view.points.map((each, place) => ({ ...each, place })).filter((each) => each.x !== null && each.y !== null);
    root.dataset.points = points.length;
    legend.replaceChildren(...(view.groups ?? []).map((name, i) => el("span", {}, el("span", { class: `swatch ink-${i % 6}` }), name)));
    const height = Math.min(620, Math.max(300, width * 0.72));
    const [xs, ys] = [points.map((each) => each.x), points.map((each) => each.y)];
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const unit = Math.min((width - 140) / (right - left || 1), (height - 70) / (high - low || 1));
    const px = (x) => width / 2 + (x - (left + right) / 2) * unit;
    const py = (y) => height / 2 - (y - (low + high) / 2) * unit;
    const node = svg("svg", { class: "map", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": view.title });
    for (const [a, b] of view.links ?? []) {
      const [from, to] = [view.points[a], view.points[b]];
      if (from.x === null || to.x === null) continue;
      node.append(svg("line", { class: "link", x1: px(from.x), y1: py(from.y), x2: px(to.x), y2: py(to.y) }));
    }
    const taken = [];
    for (const point of points) {
      const [x, y] = [px(point.x), py(point.y)];
      const wide = [...point.label].length * 7.2;
      const box = [x + 6, y - 7, x + 8 + wide, y + 7];
      const covers = taken.some((b) => box[0] < b[2] && box[2] > b[0] && box[1] < b[3] && box[3] > b[1]);
      if (!covers) taken.push(box);
      const say = () => {
        at = point.place;
        said.textContent = [point.label, point.note].filter(Boolean).join(": ");
        onPick({ point: at, pinned: false });
      };
      node.append(
        svg(
          "g",
          { class: covers ? "point covered" : "point", tabindex: "0", "data-point": point.place, onpointerenter: say, onfocus: say },
          svg("circle", { class: `dot-${point.group % 6}`, cx: x, cy: y, r: 4 }),
          svg("text", { class: "ink mono halo", x: x + 8, y: y + 4 }, point.label),
        ),
      );
    }
    node.append(svg("text", { class: "soft end", x: width - 4, y: height - 6 }, view.x_label));
    node.append(svg("text", { class: "soft", x: 4, y: 14 }, view.y_label));
    field.replaceChildren(node);
  }

  update(data);
  return { update, end, state: () => ({ point: at }), svg: () => null, csv: () => null };
}
