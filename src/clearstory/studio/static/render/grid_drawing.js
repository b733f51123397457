// Grid drawing: squares, dots or texts of a grid as SVG or on a canvas, and the cell under the pointer.

import { themeColor, el, svg } from "../dom.js";

/** The CSS colour of a grid's marks, by its palette. */
function colorName(view) {
  return { sequential: "bar", diverging: "apart" }[view.palette ?? "sequential"] ?? view.palette;
}

/** The largest absolute value of a grid. */
export function maxAbs(values) {
  let max = 0;
  for (const row of values) for (const each of row) if (each !== null && Math.abs(each) > max) max = Math.abs(each);
  return max;
}

/** Columns whose largest value is more than this many times that of the median column are outliers. */
const OUTLIER_FACTOR = 4;

/**
 * The value that is drawn at full size, and the columns with larger ones. A residual stream has a few dimensions that are a
 * hundred times the others and would hide them, so the scale of vectors is that of all dimensions but the outliers.
 */
export function robustScale(columnMaxima) {
  const sorted = [...columnMaxima].sort((a, b) => a - b);
  const limit = OUTLIER_FACTOR * (sorted[Math.floor(sorted.length / 2)] ?? 0);
  if (sorted.length < 8 || !limit || sorted.at(-1) <= limit) return { max: sorted.at(-1) ?? 0, outliers: [] };
  return { max: sorted.findLast((each) => each <= limit), outliers: columnMaxima.flatMap((each, column) => (each > limit ? [column] : [])) };
}

/** Whether the columns of a grid are dimensions of vectors: their labels are numbers. */
const hasDimensions = (view) => Boolean(view.dots) && view.column_labels.every((label) => /^\d+$/.test(label));

/** The scale of a grid: robust for vectors, otherwise the largest absolute value. */
export function gridScale(view) {
  if (!hasDimensions(view)) return { max: maxAbs(view.values), outliers: [] };
  return robustScale(view.column_labels.map((_, column) => Math.max(...view.values.map((row) => Math.abs(row[column] ?? 0)))));
}

/** A grid as SVG, with searchable text. */
export function drawGridSvg(view, { rows, columns, left, top, size, tilt, rowHeight, max }) {
  const [width, height] = [left + columns * size + tilt, top + rows * rowHeight + 8];
  const node = svg("svg", { class: view.texts ? "grid words" : "grid", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": view.title });
  const labelSize = Math.max(8, Math.min(12, size * 0.7));
  const cells = svg("g", {});
  const columnEvery = view.texts ? 1 : Math.ceil((labelSize + 2) / size); // only labels that fit
  view.column_labels.forEach((label, i) => {
    if (i % columnEvery) return;
    const [x, y] = [left + (i + 0.6) * size, top - 6];
    const turned = tilt === 8 ? `translate(${x - (view.texts ? 0.5 : 0.25) * size} ${y})` : `translate(${x} ${y}) rotate(-60)`;
    node.append(svg("text", { transform: turned, "font-size": labelSize, class: "ink mono", "data-column": i }, truncateText(label, 16)));
  });
  const fontSize = Math.max(8, Math.min(12, rowHeight * 0.75));
  const labelEvery = Math.ceil((fontSize + 1) / rowHeight);
  view.values.forEach((row, r) => {
    const y = top + r * rowHeight;
    if (r % labelEvery === 0)
      node.append(svg("text", { x: left - 6, y: y + rowHeight / 2 + fontSize / 3, "font-size": fontSize, class: "ink mono end", "data-row": r }, truncateText(view.row_labels[r], 20)));
    row.forEach((value, c) => {
      const each = cellMark(view, r, c, left + c * size, y, size, rowHeight, max ? value / max : 0);
      if (each) cells.append(each);
    });
  });
  const across = svg("rect", { class: "cross", width: columns * size, height: rowHeight, x: left, visibility: "hidden" });
  const down = svg("rect", { class: "cross", width: size, height: rows * rowHeight, y: top, visibility: "hidden" });
  const pinnedRow = svg("rect", { class: "held", width: columns * size, height: rowHeight, x: left, visibility: "hidden" });
  const frame = svg("path", { class: "axis", d: `M${left} ${top}H${left + columns * size}M${left} ${top}V${top + rows * rowHeight}` });
  node.append(across, down, cells, pinnedRow, frame);
  return {
    node,
    backend: "svg",
    cellAt: cellLocator(node, { rows, columns, left, top, size, rowHeight, tilt, heads: view.readers }),
    mark(hovered, pinned) {
      moveRect(across, hovered && hovered.row !== null ? top + hovered.row * rowHeight : null, "y");
      moveRect(down, hovered && left + hovered.column * size, "x");
      moveRect(pinnedRow, pinned === null ? null : top + pinned * rowHeight, "y");
      for (const each of node.querySelectorAll("text"))
        each.classList.toggle("on", hovered !== null && (each.dataset.row === String(hovered.row) || each.dataset.column === String(hovered.column)));
    },
  };
}

function moveRect(rect, where, axis) {
  rect.setAttribute("visibility", where === null ? "hidden" : "visible");
  if (where !== null) rect.setAttribute(axis, where);
}

function cellMark(view, r, c, x, y, size, rowHeight, strength) {
  const value = view.values[r][c];
  const ink = colorName(view);
  if (view.texts) return textCell(view, r, c, x, y, size, rowHeight, Math.abs(strength));
  if (value === null)
    return size < 14
      ? svg("rect", { class: "value", opacity: 0.5, x: x + size * 0.3, y: y + size / 2 - 0.4, width: size * 0.4, height: 0.8 })
      : svg("text", { class: "value middle", opacity: 0.75, "font-size": Math.min(11, size * 0.5), x: x + size / 2, y: y + size / 2 + 4 }, "−∞");
  const magnitude = Math.min(1, Math.abs(strength));
  if (!magnitude) return null;
  if (view.dots) {
    // The area, not the radius, is proportional to the value.
    const radius = (size / 2 - 0.5) * Math.sqrt(magnitude) - (value < 0 ? Math.min(0.7, size / 16) : 0);
    return svg("circle", { class: `${value < 0 ? `hollow-${ink}` : ink}${Math.abs(strength) > 1 ? " beyond" : ""}`, cx: x + size / 2, cy: y + rowHeight / 2, r: Math.max(radius, 0.2) });
  }
  const gap = Math.min(0.5, size / 10);
  const bounds = { x: x + gap, y: y + gap, width: size - 2 * gap, height: rowHeight - 2 * gap, opacity: 0.04 + 0.96 * magnitude };
  return svg("rect", { ...bounds, class: value < 0 ? `hollow-${ink}` : ink });
}

function textCell(view, r, c, x, y, size, rowHeight, magnitude) {
  const level = Math.min(5, Math.floor(magnitude * 5.999));
  const [shade, labelSize] = view.palette === "diverging" && level ? [`${view.values[r][c] < 0 ? "less" : "more"}-${level}`, "ink"] : [`heat-${level}`, `on-${level}`];
  const [word, remark] = view.texts[r][c].split("\n");
  return svg(
    "g",
    {},
    svg("rect", { class: shade, x: x + 0.5, y: y + 0.5, width: size - 1, height: rowHeight - 1, rx: 2 }),
    svg("text", { class: `${labelSize} mono`, style: { "font-size": "11px" }, x: x + 5, y: y + rowHeight / 2 + 4 }, truncateText(word, Math.floor((size - (remark ? 28 : 8)) / 7))),
    remark ? svg("text", { class: `${labelSize} end`, style: { "font-size": "9px" }, x: x + size - 5, y: y + rowHeight / 2 + 4 }, truncateText(remark, 5)) : "",
  );
}

/** A grid on a canvas: thousands of cells in a few milliseconds, with the labels that fit. */
export function drawGridCanvas(view, { rows, columns, left, top, size, tilt, rowHeight, max }) {
  const [width, height] = [Math.ceil(left + columns * size + tilt), Math.ceil(top + rows * rowHeight + 8)];
  const pixelRatio = Math.min(2, devicePixelRatio || 1);
  const base = el("canvas", { width: width * pixelRatio, height: height * pixelRatio, role: "img", "aria-label": view.title });
  const overlay = el("canvas", { width: width * pixelRatio, height: height * pixelRatio, class: "over", "aria-hidden": "true" });
  for (const each of [base, overlay]) Object.assign(each.style, { width: `${width}px`, height: `${height}px` });
  const node = el("div", { class: "stack", style: { width: `${width}px`, height: `${height}px` } }, base, overlay);
  const context = base.getContext("2d");
  context.scale(pixelRatio, pixelRatio);
  const [ink, text, line, noValue] = [themeColor(colorName(view)), themeColor("ink"), themeColor("soft"), themeColor("value")];
  const negative = themeColor(view.palette === "diverging" ? "apart-below" : "soft");
  if (view.dots) dots(context, view, { left, top, size, rowHeight, max, ink, hollow: negative, forbidden: noValue });
  else squares(context, view, { rows, columns, left, top, size, rowHeight, max, ink, hollow: negative, forbidden: noValue });
  context.globalAlpha = 1;
  context.fillStyle = text;
  const labelSize = Math.max(9, Math.min(12, size * 0.75));
  context.font = `${labelSize}px ui-monospace, "DejaVu Sans Mono", monospace`;
  const columnEvery = Math.ceil((labelSize + 2) / size);
  view.column_labels.forEach((label, i) => {
    if (i % columnEvery) return;
    context.save();
    context.translate(left + (i + 0.6) * size, top - 6);
    if (tilt !== 8) context.rotate(-Math.PI / 3);
    context.fillText(truncateText(label, 16), 0, 0);
    context.restore();
  });
  context.textAlign = "right";
  view.row_labels.forEach((label, r) => r % Math.ceil((labelSize + 2) / rowHeight) || context.fillText(truncateText(label, 20), left - 6, top + r * rowHeight + rowHeight / 2 + labelSize / 3));
  context.strokeStyle = line;
  context.strokeRect(left, top, columns * size, rows * rowHeight);
  const overlayContext = overlay.getContext("2d");
  overlayContext.scale(pixelRatio, pixelRatio);
  return {
    node,
    backend: "canvas",
    // Frees the canvas memory, 23 MB for 512 tokens, without waiting for garbage collection.
    destroy: () => [base, overlay].forEach((each) => (each.width = each.height = 0)),
    cellAt: cellLocator(node, { rows, columns, left, top, size, rowHeight, tilt, heads: view.readers }),
    mark(hovered, pinned) {
      overlayContext.clearRect(0, 0, width, height);
      overlayContext.strokeStyle = themeColor("query");
      overlayContext.lineWidth = 1.5;
      if (hovered) {
        if (hovered.row !== null) overlayContext.strokeRect(left, top + hovered.row * rowHeight, columns * size, rowHeight);
        overlayContext.strokeRect(left + hovered.column * size, top, size, rows * rowHeight);
      }
      overlayContext.strokeStyle = themeColor("line-1");
      if (pinned !== null) overlayContext.strokeRect(left, top + pinned * rowHeight, columns * size, rowHeight);
    },
  };
}

/** Values as dot areas, hollow below zero. */
function dots(context, view, { left, top, size, rowHeight, max, ink, hollow: negative, forbidden: noValue }) {
  view.values.forEach((row, r) =>
    row.forEach((value, c) => {
      const [x, y] = [left + c * size, top + r * rowHeight];
      if (value === null) {
        context.globalAlpha = 0.5;
        context.fillStyle = noValue;
        context.fillRect(x + size * 0.3, y + rowHeight / 2 - 0.4, size * 0.4, 0.8);
        return;
      }
      const magnitude = max ? Math.min(1, Math.abs(value) / max) : 0;
      if (!magnitude) return;
      context.globalAlpha = 1;
      context.beginPath();
      context.arc(x + size / 2, y + rowHeight / 2, Math.max(0.2, (size / 2 - 0.5) * Math.sqrt(magnitude)), 0, 7);
      if (value < 0) {
        context.strokeStyle = negative;
        context.lineWidth = Math.min(1.2, size / 8);
        context.stroke();
      } else {
        context.fillStyle = ink;
        context.fill();
      }
    }),
  );
}

/**
 * Values as opacities: an image with one pixel per cell, scaled up. Drawing a quarter of a million rectangles instead takes
 * 180 MB for 512 tokens.
 */
function squares(context, view, { rows, columns, left, top, size, rowHeight, max, ink, hollow: negative, forbidden: noValue }) {
  const picture = el("canvas", { width: columns, height: rows });
  const pictureContext = picture.getContext("2d");
  const image = pictureContext.createImageData(columns, rows);
  const [more, less, noValueRgb] = [ink, negative, noValue].map((name) => rgb(name));
  view.values.forEach((row, r) =>
    row.forEach((value, c) => {
      const magnitude = value === null ? 0.25 : max ? Math.abs(value) / max : 0;
      if (!magnitude) return;
      const hovered = 4 * (r * columns + c);
      image.data.set(value === null ? noValueRgb : value < 0 ? less : more, hovered);
      image.data[hovered + 3] = Math.round(255 * (value === null ? magnitude : 0.04 + 0.96 * magnitude));
    }),
  );
  pictureContext.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, left, top, columns * size, rows * rowHeight);
  picture.width = picture.height = 0;
  if (size < 6) return;
  for (let c = 1; c < columns; c++) context.clearRect(left + c * size - 0.5, top, 0.5, rows * rowHeight);
  for (let r = 1; r < rows; r++) context.clearRect(left, top + r * rowHeight - 0.5, columns * size, 0.5);
}

/** A CSS colour as [red, green, blue]. */
function rgb(name) {
  const pictureContext = el("canvas", { width: 1, height: 1 }).getContext("2d");
  pictureContext.fillStyle = name;
  pictureContext.fillRect(0, 0, 1, 1);
  return pictureContext.getImageData(0, 0, 1, 1).data.subarray(0, 3);
}

/** A function from pointer events to cells; null outside. With `heads`, a column label is {row: null, column}. */
function cellLocator(node, { rows, columns, left, top, size, rowHeight, tilt, heads }) {
  return (event) => {
    const bounds = node.getBoundingClientRect();
    const scale = node.viewBox?.baseVal?.width ? node.viewBox.baseVal.width / bounds.width : 1;
    const [x, y] = [(event.clientX - bounds.left) * scale - left, (event.clientY - bounds.top) * scale - top];
    // Long labels are rotated by 60 degrees.
    const out = y < 0 && tilt !== 8 ? y / Math.sqrt(3) : 0;
    const [row, column] = [Math.floor(y / rowHeight), Math.floor((x + out) / size)];
    if (heads && y < 0 && column >= 0 && column < columns) return { row: null, column };
    return row >= 0 && row < rows && column >= 0 && column < columns ? { row, column } : null;
  };
}

function truncateText(text, max) {
  const labelSize = [...text];
  return labelSize.length <= max ? text : `${labelSize.slice(0, Math.max(1, max - 1)).join("")}…`;
}
