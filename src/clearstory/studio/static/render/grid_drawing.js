// Field: what a grid paints: squares, dots or words, in SVG or on a canvas, and which cell a pointer is over.

import { themeColor, el, svg } from "../dom.js";

/** The largest number of a grid, whatever its sign. */
export function maxAbs(values) {
  let most = 0;
  for (const row of values) for (const each of row) if (each !== null && Math.abs(each) > most) most = Math.abs(each);
  return most;
}

/** A grid as SVG: text that can be read and found. */
export function drawGridSvg(view, { rows, columns, left, top, size, lean, tall, most }) {
  const [width, height] = [left + columns * size + lean, top + rows * tall + 8];
  const node = svg("svg", { class: view.texts ? "grid words" : "grid", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": view.title });
  const letters = Math.max(8, Math.min(12, size * 0.7));
  const marks = svg("g", {});
  const every = view.texts ? 1 : Math.ceil((letters + 2) / size); // labels only where they have room
  view.column_labels.forEach((label, i) => {
    if (i % every) return;
    const [x, y] = [left + (i + 0.6) * size, top - 6];
    const turned = lean === 8 ? `translate(${x - (view.texts ? 0.5 : 0.25) * size} ${y})` : `translate(${x} ${y}) rotate(-60)`;
    node.append(svg("text", { transform: turned, "font-size": letters, class: "ink mono", "data-column": i }, clipped(label, 16)));
  });
  const own = Math.max(8, Math.min(12, tall * 0.75));
  const spared = Math.ceil((own + 1) / tall);
  view.values.forEach((row, r) => {
    const y = top + r * tall;
    if (r % spared === 0)
      node.append(svg("text", { x: left - 6, y: y + tall / 2 + own / 3, "font-size": own, class: "ink mono end", "data-row": r }, clipped(view.row_labels[r], 20)));
    row.forEach((value, c) => {
      const each = mark(view, r, c, left + c * size, y, size, tall, most ? value / most : 0);
      if (each) marks.append(each);
    });
  });
  const across = svg("rect", { class: "cross", width: columns * size, height: tall, x: left, visibility: "hidden" });
  const down = svg("rect", { class: "cross", width: size, height: rows * tall, y: top, visibility: "hidden" });
  const held = svg("rect", { class: "held", width: columns * size, height: tall, x: left, visibility: "hidden" });
  const frame = svg("path", { class: "axis", d: `M${left} ${top}H${left + columns * size}M${left} ${top}V${top + rows * tall}` });
  node.append(across, down, marks, held, frame);
  return {
    node,
    how: "svg",
    place: placer(node, { rows, columns, left, top, size, tall, lean, heads: view.readers }),
    mark(at, pinned) {
      move(across, at && at.row !== null ? top + at.row * tall : null, "y");
      move(down, at && left + at.column * size, "x");
      move(held, pinned === null ? null : top + pinned * tall, "y");
      for (const each of node.querySelectorAll("text"))
        each.classList.toggle("on", at !== null && (each.dataset.row === String(at.row) || each.dataset.column === String(at.column)));
    },
  };
}

function move(rect, where, axis) {
  rect.setAttribute("visibility", where === null ? "hidden" : "visible");
  if (where !== null) rect.setAttribute(axis, where);
}

function mark(view, r, c, x, y, size, tall, strength) {
  const value = view.values[r][c];
  const ink = view.ink ?? "bar";
  if (view.texts) return wordCell(view, r, c, x, y, size, tall, Math.abs(strength));
  if (value === null)
    return size < 14
      ? svg("rect", { class: "value", opacity: 0.5, x: x + size * 0.3, y: y + size / 2 - 0.4, width: size * 0.4, height: 0.8 })
      : svg("text", { class: "value middle", opacity: 0.75, "font-size": Math.min(11, size * 0.5), x: x + size / 2, y: y + size / 2 + 4 }, "−∞");
  const much = Math.abs(strength);
  if (!much) return null;
  if (view.dots) {
    // Area, not radius: a number twice as large is to look twice as large.
    const radius = (size / 2 - 0.5) * Math.sqrt(much) - (value < 0 ? Math.min(0.7, size / 16) : 0);
    return svg("circle", { class: value < 0 ? `hollow-${ink}` : ink, cx: x + size / 2, cy: y + tall / 2, r: Math.max(radius, 0.2) });
  }
  const gap = Math.min(0.5, size / 10);
  const box = { x: x + gap, y: y + gap, width: size - 2 * gap, height: tall - 2 * gap, opacity: 0.04 + 0.96 * much };
  return svg("rect", { ...box, class: value < 0 ? `hollow-${ink}` : ink });
}

function wordCell(view, r, c, x, y, size, tall, much) {
  const level = Math.min(5, Math.floor(much * 5.999));
  const [shade, letters] = view.ink === "apart" && level ? [`${view.values[r][c] < 0 ? "less" : "more"}-${level}`, "ink"] : [`heat-${level}`, `on-${level}`];
  const [word, remark] = view.texts[r][c].split("\n");
  return svg(
    "g",
    {},
    svg("rect", { class: shade, x: x + 0.5, y: y + 0.5, width: size - 1, height: tall - 1, rx: 2 }),
    svg("text", { class: `${letters} mono`, style: { "font-size": "11px" }, x: x + 5, y: y + tall / 2 + 4 }, clipped(word, Math.floor((size - (remark ? 28 : 8)) / 7))),
    remark ? svg("text", { class: `${letters} end`, style: { "font-size": "9px" }, x: x + size - 5, y: y + tall / 2 + 4 }, clipped(remark, 5)) : "",
  );
}

/** The same on a canvas: thousands of squares in a few milliseconds. Labels only where they can be read. */
export function drawGridCanvas(view, { rows, columns, left, top, size, lean, tall, most }) {
  const [width, height] = [Math.ceil(left + columns * size + lean), Math.ceil(top + rows * tall + 8)];
  const sharp = Math.min(2, devicePixelRatio || 1);
  const base = el("canvas", { width: width * sharp, height: height * sharp, role: "img", "aria-label": view.title });
  const over = el("canvas", { width: width * sharp, height: height * sharp, class: "over", "aria-hidden": "true" });
  for (const each of [base, over]) Object.assign(each.style, { width: `${width}px`, height: `${height}px` });
  const node = el("div", { class: "stack", style: { width: `${width}px`, height: `${height}px` } }, base, over);
  const pen = base.getContext("2d");
  pen.scale(sharp, sharp);
  const [ink, text, line, forbidden] = [themeColor(view.ink ?? "bar"), themeColor("ink"), themeColor("soft"), themeColor("value")];
  const hollow = themeColor(view.ink === "apart" ? "apart-below" : "soft");
  if (view.dots) dots(pen, view, { left, top, size, tall, most, ink, hollow, forbidden });
  else squares(pen, view, { rows, columns, left, top, size, tall, most, ink, hollow, forbidden });
  pen.globalAlpha = 1;
  pen.fillStyle = text;
  const letters = Math.max(9, Math.min(12, size * 0.75));
  pen.font = `${letters}px ui-monospace, "DejaVu Sans Mono", monospace`;
  const every = Math.ceil((letters + 2) / size);
  view.column_labels.forEach((label, i) => {
    if (i % every) return;
    pen.save();
    pen.translate(left + (i + 0.6) * size, top - 6);
    if (lean !== 8) pen.rotate(-Math.PI / 3);
    pen.fillText(clipped(label, 16), 0, 0);
    pen.restore();
  });
  pen.textAlign = "right";
  view.row_labels.forEach((label, r) => r % Math.ceil((letters + 2) / tall) || pen.fillText(clipped(label, 20), left - 6, top + r * tall + tall / 2 + letters / 3));
  pen.strokeStyle = line;
  pen.strokeRect(left, top, columns * size, rows * tall);
  const top2 = over.getContext("2d");
  top2.scale(sharp, sharp);
  return {
    node,
    how: "canvas",
    // 23 MB for 512 tokens, which no collector of garbage knows of.
    end: () => [base, over].forEach((each) => (each.width = each.height = 0)),
    place: placer(node, { rows, columns, left, top, size, tall, lean, heads: view.readers }),
    mark(at, pinned) {
      top2.clearRect(0, 0, width, height);
      top2.strokeStyle = themeColor("query");
      top2.lineWidth = 1.5;
      if (at) {
        if (at.row !== null) top2.strokeRect(left, top + at.row * tall, columns * size, tall);
        top2.strokeRect(left + at.column * size, top, size, rows * tall);
      }
      top2.strokeStyle = themeColor("line-1");
      if (pinned !== null) top2.strokeRect(left, top + pinned * tall, columns * size, tall);
    },
  };
}

/** Numbers as areas, hollow below zero. */
function dots(pen, view, { left, top, size, tall, most, ink, hollow, forbidden }) {
  view.values.forEach((row, r) =>
    row.forEach((value, c) => {
      const [x, y] = [left + c * size, top + r * tall];
      if (value === null) {
        pen.globalAlpha = 0.5;
        pen.fillStyle = forbidden;
        pen.fillRect(x + size * 0.3, y + tall / 2 - 0.4, size * 0.4, 0.8);
        return;
      }
      const much = most ? Math.abs(value) / most : 0;
      if (!much) return;
      pen.globalAlpha = 1;
      pen.beginPath();
      pen.arc(x + size / 2, y + tall / 2, Math.max(0.2, (size / 2 - 0.5) * Math.sqrt(much)), 0, 7);
      if (value < 0) {
        pen.strokeStyle = hollow;
        pen.lineWidth = Math.min(1.2, size / 8);
        pen.stroke();
      } else {
        pen.fillStyle = ink;
        pen.fill();
      }
    }),
  );
}

/**
 * Numbers as strengths of a colour: a picture with one pixel a cell, drawn larger. A quarter of a million rectangles
 * would be kept by the browser, one by one, until they are shown: 180 MB for 512 tokens.
 */
function squares(pen, view, { rows, columns, left, top, size, tall, most, ink, hollow, forbidden }) {
  const picture = el("canvas", { width: columns, height: rows });
  const paper = picture.getContext("2d");
  const image = paper.createImageData(columns, rows);
  const [more, less, none] = [ink, hollow, forbidden].map((name) => rgb(name));
  view.values.forEach((row, r) =>
    row.forEach((value, c) => {
      const much = value === null ? 0.25 : most ? Math.abs(value) / most : 0;
      if (!much) return;
      const at = 4 * (r * columns + c);
      image.data.set(value === null ? none : value < 0 ? less : more, at);
      image.data[at + 3] = Math.round(255 * (value === null ? much : 0.04 + 0.96 * much));
    }),
  );
  paper.putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(picture, left, top, columns * size, rows * tall);
  picture.width = picture.height = 0;
  if (size < 6) return;
  for (let c = 1; c < columns; c++) pen.clearRect(left + c * size - 0.5, top, 0.5, rows * tall);
  for (let r = 1; r < rows; r++) pen.clearRect(left, top + r * tall - 0.5, columns * size, 0.5);
}

/** A colour of the page as [red, green, blue]. */
function rgb(name) {
  const paper = el("canvas", { width: 1, height: 1 }).getContext("2d");
  paper.fillStyle = name;
  paper.fillRect(0, 0, 1, 1);
  return paper.getImageData(0, 0, 1, 1).data.subarray(0, 3);
}

/** From a pointer to the cell under it; null outside. With `heads`, a column's label is {row: null, column}. */
function placer(node, { rows, columns, left, top, size, tall, lean, heads }) {
  return (event) => {
    const box = node.getBoundingClientRect();
    const scale = node.viewBox?.baseVal?.width ? node.viewBox.baseVal.width / box.width : 1;
    const [x, y] = [(event.clientX - box.left) * scale - left, (event.clientY - box.top) * scale - top];
    // Labels lean to the right by 60 degrees where they are long.
    const out = y < 0 && lean !== 8 ? y / Math.sqrt(3) : 0;
    const [row, column] = [Math.floor(y / tall), Math.floor((x + out) / size)];
    if (heads && y < 0 && column >= 0 && column < columns) return { row: null, column };
    return row >= 0 && row < rows && column >= 0 && column < columns ? { row, column } : null;
  };
}

function clipped(text, most) {
  const letters = [...text];
  return letters.length <= most ? text : `${letters.slice(0, Math.max(1, most - 1)).join("")}…`;
}
