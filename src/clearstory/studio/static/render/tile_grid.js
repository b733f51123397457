// Tile grid: many small images on one canvas, such as the patterns of all attention heads. Hover to read one, click to select it.

import { themeColor, el, redrawOnResize } from "../dom.js";

/**
 * data: {patterns: {shape: [layers, heads, rows, columns], values}, order, names, kinds, scores, title}. `patterns` are bytes,
 * 255 for 1; `order` lists [layer, head] in display order, `inPlace` if that is by layer and head; `names` (the type of each
 * head), `kinds` (all types) and `scores` may be added later. `hideFirst` hides the first column and rescales the rest.
 * `alsoSelected` is a set of further heads as "layer.head". onPick({layer, head, pinned, add}); `picked` is {layer, head} or null.
 */
export function mount(root, data, { onPick = (_) => {}, picked = null } = {}) {
  let view = data;
  let selected = picked;
  let hovered = null; // index in `order` of the tile under the pointer
  let layout = null;
  const canvas = el("canvas", { role: "img" });
  const overlay = el("canvas", { class: "over", "aria-hidden": "true" });
  const stack = el("div", { class: "stack tile-grid", tabindex: "0", role: "application", onkeydown: onKeyDown }, canvas, overlay);
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  const legend = el("p", { class: "legend" });
  root.replaceChildren(legend, el("div", { class: "wide" }, stack), readout);
  stack.addEventListener("pointermove", (event) => hover(tileAt(event)));
  stack.addEventListener("pointerleave", () => hover(null));
  stack.addEventListener("click", (event) => click(tileAt(event), event.shiftKey));
  const stopRedraw = redrawOnResize(root, paint);
  const end = () => (stopRedraw(), [canvas, overlay].forEach((each) => (each.width = each.height = 0)));

  function update(next, now = selected) {
    view = next;
    selected = now;
    paint(root.clientWidth || 600);
  }

  /** Changes the selection without redrawing the tiles. */
  function choose(now, also = view.alsoSelected) {
    view.alsoSelected = also;
    selected = now;
    updateMarks();
    updateReadout();
  }

  function paint(width) {
    const [layers, heads, rows, columns] = view.patterns.shape;
    // The longer dimension is horizontal: 30 layers of 9 heads are nine rows.
    const across = Math.max(layers, heads);
    const [left, tileGap, footHeight] = [30, across > 16 ? 3 : 5, view.names ? 3 : 0];
    const size = Math.max(14, Math.min(72, (width - left - 8) / across - tileGap));
    layout = { across, heads, left, top: 16, step: size + tileGap, rowHeight: size + tileGap + footHeight, size };
    const gridRows = Math.ceil(view.order.length / across);
    const [canvasWidth, canvasHeight] = [Math.ceil(left + across * layout.step), Math.ceil(layout.top + gridRows * layout.rowHeight + 2)];
    const pixelRatio = Math.min(2, devicePixelRatio || 1);
    for (const each of [canvas, overlay]) {
      Object.assign(each, { width: canvasWidth * pixelRatio, height: canvasHeight * pixelRatio });
      Object.assign(each.style, { width: `${canvasWidth}px`, height: `${canvasHeight}px` });
    }
    Object.assign(stack.style, { width: `${canvasWidth}px`, height: `${canvasHeight}px` });
    const context = canvas.getContext("2d");
    context.scale(pixelRatio, pixelRatio);
    context.imageSmoothingEnabled = false;
    context.font = '10px ui-monospace, "DejaVu Sans Mono", monospace';
    const [softColor, ruleColor] = [themeColor("soft"), themeColor("rule")];
    const color = packColor(themeColor("bar"));
    const tileCanvas = el("canvas", { width: columns, height: layers * heads * rows });
    const tileContext = tileCanvas.getContext("2d");
    const image = tileContext.createImageData(tileCanvas.width, tileCanvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    const maps = view.patterns.values;
    for (let from = 0; from < maps.length; from += rows * columns) {
      const gain = view.hideFirst ? brightness(maps.subarray(from, from + rows * columns), columns) : 1;
      for (let cell = from; cell < from + rows * columns; cell++) pixels[cell] = color | ((maps[cell] * gain) << 24);
      if (view.hideFirst) for (let cell = from; cell < from + rows * columns; cell += columns) pixels[cell] = 0;
    }
    tileContext.putImageData(image, 0, 0);
    view.order.forEach(([layer, head], index) => {
      const { x, y } = corner(index);
      context.drawImage(tileCanvas, 0, (layer * heads + head) * rows, columns, rows, x, y, size, size);
      context.strokeStyle = ruleColor;
      context.strokeRect(x - 0.5, y - 0.5, size + 1, size + 1);
      if (view.names) {
        const kind = view.kinds.indexOf(view.names[layer][head]);
        if (kind < view.kinds.length - 1) {
          context.fillStyle = typeColor(kind);
          context.fillRect(x, y + size + 1, size, 3);
        }
      }
    });
    tileCanvas.width = tileCanvas.height = 0; // frees its memory
    context.fillStyle = softColor;
    context.textBaseline = "middle";
    context.textAlign = "right";
    if (view.inPlace) {
      const [rowAxis, columnAxis] = layers > heads ? ["head", "layer"] : ["layer", "head"];
      const [rowsEvery, columnEvery] = [Math.ceil(12 / layout.rowHeight), Math.ceil(16 / layout.step)];
      for (let row = 0; row < gridRows; row += rowsEvery) context.fillText(String(row), left - 6, layout.top + row * layout.rowHeight + size / 2);
      context.textAlign = "center";
      for (let column = 0; column < across; column += columnEvery) context.fillText(String(column), left + column * layout.step + size / 2, 7);
      root.dataset.across = columnAxis;
      root.dataset.down = rowAxis;
    }
    canvas.setAttribute("aria-label", `${view.title}; the numbers are in the table behind Numbers`);
    Object.assign(root.dataset, { layers, heads, how: "canvas", cells: `${rows}x${columns}` });
    legend.hidden = !view.names;
    if (view.names) drawLegend();
    updateMarks();
    updateReadout();
  }

  function drawLegend() {
    const counts = new Map();
    for (const row of view.names) for (const name of row) counts.set(name, (counts.get(name) ?? 0) + 1);
    legend.replaceChildren(
      ...view.kinds
        .filter((name) => counts.has(name))
        .map((name) => {
          const kind = view.kinds.indexOf(name);
          const swatch = el("span", { class: "swatch" });
          if (kind < view.kinds.length - 1) swatch.style.background = typeColor(kind);
          return el("span", { class: "legend-item", data: { kind: name, count: counts.get(name) } }, swatch, `${name} ${counts.get(name)}`);
        }),
    );
  }

  const corner = (index) => ({
    x: layout.left + (index % layout.across) * layout.step,
    y: layout.top + Math.floor(index / layout.across) * layout.rowHeight,
  });

  function tileAt(event) {
    const outline = stack.getBoundingClientRect();
    const column = Math.floor((event.clientX - outline.left - layout.left) / layout.step);
    const row = Math.floor((event.clientY - outline.top - layout.top) / layout.rowHeight);
    const index = row * layout.across + column;
    return column >= 0 && column < layout.across && row >= 0 && index < view.order.length ? index : null;
  }

  function updateMarks() {
    const context = overlay.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, overlay.width, overlay.height);
    const pixelRatio = Math.min(2, devicePixelRatio || 1);
    context.scale(pixelRatio, pixelRatio);
    const outline = (index, color, canvasWidth) => {
      const { x, y } = corner(index);
      context.strokeStyle = themeColor(color);
      context.lineWidth = canvasWidth;
      context.strokeRect(x - 1, y - 1, layout.size + 2, layout.size + 2);
    };
    const selectedIndex = selected === null ? -1 : view.order.findIndex(([layer, head]) => layer === selected.layer && head === selected.head);
    if (view.alsoSelected?.size) view.order.forEach(([layer, head], index) => view.alsoSelected.has(`${layer}.${head}`) && outline(index, "key", 2.5));
    else if (selectedIndex >= 0) outline(selectedIndex, "line-1", 2.5);
    if (hovered !== null && hovered !== selectedIndex) outline(hovered, "query", 1.5);
    Object.assign(root.dataset, { layer: selected?.layer ?? "", head: selected?.head ?? "" });
  }

  function hover(index) {
    if (index === hovered) return;
    hovered = index;
    updateMarks();
    updateReadout();
    if (index !== null) onPick({ layer: view.order[index][0], head: view.order[index][1], pinned: false });
  }

  function click(index, add) {
    if (index === null) return;
    const [layer, head] = view.order[index];
    if (add) return onPick({ layer, head, pinned: true, add });
    selected = { layer, head };
    hovered = index;
    updateMarks();
    updateReadout();
    onPick({ layer, head, pinned: true, add: false });
  }

  function updateReadout() {
    const index = hovered ?? (selected ? view.order.findIndex(([layer, head]) => layer === selected.layer && head === selected.head) : -1);
    if (index < 0) {
      readout.textContent = "Hover a head to read its type; click to open it, shift-click to add it to the combined heads; use the arrow keys to move.";
      return;
    }
    const [layer, head] = view.order[index];
    const name = view.names?.[layer][head];
    const kind = name ? view.kinds.indexOf(name) : -1;
    const score = view.scores && kind >= 0 && kind < view.kinds.length - 1 ? view.scores.values[(layer * layout.heads + head) * (view.kinds.length - 1) + kind] : null;
    readout.textContent = `Layer ${layer}, head ${head}${name ? `: ${name}${score === null ? "" : ` ${score.toFixed(2)}`}` : ""}${hovered === null ? ", selected" : ""}.`;
  }

  function onKeyDown(event) {
    const offset = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: layout.across, ArrowUp: -layout.across }[event.key];
    if (offset) {
      event.preventDefault();
      const from = hovered ?? Math.max(0, selected ? view.order.findIndex(([layer, head]) => layer === selected.layer && head === selected.head) : 0);
      hover(Math.max(0, Math.min(view.order.length - 1, from + offset)));
    } else if (event.key === "Enter") click(hovered, event.shiftKey);
    else if (event.key === "Escape") hover(null);
  }

  update(data, picked);
  return { update, choose, destroy: end, state: () => ({ hovered, ...selected }), svg: () => null, csv: () => null };
}

/** The colour of a head type. */
const typeColor = (kind) => themeColor(kind < 6 ? `line-${kind}` : "band");

/** The factor that scales the largest value outside of the first column to 255. */
function brightness(cells, columns) {
  let max = 1;
  cells.forEach((cell, index) => (max = index % columns ? Math.max(max, cell) : max));
  return 255 / max;
}

/** A colour as the lower three bytes of a pixel; the fourth is its opacity. */
function packColor(text) {
  const context = el("canvas", { width: 1, height: 1 }).getContext("2d");
  context.fillStyle = text;
  context.fillRect(0, 0, 1, 1);
  return new Uint32Array(context.getImageData(0, 0, 1, 1).data.buffer)[0] & 0xffffff;
}
