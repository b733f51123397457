// Tree: words below those that they come after, a step a row: what a beam search has followed, and what it has dropped.

import { el, redrawn, svg } from "../kit.js";
import { cellText } from "../words.js";

const [ROW, BOX, LEFT] = [58, 34, 28];

/** data: a Tree. Pointing at a word, or moving to it by the keyboard, reads it. */
export function mount(root, data, { onPick = () => {} } = {}) {
  let view = data;
  let at = null;
  const field = el("div", { class: "wide" });
  const said = el("p", { class: "said", "aria-live": "polite" });
  root.replaceChildren(field, said);
  const end = redrawn(root, paint);

  function update(next) {
    view = next;
    paint(root.clientWidth || 600);
    said.textContent = "Point at a word to read it; the thick way is the best.";
  }

  function paint(width) {
    const levels = levelsOf(view.nodes);
    const best = wayOf(view);
    const most = Math.max(1, ...levels.map((level) => level.length));
    const step = Math.max(62, Math.min(130, (width - LEFT - 4) / most));
    const size = { width: LEFT + most * step + 4, height: levels.length * ROW };
    const node = svg("svg", { class: "tree", ...size, viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": view.title });
    const middle = [];
    const [lines, boxes] = [svg("g", {}), svg("g", {})];
    levels.forEach((level, depth) => {
      const y = depth * ROW + 2;
      node.append(svg("text", { class: "soft", x: 2, y: y + BOX / 2 + 4 }, String(depth + 1)));
      level.forEach((place, column) => {
        const each = view.nodes[place];
        const x = (middle[place] = LEFT + (column + 0.5) * step);
        const mark = `${each.fate}${best.has(place) ? " best" : ""}`;
        if (each.parent !== null)
          lines.append(svg("line", { class: `branch ${mark}`, x1: middle[each.parent], y1: y - ROW + BOX, x2: x, y2: y }));
        const say = () => {
          at = place;
          said.textContent = `‘${each.text}’: ${cellText(each.value)} ${view.unit}, ${each.fate}`;
          onPick({ point: place, pinned: false });
        };
        const text = [...each.text];
        const fits = Math.floor((step - 12) / 7.4);
        boxes.append(
          svg(
            "g",
            { class: `leaf ${mark}`, tabindex: "0", "data-node": place, onpointerenter: say, onfocus: say },
            svg("rect", { x: x - step / 2 + 3, y, width: step - 6, height: BOX, rx: 5 }),
            svg("text", { class: "ink mono middle", "font-size": 12, x, y: y + 15 }, text.length > fits ? `${text.slice(0, fits - 1).join("")}…` : each.text),
            svg("text", { class: "soft middle", "font-size": 10, x, y: y + 28 }, each.value === null ? "−∞" : each.value.toFixed(2)),
          ),
        );
      });
    });
    node.append(lines, boxes);
    field.replaceChildren(node);
    root.dataset.nodes = view.nodes.length;
  }

  update(data);
  return { update, end, state: () => ({ point: at }), svg: () => null, csv: () => null };
}

/** The nodes by how many stand before them. */
function levelsOf(nodes) {
  const depths = [];
  const levels = [];
  nodes.forEach((each, place) => {
    depths.push(each.parent === null ? 0 : depths[each.parent] + 1);
    (levels[depths[place]] ??= []).push(place);
  });
  return levels;
}

/** The nodes of the best way. */
function wayOf(view) {
  const way = new Set();
  for (let at = view.best; at !== null && at !== undefined; at = view.nodes[at].parent) way.add(at);
  return way;
}
