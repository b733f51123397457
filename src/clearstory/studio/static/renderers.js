// Drawers: what draws each kind of view. A new kind is a file in draw/ and a line here.
//
// A drawer is mount(root, data, {onPick, picked}) -> {update(data), state(), svg(), csv()}. It knows nothing of the server
// or of families of models. onPick({row, column, point, stage, pinned}) tells what the reader points at; state() says what
// is pinned; svg() and csv() give what can be kept, or null where the library's own file of the view serves. It may have
// end(), which lets go of what it listens to, and point({row, pinned}), by which the sentence's chips mark its rows.
// Drawings beside each other are linked by onMove({hovered, pinned}), told of every move, and follow({hovered, pinned}), which tells
// nobody: cells and rows of a grid, places of a curve, rows of a table, pieces of a text.

import { mount as curve } from "./render/curve.js";
import { mount as grid } from "./render/grid.js";
import { mount as map } from "./render/map.js";
import { mount as figure } from "./render/figure.js";
import { mount as spans } from "./render/highlighted_text.js";
import { mount as table } from "./render/table.js";
import { mount as mosaic } from "./render/tile_grid_view.js";
import { mount as tree } from "./render/tree.js";
import { mount as walk } from "./render/report.js";

export const RENDERERS = { table, grid, curve, highlighted_text: spans, report: walk, map, figure, tile_grid: mosaic, tree };

/** Draws a view of any kind; one that no drawer knows is said to be in the numbers. */
export function renderView(root, view, hooks = {}) {
  const mount = RENDERERS[view.kind] ?? unknown;
  return mount(root, view, { ...hooks, draw: renderView });
}

function unknown(root, view) {
  root.textContent = `There is no drawing of a '${view.kind}' here yet; SVG, HTML and CSV have it.`;
  return { update: () => {}, state: () => ({}), svg: () => null, csv: () => null };
}
