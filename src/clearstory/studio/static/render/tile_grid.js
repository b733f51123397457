// Mosaic: many small pictures on one canvas: every head of a model. Pointing reads one, a click chooses it.

import { themeColor, el, redrawOnResize } from "../dom.js";

/**
 * data: {maps: {shape: [layers, heads, rows, columns], values}, order, names, kinds, scores, title}. `maps` are bytes, 255
 * for 1; `order` lists [layer, head] as they are to stand, `inPlace` in rows and columns of layers and heads; `names`,
 * `kinds` and `scores` may come later. `hideFirst` leaves the first column out and makes the rest as bright as it can be.
 * `also` are heads as "layer.head" that are chosen beside. onPick({layer, head, pinned, add}); `picked` is {layer, head} or null.
 */
export function mount(root, data, { onPick = (_) => {}, picked = null } = {}) {
  let view = data;
  let chosen = picked;
  let at = null; // the place, in `order`, that is looked at
  let layout = null;
  const base = el("canvas", { role: "img" });
  const over = el("canvas", { class: "over", "aria-hidden": "true" });
  const stack = el("div", { class: "stack mosaic", tabindex: "0", role: "application", onkeydown: keys }, base, over);
  const said = el("p", { class: "said", "aria-live": "polite" });
  const legend = el("p", { class: "legend" });
  root.replaceChildren(legend, el("div", { class: "wide" }, stack), said);
  stack.addEventListener("pointermove", (event) => look(placeOf(event)));
  stack.addEventListener("pointerleave", () => look(null));
  stack.addEventListener("click", (event) => click(placeOf(event), event.shiftKey));
  const still = redrawOnResize(root, paint);
  const end = () => (still(), [base, over].forEach((each) => (each.width = each.height = 0)));

  function update(next, now = chosen) {
    view = next;
    chosen = now;
    paint(root.clientWidth || 600);
  }

  /** Another head is chosen, or others are combined: the picture stays. */
  function choose(now, also = view.also) {
    view.also = also;
    chosen = now;
    mark();
    say();
  }

  function paint(width) {
    const [layers, heads, rows, columns] = view.maps.shape;
    // The longer side goes across: 30 layers of 9 heads are nine rows.
    const across = Math.max(layers, heads);
    const [left, gap, foot] = [30, across > 16 ? 3 : 5, view.names ? 3 : 0];
    const size = Math.max(14, Math.min(72, (width - left - 8) / across - gap));
    layout = { across, heads, left, top: 16, step: size + gap, tall: size + gap + foot, size };
    const lines = Math.ceil(view.order.length / across);
    const [wide, high] = [Math.ceil(left + across * layout.step), Math.ceil(layout.top + lines * layout.tall + 2)];
    const sharp = Math.min(2, devicePixelRatio || 1);
    for (const each of [base, over]) {
      Object.assign(each, { width: wide * sharp, height: high * sharp });
      Object.assign(each.style, { width: `${wide}px`, height: `${high}px` });
    }
    Object.assign(stack.style, { width: `${wide}px`, height: `${high}px` });
    const pen = base.getContext("2d");
    pen.scale(sharp, sharp);
    pen.imageSmoothingEnabled = false;
    pen.font = '10px ui-monospace, "DejaVu Sans Mono", monospace';
    const [soft, rule] = [themeColor("soft"), themeColor("rule")];
    const ink = packed(themeColor("bar"));
    const small = el("canvas", { width: columns, height: layers * heads * rows });
    const brush = small.getContext("2d");
    const image = brush.createImageData(small.width, small.height);
    const pixels = new Uint32Array(image.data.buffer);
    const maps = view.maps.values;
    for (let from = 0; from < maps.length; from += rows * columns) {
      const bright = view.hideFirst ? brightness(maps.subarray(from, from + rows * columns), columns) : 1;
      for (let cell = from; cell < from + rows * columns; cell++) pixels[cell] = ink | ((maps[cell] * bright) << 24);
      if (view.hideFirst) for (let cell = from; cell < from + rows * columns; cell += columns) pixels[cell] = 0;
    }
    brush.putImageData(image, 0, 0);
    view.order.forEach(([layer, head], place) => {
      const { x, y } = corner(place);
      pen.drawImage(small, 0, (layer * heads + head) * rows, columns, rows, x, y, size, size);
      pen.strokeStyle = rule;
      pen.strokeRect(x - 0.5, y - 0.5, size + 1, size + 1);
      if (view.names) {
        const kind = view.kinds.indexOf(view.names[layer][head]);
        if (kind < view.kinds.length - 1) {
          pen.fillStyle = inkOf(kind);
          pen.fillRect(x, y + size + 1, size, 3);
        }
      }
    });
    small.width = small.height = 0; // let go at once
    pen.fillStyle = soft;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    if (view.inPlace) {
      const [down, right] = layers > heads ? ["head", "layer"] : ["layer", "head"];
      const [rowsEvery, every] = [Math.ceil(12 / layout.tall), Math.ceil(16 / layout.step)];
      for (let row = 0; row < lines; row += rowsEvery) pen.fillText(String(row), left - 6, layout.top + row * layout.tall + size / 2);
      pen.textAlign = "center";
      for (let column = 0; column < across; column += every) pen.fillText(String(column), left + column * layout.step + size / 2, 7);
      root.dataset.across = right;
      root.dataset.down = down;
    }
    base.setAttribute("aria-label", `${view.title}; the numbers are in the table behind Numbers`);
    Object.assign(root.dataset, { layers, heads, how: "canvas", cells: `${rows}x${columns}` });
    legend.hidden = !view.names;
    if (view.names) drawLegend();
    mark();
    say();
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
          if (kind < view.kinds.length - 1) swatch.style.background = inkOf(kind);
          return el("span", { class: "legend-item", data: { kind: name, count: counts.get(name) } }, swatch, `${name} ${counts.get(name)}`);
        }),
    );
  }

  const corner = (place) => ({
    x: layout.left + (place % layout.across) * layout.step,
    y: layout.top + Math.floor(place / layout.across) * layout.tall,
  });

  function placeOf(event) {
    const box = stack.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - layout.left) / layout.step);
    const row = Math.floor((event.clientY - box.top - layout.top) / layout.tall);
    const place = row * layout.across + column;
    return column >= 0 && column < layout.across && row >= 0 && place < view.order.length ? place : null;
  }

  function mark() {
    const pen = over.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, over.width, over.height);
    const sharp = Math.min(2, devicePixelRatio || 1);
    pen.scale(sharp, sharp);
    const box = (place, ink, wide) => {
      const { x, y } = corner(place);
      pen.strokeStyle = themeColor(ink);
      pen.lineWidth = wide;
      pen.strokeRect(x - 1, y - 1, layout.size + 2, layout.size + 2);
    };
    const held = chosen === null ? -1 : view.order.findIndex(([layer, head]) => layer === chosen.layer && head === chosen.head);
    if (view.also?.size) view.order.forEach(([layer, head], place) => view.also.has(`${layer}.${head}`) && box(place, "key", 2.5));
    else if (held >= 0) box(held, "line-1", 2.5);
    if (at !== null && at !== held) box(at, "query", 1.5);
    Object.assign(root.dataset, { layer: chosen?.layer ?? "", head: chosen?.head ?? "" });
  }

  function look(place) {
    if (place === at) return;
    at = place;
    mark();
    say();
    if (place !== null) onPick({ layer: view.order[place][0], head: view.order[place][1], pinned: false });
  }

  function click(place, add) {
    if (place === null) return;
    const [layer, head] = view.order[place];
    if (add) return onPick({ layer, head, pinned: true, add });
    chosen = { layer, head };
    at = place;
    mark();
    say();
    onPick({ layer, head, pinned: true, add: false });
  }

  function say() {
    const place = at ?? (chosen ? view.order.findIndex(([layer, head]) => layer === chosen.layer && head === chosen.head) : -1);
    if (place < 0) {
      said.textContent = "Point at a head to read what it does; a click opens it, shift adds it to those that are combined, arrows move.";
      return;
    }
    const [layer, head] = view.order[place];
    const name = view.names?.[layer][head];
    const kind = name ? view.kinds.indexOf(name) : -1;
    const score = view.scores && kind >= 0 && kind < view.kinds.length - 1 ? view.scores.values[(layer * layout.heads + head) * (view.kinds.length - 1) + kind] : null;
    said.textContent = `Layer ${layer}, head ${head}${name ? `: ${name}${score === null ? "" : ` ${score.toFixed(2)}`}` : ""}${at === null ? ", chosen" : ""}.`;
  }

  function keys(event) {
    const way = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: layout.across, ArrowUp: -layout.across }[event.key];
    if (way) {
      event.preventDefault();
      const from = at ?? Math.max(0, chosen ? view.order.findIndex(([layer, head]) => layer === chosen.layer && head === chosen.head) : 0);
      look(Math.max(0, Math.min(view.order.length - 1, from + way)));
    } else if (event.key === "Enter") click(at, event.shiftKey);
    else if (event.key === "Escape") look(null);
  }

  update(data, picked);
  return { update, choose, end, state: () => ({ at, ...chosen }), svg: () => null, csv: () => null };
}

/** The colour of a kind of head. */
const inkOf = (kind) => themeColor(kind < 6 ? `line-${kind}` : "band");

/** By how much the strongest cell outside of the first column falls short of full. */
function brightness(cells, columns) {
  let most = 1;
  cells.forEach((cell, place) => (most = place % columns ? Math.max(most, cell) : most));
  return 255 / most;
}

/** A colour as the lower three bytes of a pixel; the fourth is how strong it is. */
function packed(text) {
  const pen = el("canvas", { width: 1, height: 1 }).getContext("2d");
  pen.fillStyle = text;
  pen.fillRect(0, 0, 1, 1);
  return new Uint32Array(pen.getImageData(0, 0, 1, 1).data.buffer)[0] & 0xffffff;
}
