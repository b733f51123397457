// Map: labelled points in the plane. When the data of the same points change, the points move, as over the checkpoints of a run.

import { el, redrawOnResize, svg } from "../dom.js";
import { cellText } from "../format.js";

/** Milliseconds of the movement. */
const MOVE_MS = 450;

/**
 * data: a Map; an optional `extent` [left, right, low, high] is always visible. Both axes have the same scale; overlapping
 * labels are shown on hover. Hovering a point marks its links; a click or Enter calls onPick({point, pinned: true}).
 */
export function mount(root, data, { onPick = (_) => {} } = {}) {
  let view = data;
  let hovered = null;
  let rendered = null; // {key, nodes, lines, positions}
  let animation = 0;
  let highlighted = []; // points highlighted from outside
  const container = el("div", {});
  const legend = el("p", { class: "legend" });
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  root.replaceChildren(legend, container, readout);
  const end = redrawOnResize(root, paint);

  function update(next) {
    view = next;
    paint(root.clientWidth || 600);
    readout.textContent = "Hover a point to read it.";
  }

  function paint(width) {
    const height = Math.min(620, Math.max(300, width * 0.72));
    const hasPosition = (point) => point.x !== null && point.y !== null;
    const points = view.points.filter(hasPosition);
    root.dataset.points = points.length;
    const [xs, ys] = [points.map((each) => each.x), points.map((each) => each.y)];
    const [l, r, b, t] = view.extent ?? [Infinity, -Infinity, Infinity, -Infinity];
    const [left, right, low, high] = [Math.min(l, ...xs), Math.max(r, ...xs), Math.min(b, ...ys), Math.max(t, ...ys)];
    const unit = Math.min((width - 140) / (right - left || 1), (height - 70) / (high - low || 1));
    const coordinates = view.points.map((each) => (hasPosition(each) ? [width / 2 + (each.x - (left + right) / 2) * unit, height / 2 - (each.y - (low + high) / 2) * unit] : null));
    const key = JSON.stringify([width, height, view.points.map((each) => [each.label, each.group]), view.links]);
    const from = rendered?.key === key ? rendered.positions : null;
    if (!from) draw(key, width, height);
    hideOverlappingLabels(coordinates);
    view.points.forEach((each, index) => rendered.nodes[index] && Object.assign(rendered.nodes[index].dataset, { x: each.x, y: each.y }));
    rendered.axes.forEach((node, index) => (node.textContent = index ? view.y_label : view.x_label));
    animate(from, coordinates);
    follow({ hovered: highlighted });
  }

  /** Highlights points from outside, without reporting it. */
  function follow({ hovered: linked }) {
    highlighted = linked ?? [];
    rendered?.nodes.forEach((node, index) => node.classList.toggle("on", highlighted.includes(index)));
  }

  function draw(key, width, height) {
    const node = svg("svg", { class: "map", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": view.title });
    legend.replaceChildren(...(view.groups ?? []).map((name, i) => el("span", {}, el("span", { class: `swatch ink-${i % 6}` }), name)));
    const lines = (view.links ?? []).map(([a, b]) => svg("line", { class: "link", "data-link": `${a} ${b}` }));
    const nodes = view.points.map((point, index) => {
      const onHover = () => hover(index);
      const onClick = () => onPick({ point: index, pinned: true });
      return svg(
        "g",
        { class: "point", tabindex: "0", "data-point": index, onpointerenter: onHover, onfocus: onHover, onclick: onClick, onkeydown: (event) => event.key === "Enter" && onClick() },
        svg("circle", { class: `dot-${point.group % 6}`, r: 4 }),
        svg("text", { class: "ink mono halo", x: 8, y: 4 }, point.label),
      );
    });
    const axes = [svg("text", { class: "soft end", x: width - 4, y: height - 6 }), svg("text", { class: "soft", x: 4, y: 14 })];
    node.append(...lines, ...nodes, ...axes);
    container.replaceChildren(node);
    rendered = { key, nodes, lines, axes, positions: null };
  }

  /** Hides labels that overlap others until their point is hovered. */
  function hideOverlappingLabels(coordinates) {
    const usedBoxes = [];
    coordinates.forEach((index, i) => {
      if (!index) return;
      const box = [index[0] + 6, index[1] - 7, index[0] + 8 + [...view.points[i].label].length * 7.2, index[1] + 7];
      const covers = usedBoxes.some((b) => box[0] < b[2] && box[2] > b[0] && box[1] < b[3] && box[3] > b[1]);
      if (!covers) usedBoxes.push(box);
      rendered.nodes[i].classList.toggle("covered", covers);
    });
  }

  function animate(from, to) {
    cancelAnimationFrame(animation);
    rendered.positions = to;
    const immediate = !from || matchMedia("(prefers-reduced-motion: reduce)").matches;
    const start = performance.now();
    const target = rendered;
    const frame = (time) => {
      const progress = immediate ? 1 : Math.min(1, Math.max(0, (time - start) / MOVE_MS));
      const eased = progress * progress * (3 - 2 * progress);
      const current = to.map((end, i) => end && (from?.[i] ? [0, 1].map((axis) => from[i][axis] + (end[axis] - from[i][axis]) * eased) : end));
      setPositions(target, current);
      if (progress < 1) animation = requestAnimationFrame(frame);
    };
    frame(start);
  }

  function setPositions({ nodes, lines }, coordinates) {
    nodes.forEach((node, i) => {
      node.setAttribute("visibility", coordinates[i] ? "visible" : "hidden");
      if (coordinates[i]) node.setAttribute("transform", `translate(${coordinates[i].map((each) => each.toFixed(2)).join(" ")})`);
    });
    lines.forEach((line, i) => {
      const [from, to] = view.links[i].map((end) => coordinates[end]);
      line.setAttribute("visibility", from && to ? "visible" : "hidden");
      if (from && to) for (const [name, value] of [["x1", from[0]], ["y1", from[1]], ["x2", to[0]], ["y2", to[1]]]) line.setAttribute(name, value.toFixed(2));
    });
  }

  function hover(index) {
    hovered = index;
    const point = view.points[index];
    const linkedLabels = [];
    rendered.lines.forEach((line, i) => {
      const isLinked = view.links[i].includes(index);
      line.classList.toggle("on", isLinked);
      if (isLinked) linkedLabels.push(view.points[view.links[i][0] === index ? view.links[i][1] : view.links[i][0]].label);
    });
    const coordinateText = point.x === null ? "no position" : `${cellText(point.x)}, ${cellText(point.y)}`;
    readout.textContent = [[point.label, coordinateText, point.note].filter(Boolean).join(": "), linkedLabels.length ? `linked to ${[...new Set(linkedLabels)].join(", ")}` : ""].filter(Boolean).join(" · ");
    onPick({ point: index, pinned: false });
  }

  update(data);
  return { update, destroy: () => (cancelAnimationFrame(animation), end()), follow, state: () => ({ point: hovered }), svg: () => null, csv: () => null };
}
