// Curve: lines over an axis, with an optional reference band. Hovering reads the values of all lines at the nearest x.

import { el, redrawOnResize, svg } from "../dom.js";
import { cellText, axisLabel } from "../format.js";

const COLORS = 6;

/** data: a Curve. */
export function mount(root, data, { onPick = (_) => {}, onMove = (_) => {} } = {}) {
  let view = data;
  let hovered = null;
  let show = (_) => {}; // marks an x position, or none
  const plot = el("div", { class: "curve-field", tabindex: "0", role: "application" });
  const legend = el("p", { class: "legend" });
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  root.replaceChildren(legend, plot, readout);
  const end = redrawOnResize(root, paint);

  function update(next) {
    view = next;
    hovered = null;
    plot.setAttribute("aria-label", view.title);
    paint(root.clientWidth || 600);
  }

  function paint(width) {
    const colors = colorsOf(view);
    const series = view.lines.map((line) => points(line.x, line.y, view));
    const all = series.flat();
    Object.assign(root.dataset, { lines: view.lines.length, points: all.length });
    legend.replaceChildren(...legendOf(view, colors));
    if (!all.length) {
      plot.textContent = "No data yet.";
      return;
    }
    const band = view.band ? [points(view.band.x, view.band.low, view), points(view.band.x, view.band.high, view)] : [[], []];
    const heights = [...all, ...band.flat()].map((each) => each[1]);
    const xValues = [...all, ...band[0]].map((each) => each[0]);
    let [low, high] = bounds(heights, view.log_y);
    if (Math.min(...heights) >= 0 && !view.log_y) low = Math.max(low, 0);
    const height = Math.round(Math.max(220, Math.min(420, width * 0.5)));
    const [top, bottom] = [26, height - 42];
    const y = axisScale(low, high, bottom, top, view.log_y);
    const ticksY = y.ticks(6);
    const gutter = 14 + 7.2 * Math.max(...ticksY.map((mark) => axisLabel(mark).length));
    const x = axisScale(Math.min(...xValues), Math.max(...xValues), gutter, width - 58, view.log_x);
    const node = svg("svg", { class: "curve", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": view.title });
    node.append(svg("text", { x: 2, y: 14, class: "soft" }, view.y_label));
    for (const mark of ticksY) {
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
    const usedHeights = [];
    series.forEach((each, i) => {
      if (!each.length) return;
      const color = colors[i] % COLORS;
      const dash = view.lines[i].dashed || colors[i] >= COLORS ? "5 3" : null;
      const path = thinPath(each.map(([a, b]) => [x(a), y(b)]), width).map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ");
      node.append(svg("polyline", { class: `line line-${color}`, points: path, "stroke-dasharray": dash }));
      const [a, b] = each.at(-1);
      node.append(svg("circle", { class: `dot-${color}`, cx: x(a), cy: y(b), r: 3.5 }));
      if (!view.lines[i].of) {
        let position = y(b) + 4;
        while (usedHeights.some((other) => Math.abs(other - position) < 13)) position += 13;
        usedHeights.push(position);
        node.append(svg("text", { class: `dot-${color}`, x: x(a) + 7, y: position }, axisLabel(b)));
      }
    });
    const cross = svg("line", { class: "cross-line", y1: top, y2: bottom, visibility: "hidden" });
    node.append(cross);
    plot.replaceChildren(node);
    show = (position) => {
      hovered = position;
      if (position === null) {
        cross.setAttribute("visibility", "hidden");
        readout.textContent = "";
        return;
      }
      cross.setAttribute("visibility", "visible");
      cross.setAttribute("x1", x(position));
      cross.setAttribute("x2", x(position));
      const words = series.flatMap((each, i) => {
        if (!each.length) return [];
        const nearest = each.reduce((a, b) => (Math.abs(b[0] - position) < Math.abs(a[0] - position) ? b : a));
        return [`${view.lines[i].name} ${cellText(nearest[1])}`];
      });
      readout.textContent = `${view.x_label} ${cellText(position)}: ${words.join(" · ")}`;
    };
    const read = (position) => {
      show(position);
      onMove({ hovered, pinned: null });
      if (position !== null) onPick({ point: position, pinned: false });
    };
    if (hovered !== null) show(hovered); // also after a resize
    const sortedXs = [...new Set(all.map((each) => each[0]))].sort((a, b) => a - b);
    node.addEventListener("pointermove", (event) => {
      const pointerX = ((event.clientX - node.getBoundingClientRect().left) / node.getBoundingClientRect().width) * width;
      read(sortedXs.reduce((a, b) => (Math.abs(x(b) - pointerX) < Math.abs(x(a) - pointerX) ? b : a)));
    });
    node.addEventListener("pointerleave", () => read(null));
    plot.onkeydown = (event) => {
      const path = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!path) return;
      event.preventDefault();
      const now = hovered === null ? -1 : sortedXs.indexOf(hovered);
      read(sortedXs[Math.max(0, Math.min(sortedXs.length - 1, now + path))]);
    };
  }

  update(data);
  return { update, destroy: end, follow: ({ hovered: there }) => show(there), state: () => ({ hovered }), svg: () => null, csv: () => null };
}

function points(xs, ys, view) {
  return xs
    .map((x, i) => [x, ys[i]])
    .filter(([x, y]) => x !== null && y !== null && (!view.log_x || x > 0) && (!view.log_y || y > 0));
}

/** The colour index of each line; a line with `same_color_as` shares the colour of that line. */
function colorsOf(view) {
  const colorIndex = {};
  let primary = 0;
  return view.lines.map((line) => {
    if (!line.same_color_as) colorIndex[line.name] = primary++;
    return colorIndex[line.same_color_as ?? line.name];
  });
}

function legendOf(view, colors) {
  const primary = view.lines.map((line, i) => [line, colors[i]]).filter(([line]) => !line.same_color_as);
  if (primary.length < 2 && !view.band) return [];
  const swatch = (kind) => el("span", { class: `swatch ${kind}`, "aria-hidden": "true" });
  const entries = primary.map(([line, color]) => el("span", {}, swatch(`ink-${color % COLORS}${line.dashed ? " dashed" : ""}`), line.name));
  return view.band ? [...entries, el("span", {}, swatch("ink-band"), view.band.name)] : entries;
}

/** The value range with a margin; never empty. */
function bounds(values, log) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (log) return [low / 1.2, high * 1.2];
  const margin = (high - low) * 0.06 || Math.abs(high) * 0.06 || 1;
  return [low - margin, high + margin];
}

/** A function from values to pixels in [start, end]; its ticks(max) returns round values in the range. */
export function axisScale(low, high, start, end, log = false) {
  const transform = log ? Math.log : (value) => value;
  const [from, to] = [transform(low), transform(high)];
  const position = (value) => start + (to > from ? (transform(value) - from) / (to - from) : 0.5) * (end - start);
  position.ticks = (maxTicks) => (log ? logTicks(low, high, maxTicks) : evenTicks(low, high, maxTicks));
  return position;
}

function evenTicks(low, high, maxTicks) {
  if (high - low < 1e-300) return [low];
  const minStep = (high - low) / maxTicks;
  const power = 10 ** Math.floor(Math.log10(minStep));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= minStep * (1 - 1e-9));
  const tickValues = [];
  for (let i = Math.ceil(low / step - 1e-9); i <= Math.floor(high / step + 1e-9); i++) tickValues.push(Number((i * step).toPrecision(12)));
  return tickValues;
}

function logTicks(low, high, maxTicks) {
  let tickValues = [];
  for (const factors of [[1, 2, 5], [1, 3], [1]]) {
    tickValues = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const factor of factors) tickValues.push(Number(`${factor}e${power}`));
    tickValues = tickValues.filter((each) => low * (1 - 1e-9) <= each && each <= high * (1 + 1e-9));
    if (tickValues.length <= maxTicks + 1) break;
  }
  return tickValues.length > 1 ? tickValues : evenTicks(low, high, maxTicks);
}

/** At most two points per pixel column: the lowest and the highest. */
function thinPath(path, width) {
  if (path.length <= 2 * width) return path;
  const columns = new Map();
  for (const point of path) {
    const key = Math.round(point[0]);
    const range = columns.get(key) ?? [point, point];
    columns.set(key, [point[1] < range[0][1] ? point : range[0], point[1] > range[1][1] ? point : range[1]]);
  }
  return [path[0], ...[...columns.values()].flat(), path.at(-1)];
}
