// Tree: tokens below their predecessors, one row per position: the candidates of a beam search, kept and dropped.

import { el, redrawOnResize, svg } from "../dom.js";
import { cellText, visibleWhitespace } from "../format.js";

const [ROW, BOX, LEFT] = [58, 34, 28];

/**
 * data: a Tree. Hover a token to read the path to it, click or press Enter to pin it, Esc releases; left and right move within
 * a row, up to the parent, down to the first child.
 */
export function mount(root, data, { onPick = (_) => {} } = {}) {
  let view = data;
  let hovered = null; // index of the node under the pointer
  let pinned = null;
  let nodeElements = [];
  let levels = [];
  const container = el("div", { class: "wide", role: "group", onkeydown: onKeyDown, onpointerleave: () => hover(pinned) });
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  root.replaceChildren(container, readout);
  const end = redrawOnResize(root, paint);

  function update(next) {
    view = next;
    [hovered, pinned] = [null, null];
    container.setAttribute("aria-label", view.title);
    paint(root.clientWidth || 600);
    hover(null);
  }

  function paint(width) {
    levels = levelsOf(view.nodes);
    const bestPath = pathTo(view, view.best);
    const maxWidth = Math.max(1, ...levels.map((levelNodes) => levelNodes.length));
    const columnWidth = Math.max(62, Math.min(130, (width - LEFT - 4) / maxWidth));
    const size = { width: LEFT + maxWidth * columnWidth + 4, height: levels.length * ROW };
    const node = svg("svg", { class: "tree", ...size, viewBox: `0 0 ${size.width} ${size.height}` });
    const centers = [];
    const [lines, boxes] = [svg("g", {}), svg("g", {})];
    nodeElements = [];
    levels.forEach((levelNodes, depth) => {
      const y = depth * ROW + 2;
      node.append(svg("text", { class: "soft", x: 2, y: y + BOX / 2 + 4 }, String(depth + 1)));
      levelNodes.forEach((index, column) => {
        const each = view.nodes[index];
        const x = (centers[index] = LEFT + (column + 0.5) * columnWidth);
        const mark = `${each.status}${bestPath.has(index) ? " best" : ""}`;
        const line = each.parent === null ? null : svg("line", { class: `branch ${mark}`, x1: centers[each.parent], y1: y - ROW + BOX, x2: x, y2: y });
        if (line) lines.append(line);
        const text = [...each.text];
        const maxChars = Math.floor((columnWidth - 12) / 7.4);
        const value = each.value === null ? "−∞" : each.value.toFixed(2);
        const box = svg(
          "g",
          {
            class: `leaf ${mark}`, role: "button", tabindex: "-1", "data-node": index, "aria-label": `${each.text}, ${value}, ${each.status}`,
            onpointerenter: () => hover(index), onfocus: () => hover(index), onclick: () => togglePin(index),
          },
          svg("rect", { x: x - columnWidth / 2 + 3, y, width: columnWidth - 6, height: BOX, rx: 5 }),
          svg("text", { class: "ink mono middle", "font-size": 12, x, y: y + 15 }, text.length > maxChars ? `${text.slice(0, maxChars - 1).join("")}…` : each.text),
          svg("text", { class: "soft middle", "font-size": 10, x, y: y + 28 }, value),
        );
        nodeElements[index] = { leaf: box, line };
        boxes.append(box);
      });
    });
    node.append(lines, boxes);
    container.replaceChildren(node);
    nodeElements[hovered ?? 0]?.leaf.setAttribute("tabindex", "0");
    root.dataset.nodes = view.nodes.length;
    mark();
  }

  /** Marks the path to the hovered node. */
  function mark() {
    const path = pathTo(view, hovered);
    nodeElements.forEach(({ leaf: box, line }, index) => {
      box.classList.toggle("on-path", path.has(index));
      line?.classList.toggle("on-path", path.has(index));
      box.setAttribute("aria-pressed", String(index === pinned));
    });
  }

  function hover(index) {
    hovered = index;
    mark();
    root.dataset.node = index ?? "";
    if (index === null) {
      readout.textContent = "Hover a token to read the path to it; the thick path is the best one.";
      return;
    }
    const each = view.nodes[index];
    const path = [...pathTo(view, index)].reverse().map((one) => visibleWhitespace(view.nodes[one].text)).join("");
    readout.textContent = `‘${path}’: ${cellText(each.value)} ${view.unit}, ${each.status}${index === pinned ? ", pinned" : ""}`;
    onPick({ point: index, pinned: index === pinned });
  }

  function togglePin(index) {
    pinned = pinned === index ? null : index;
    hover(index);
  }

  function onKeyDown(event) {
    if (event.key === "Escape" && pinned !== null) {
      event.stopPropagation();
      pinned = null;
      return hover(hovered);
    }
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return hovered === null ? undefined : togglePin(hovered);
    }
    const next = hovered === null ? undefined : neighbour(event.key);
    if (next === undefined) return undefined;
    event.preventDefault();
    nodeElements[hovered].leaf.setAttribute("tabindex", "-1");
    nodeElements[next].leaf.setAttribute("tabindex", "0");
    return nodeElements[next].leaf.focus();
  }

  /** The node that an arrow key leads to. */
  function neighbour(key) {
    const levelNodes = levels.find((each) => each.includes(hovered));
    const index = levelNodes.indexOf(hovered);
    if (key === "ArrowRight") return levelNodes[index + 1];
    if (key === "ArrowLeft") return levelNodes[index - 1];
    if (key === "ArrowUp") return view.nodes[hovered].parent ?? undefined;
    if (key === "ArrowDown") return view.nodes.findIndex((each) => each.parent === hovered) === -1 ? undefined : view.nodes.findIndex((each) => each.parent === hovered);
    return undefined;
  }

  update(data);
  return { update, destroy: end, state: () => ({ point: hovered, pinned }), svg: () => null, csv: () => null };
}

/** The nodes by depth. */
function levelsOf(nodes) {
  const depths = [];
  const levels = [];
  nodes.forEach((each, index) => {
    depths.push(each.parent === null ? 0 : depths[each.parent] + 1);
    (levels[depths[index]] ??= []).push(index);
  });
  return levels;
}

/** The nodes of the path to a node, itself first. */
function pathTo(view, to) {
  const path = new Set();
  for (let hovered = to; hovered !== null && hovered !== undefined; hovered = view.nodes[hovered].parent) path.add(hovered);
  return path;
}
