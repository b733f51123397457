// Curve: lines over an axis, with a band to compare them with. Hovering reads every line at the nearest place.

import { el, redrawOnResize, svg } from "../dom.js";
import { cellText, axisLabel } from "../format.js";

const INKS = 6;

/** data: a Curve. */
export function mount(root, data, { onPick = (_) => {}, onMove = (_) => {} } = {}) {
  let view = data;
  let at = null;
  let show = (_) => {}; // marks a place, or none
  const field = el("div", { class: "curve-field", tabindex: "0", role: "application" });
  const legend = el("p", { class: "legend" });
  const said = el("p", { class: "said", "aria-live": "polite" });
  root.replaceChildren(legend, field, said);
  const end = redrawOnResize(root, paint);

  function update(next) {
    view = next;
    at = null;
    field.setAttribute("aria-label", view.title);
    paint(root.clientWidth || 600);
  }

  function paint(width) {
    const inks = inksOf(view);
    const drawn = view.lines.map((line) => points(line.x, line.y, view));
    const all = drawn.flat();
    Object.assign(root.dataset, { lines: view.lines.length, points: all.length });
    legend.replaceChildren(...legendOf(view, inks));
    if (!all.length) {
      field.textContent = "There is nothing to draw yet.";
      return;
    }
    const band = view.band ? [points(view.band.x, view.band.low, view), points(view.band.x, view.band.high, view)] : [[], []];
    const heights = [...all, ...band.flat()].map((each) => each[1]);
    const places = [...all, ...band[0]].map((each) => each[0]);
    let [low, high] = bounds(heights, view.log_y);
    if (Math.min(...heights) >= 0 && !view.log_y) low = Math.max(low, 0);
    const height = Math.round(Math.max(220, Math.min(420, width * 0.5)));
    const [top, bottom] = [26, height - 42];
    const y = axisScale(low, high, bottom, top, view.log_y);
    const marks = y.ticks(6);
    const gutter = 14 + 7.2 * Math.max(...marks.map((mark) => axisLabel(mark).length));
    const x = axisScale(Math.min(...places), Math.max(...places), gutter, width - 58, view.log_x);
    const node = svg("svg", { class: "curve", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": view.title });
    node.append(svg("text", { x: 2, y: 14, class: "soft" }, view.y_label));
    for (const mark of marks) {
      node.append(svg("line", { class: "rule", x1: gutter, x2: width - 50, y1: y(mark), y2: y(mark) }));
      node.append(svg("text", { class: "soft end", x: gutter - 6, y: y(mark) + 4 }, axisLabel(mark)));
    }
    if (band[0].length) {
      const outline = [...band[0], ...band[1].toReversed()].map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`);
      node.append(svg("polygon", { class: "band", points: outline.join(" ") }));
    }
    node.append(svg("line", { class: "axis", x1: gutter, x2: width - 50, y1: bottom, y2: bottom }));
    for (const mark of x.ticks(Math.max(2, Math.floor(width / 110)))) {
      node.append(svg("text", { class: "soft middle", x: x(mark), y: bottom + 17 }, axisLabel(mark)));
    }
    node.append(svg("text", { class: "soft end", x: width - 4, y: height - 6 }, view.x_label + (view.log_x ? " (log scale)" : "")));
    const taken = [];
    drawn.forEach((each, i) => {
      if (!each.length) return;
      const ink = inks[i] % INKS;
      const dash = view.lines[i].dashed || inks[i] >= INKS ? "5 3" : null;
      const way = thinned(each.map(([a, b]) => [x(a), y(b)]), width).map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ");
      node.append(svg("polyline", { class: `line line-${ink}`, points: way, "stroke-dasharray": dash }));
      const [a, b] = each.at(-1);
      node.append(svg("circle", { class: `dot-${ink}`, cx: x(a), cy: y(b), r: 3.5 }));
      if (!view.lines[i].of) {
        let place = y(b) + 4;
        while (taken.some((other) => Math.abs(other - place) < 13)) place += 13;
        taken.push(place);
        node.append(svg("text", { class: `dot-${ink}`, x: x(a) + 7, y: place }, axisLabel(b)));
      }
    });
    const cross = svg("line", { class: "cross-line", y1: top, y2: bottom, visibility: "hidden" });
    node.append(cross);
    field.replaceChildren(node);
    show = (place) => {
      at = place;
      if (place === null) {
        cross.setAttribute("visibility", "hidden");
        said.textContent = "";
        return;
      }
      cross.setAttribute("visibility", "visible");
      cross.setAttribute("x1", x(place));
      cross.setAttribute("x2", x(place));
      const words = drawn.flatMap((each, i) => {
        if (!each.length) return [];
        const near = each.reduce((a, b) => (Math.abs(b[0] - place) < Math.abs(a[0] - place) ? b : a));
        return [`${view.lines[i].name} ${cellText(near[1])}`];
      });
      said.textContent = `${view.x_label} ${cellText(place)}: ${words.join(" · ")}`;
    };
    const read = (place) => {
      show(place);
      onMove({ at, pinned: null });
      if (place !== null) onPick({ point: place, pinned: false });
    };
    if (at !== null) show(at); // after the window was made wider, too
    const stops = [...new Set(all.map((each) => each[0]))].sort((a, b) => a - b);
    node.addEventListener("pointermove", (event) => {
      const here = ((event.clientX - node.getBoundingClientRect().left) / node.getBoundingClientRect().width) * width;
      read(stops.reduce((a, b) => (Math.abs(x(b) - here) < Math.abs(x(a) - here) ? b : a)));
    });
    node.addEventListener("pointerleave", () => read(null));
    field.onkeydown = (event) => {
      const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!way) return;
      event.preventDefault();
      const now = at === null ? -1 : stops.indexOf(at);
      read(stops[Math.max(0, Math.min(stops.length - 1, now + way))]);
    };
  }

  update(data);
  return { update, end, follow: ({ at: there }) => show(there), state: () => ({ at }), svg: () => null, csv: () => null };
}

function points(xs, ys, view) {
  return xs
    .map((x, i) => [x, ys[i]])
    .filter(([x, y]) => x !== null && y !== null && (!view.log_x || x > 0) && (!view.log_y || y > 0));
}

/** The number of each line's colour: one that belongs to another has that one's. */
function inksOf(view) {
  const known = {};
  let own = 0;
  return view.lines.map((line) => {
    if (!line.of) known[line.name] = own++;
    return known[line.of ?? line.name];
  });
}

function legendOf(view, inks) {
  const own = view.lines.map((line, i) => [line, inks[i]]).filter(([line]) => !line.of);
  if (own.length < 2 && !view.band) return [];
  const swatch = (look) => el("span", { class: `swatch ${look}`, "aria-hidden": "true" });
  const entries = own.map(([line, ink]) => el("span", {}, swatch(`ink-${ink % INKS}${line.dashed ? " dashed" : ""}`), line.name));
  return view.band ? [...entries, el("span", {}, swatch("ink-band"), view.band.name)] : entries;
}

/** A little air around the numbers; never of no height. */
function bounds(values, log) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (log) return [low / 1.2, high * 1.2];
  const air = (high - low) * 0.06 || Math.abs(high) * 0.06 || 1;
  return [low - air, high + air];
}

/** Numbers laid out from start to end, with round marks among them. */
export function axisScale(low, high, start, end, log = false) {
  const turn = log ? Math.log : (value) => value;
  const [from, to] = [turn(low), turn(high)];
  const place = (value) => start + (to > from ? (turn(value) - from) / (to - from) : 0.5) * (end - start);
  place.ticks = (most) => (log ? logTicks(low, high, most) : evenTicks(low, high, most));
  return place;
}

function evenTicks(low, high, most) {
  if (high - low < 1e-300) return [low];
  const least = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= least * (1 - 1e-9));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i <= Math.floor(high / step + 1e-9); i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function logTicks(low, high, most) {
  let found = [];
  for (const factors of [[1, 2, 5], [1, 3], [1]]) {
    found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const factor of factors) found.push(Number(`${factor}e${power}`));
    found = found.filter((each) => low * (1 - 1e-9) <= each && each <= high * (1 + 1e-9));
    if (found.length <= most + 1) break;
  }
  return found.length > 1 ? found : evenTicks(low, high, most);
}

/** No more points than can be told apart: of those on one pixel, the lowest and the highest stay. */
function thinned(way, width) {
  if (way.length <= 2 * width) return way;
  const columns = new Map();
  for (const point of way) {
    const key = Math.round(point[0]);
    const seen = columns.get(key) ?? [point, point];
    columns.set(key, [point[1] < seen[0][1] ? point : seen[0], point[1] > seen[1][1] ? point : seen[1]]);
  }
  return [way[0], ...[...columns.values()].flat(), way.at(-1)];
}
