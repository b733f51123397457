// Map: named points. The same points in other places move there, so that a film over training can be followed by eye.

import { el, redrawOnResize, svg } from "../dom.js";
import { cellText } from "../format.js";

/** Milliseconds that points move for. */
const MOVES = 450;

/**
 * data: a Map; `extent`, where it has one, is [left, right, low, high] of which the frame shows all, whatever the points
 * do. Both axes have one scale; labels that would cover others are shown when their point is looked at. Pointing at a
 * word marks its links; a click or Enter tells onPick({point, pinned: true}).
 */
export function mount(root, data, { onPick = (_) => {} } = {}) {
  let view = data;
  let at = null;
  let drawn = null; // {key, nodes, lines, places}
  let moving = 0;
  let held = []; // points that something beside this one is about
  const field = el("div", {});
  const legend = el("p", { class: "legend" });
  const said = el("p", { class: "said", "aria-live": "polite" });
  root.replaceChildren(legend, field, said);
  const end = redrawOnResize(root, paint);

  function update(next) {
    view = next;
    paint(root.clientWidth || 600);
    said.textContent = "Point at a word to read it.";
  }

  function paint(width) {
    const height = Math.min(620, Math.max(300, width * 0.72));
    const there = (point) => point.x !== null && point.y !== null;
    const points = view.points.filter(there);
    root.dataset.points = points.length;
    const [xs, ys] = [points.map((each) => each.x), points.map((each) => each.y)];
    const [l, r, b, t] = view.extent ?? [Infinity, -Infinity, Infinity, -Infinity];
    const [left, right, low, high] = [Math.min(l, ...xs), Math.max(r, ...xs), Math.min(b, ...ys), Math.max(t, ...ys)];
    const unit = Math.min((width - 140) / (right - left || 1), (height - 70) / (high - low || 1));
    const places = view.points.map((each) => (there(each) ? [width / 2 + (each.x - (left + right) / 2) * unit, height / 2 - (each.y - (low + high) / 2) * unit] : null));
    const key = JSON.stringify([width, height, view.points.map((each) => [each.label, each.group]), view.links]);
    const from = drawn?.key === key ? drawn.places : null;
    if (!from) draw(key, width, height);
    cover(places);
    view.points.forEach((each, place) => drawn.nodes[place] && Object.assign(drawn.nodes[place].dataset, { x: each.x, y: each.y }));
    drawn.axes.forEach((node, place) => (node.textContent = place ? view.y_label : view.x_label));
    move(from, places);
    follow({ at: held });
  }

  /** Points that something beside this one is about. Tells nobody. */
  function follow({ at: there }) {
    held = there ?? [];
    drawn?.nodes.forEach((node, place) => node.classList.toggle("on", held.includes(place)));
  }

  function draw(key, width, height) {
    const node = svg("svg", { class: "map", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": view.title });
    legend.replaceChildren(...(view.groups ?? []).map((name, i) => el("span", {}, el("span", { class: `swatch ink-${i % 6}` }), name)));
    const lines = (view.links ?? []).map(([a, b]) => svg("line", { class: "link", "data-link": `${a} ${b}` }));
    const nodes = view.points.map((point, place) => {
      const say = () => look(place);
      const pin = () => onPick({ point: place, pinned: true });
      return svg(
        "g",
        { class: "point", tabindex: "0", "data-point": place, onpointerenter: say, onfocus: say, onclick: pin, onkeydown: (event) => event.key === "Enter" && pin() },
        svg("circle", { class: `dot-${point.group % 6}`, r: 4 }),
        svg("text", { class: "ink mono halo", x: 8, y: 4 }, point.label),
      );
    });
    const axes = [svg("text", { class: "soft end", x: width - 4, y: height - 6 }), svg("text", { class: "soft", x: 4, y: 14 })];
    node.append(...lines, ...nodes, ...axes);
    field.replaceChildren(node);
    drawn = { key, nodes, lines, axes, places: null };
  }

  /** Labels that would cover others wait until they are pointed at. */
  function cover(places) {
    const taken = [];
    places.forEach((place, i) => {
      if (!place) return;
      const box = [place[0] + 6, place[1] - 7, place[0] + 8 + [...view.points[i].label].length * 7.2, place[1] + 7];
      const covers = taken.some((b) => box[0] < b[2] && box[2] > b[0] && box[1] < b[3] && box[3] > b[1]);
      if (!covers) taken.push(box);
      drawn.nodes[i].classList.toggle("covered", covers);
    });
  }

  function move(from, to) {
    cancelAnimationFrame(moving);
    drawn.places = to;
    const still = !from || matchMedia("(prefers-reduced-motion: reduce)").matches;
    const began = performance.now();
    const now = drawn;
    const frame = (time) => {
      const part = still ? 1 : Math.min(1, Math.max(0, (time - began) / MOVES));
      const eased = part * part * (3 - 2 * part);
      const between = to.map((end, i) => end && (from?.[i] ? [0, 1].map((axis) => from[i][axis] + (end[axis] - from[i][axis]) * eased) : end));
      put(now, between);
      if (part < 1) moving = requestAnimationFrame(frame);
    };
    frame(began);
  }

  function put({ nodes, lines }, places) {
    nodes.forEach((node, i) => {
      node.setAttribute("visibility", places[i] ? "visible" : "hidden");
      if (places[i]) node.setAttribute("transform", `translate(${places[i].map((each) => each.toFixed(2)).join(" ")})`);
    });
    lines.forEach((line, i) => {
      const [from, to] = view.links[i].map((end) => places[end]);
      line.setAttribute("visibility", from && to ? "visible" : "hidden");
      if (from && to) for (const [name, value] of [["x1", from[0]], ["y1", from[1]], ["x2", to[0]], ["y2", to[1]]]) line.setAttribute(name, value.toFixed(2));
    });
  }

  function look(place) {
    at = place;
    const point = view.points[place];
    const near = [];
    drawn.lines.forEach((line, i) => {
      const own = view.links[i].includes(place);
      line.classList.toggle("on", own);
      if (own) near.push(view.points[view.links[i][0] === place ? view.links[i][1] : view.links[i][0]].label);
    });
    const where = point.x === null ? "no place" : `${cellText(point.x)}, ${cellText(point.y)}`;
    said.textContent = [[point.label, where, point.note].filter(Boolean).join(": "), near.length ? `linked with ${[...new Set(near)].join(", ")}` : ""].filter(Boolean).join(" · ");
    onPick({ point: place, pinned: false });
  }

  update(data);
  return { update, end: () => (cancelAnimationFrame(moving), end()), follow, state: () => ({ point: at }), svg: () => null, csv: () => null };
}
