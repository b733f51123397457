// Tree: words below those that they come after, a step a row: what a beam search has followed, and what it has dropped.

import { el, redrawOnResize, svg } from "../dom.js";
import { cellText, visibleWhitespace } from "../format.js";

const [ROW, BOX, LEFT] = [58, 34, 28];

/**
 * data: a Tree. Pointing at a word reads the way to it, a click or Enter keeps it, Esc lets go; left and right move along
 * a step, up to the word before, down to the first after.
 */
export function mount(root, data, { onPick = (_) => {} } = {}) {
  let view = data;
  let at = null; // the word that is pointed at
  let pinned = null;
  let leaves = [];
  let levels = [];
  const field = el("div", { class: "wide", role: "group", onkeydown: keys, onpointerleave: () => point(pinned) });
  const said = el("p", { class: "said", "aria-live": "polite" });
  root.replaceChildren(field, said);
  const end = redrawOnResize(root, paint);

  function update(next) {
    view = next;
    [at, pinned] = [null, null];
    field.setAttribute("aria-label", view.title);
    paint(root.clientWidth || 600);
    point(null);
  }

  function paint(width) {
    levels = levelsOf(view.nodes);
    const best = wayOf(view, view.best);
    const most = Math.max(1, ...levels.map((level) => level.length));
    const step = Math.max(62, Math.min(130, (width - LEFT - 4) / most));
    const size = { width: LEFT + most * step + 4, height: levels.length * ROW };
    const node = svg("svg", { class: "tree", ...size, viewBox: `0 0 ${size.width} ${size.height}` });
    const middle = [];
    const [lines, boxes] = [svg("g", {}), svg("g", {})];
    leaves = [];
    levels.forEach((level, depth) => {
      const y = depth * ROW + 2;
      node.append(svg("text", { class: "soft", x: 2, y: y + BOX / 2 + 4 }, String(depth + 1)));
      level.forEach((place, column) => {
        const each = view.nodes[place];
        const x = (middle[place] = LEFT + (column + 0.5) * step);
        const mark = `${each.fate}${best.has(place) ? " best" : ""}`;
        const line = each.parent === null ? null : svg("line", { class: `branch ${mark}`, x1: middle[each.parent], y1: y - ROW + BOX, x2: x, y2: y });
        if (line) lines.append(line);
        const text = [...each.text];
        const fits = Math.floor((step - 12) / 7.4);
        const value = each.value === null ? "−∞" : each.value.toFixed(2);
        const leaf = svg(
          "g",
          {
            class: `leaf ${mark}`, role: "button", tabindex: "-1", "data-node": place, "aria-label": `${each.text}, ${value}, ${each.fate}`,
            onpointerenter: () => point(place), onfocus: () => point(place), onclick: () => pin(place),
          },
          svg("rect", { x: x - step / 2 + 3, y, width: step - 6, height: BOX, rx: 5 }),
          svg("text", { class: "ink mono middle", "font-size": 12, x, y: y + 15 }, text.length > fits ? `${text.slice(0, fits - 1).join("")}…` : each.text),
          svg("text", { class: "soft middle", "font-size": 10, x, y: y + 28 }, value),
        );
        leaves[place] = { leaf, line };
        boxes.append(leaf);
      });
    });
    node.append(lines, boxes);
    field.replaceChildren(node);
    leaves[at ?? 0]?.leaf.setAttribute("tabindex", "0");
    root.dataset.nodes = view.nodes.length;
    mark();
  }

  /** The way to the word that is read, from the first on. */
  function mark() {
    const way = wayOf(view, at);
    leaves.forEach(({ leaf, line }, place) => {
      leaf.classList.toggle("on-way", way.has(place));
      line?.classList.toggle("on-way", way.has(place));
      leaf.setAttribute("aria-pressed", String(place === pinned));
    });
  }

  function point(place) {
    at = place;
    mark();
    root.dataset.node = place ?? "";
    if (place === null) {
      said.textContent = "Point at a word to read the way to it; the thick way is the best.";
      return;
    }
    const each = view.nodes[place];
    const way = [...wayOf(view, place)].reverse().map((one) => visibleWhitespace(view.nodes[one].text)).join("");
    said.textContent = `‘${way}’: ${cellText(each.value)} ${view.unit}, ${each.fate}${place === pinned ? ", pinned" : ""}`;
    onPick({ point: place, pinned: place === pinned });
  }

  function pin(place) {
    pinned = pinned === place ? null : place;
    point(place);
  }

  function keys(event) {
    if (event.key === "Escape" && pinned !== null) {
      event.stopPropagation();
      pinned = null;
      return point(at);
    }
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return at === null ? undefined : pin(at);
    }
    const next = at === null ? undefined : neighbour(event.key);
    if (next === undefined) return undefined;
    event.preventDefault();
    leaves[at].leaf.setAttribute("tabindex", "-1");
    leaves[next].leaf.setAttribute("tabindex", "0");
    return leaves[next].leaf.focus();
  }

  /** The word that an arrow leads to. */
  function neighbour(key) {
    const level = levels.find((each) => each.includes(at));
    const place = level.indexOf(at);
    if (key === "ArrowRight") return level[place + 1];
    if (key === "ArrowLeft") return level[place - 1];
    if (key === "ArrowUp") return view.nodes[at].parent ?? undefined;
    if (key === "ArrowDown") return view.nodes.findIndex((each) => each.parent === at) === -1 ? undefined : view.nodes.findIndex((each) => each.parent === at);
    return undefined;
  }

  update(data);
  return { update, end, state: () => ({ point: at, pinned }), svg: () => null, csv: () => null };
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

/** The nodes of the way to one, itself first. */
function wayOf(view, to) {
  const way = new Set();
  for (let at = to; at !== null && at !== undefined; at = view.nodes[at].parent) way.add(at);
  return way;
}
