// Renderers: the function that draws each kind of view. A new kind is a file in render/ and a line here.
//
// A renderer is mount(root, data, {onPick, onMove, picked}) -> {update(data), state(), svg(), csv()}. It is independent of the
// server and of model families. onPick({row, column, point, panel, pinned}) reports what the user hovers and pins; state()
// returns what is pinned; svg() and csv() return downloads, or null if the server's file of the view is used. Optional:
// destroy() removes listeners; point({row, pinned}) marks the rows of the sentence's tokens. Linked renderers report every
// move by onMove({hovered, pinned}) and apply the moves of others by follow({hovered, pinned}), without reporting them.

import { mount as curve } from "./render/curve.js";
import { mount as grid } from "./render/grid.js";
import { mount as map } from "./render/map.js";
import { mount as figure } from "./render/figure.js";
import { mount as highlightedText } from "./render/highlighted_text.js";
import { mount as table } from "./render/table.js";
import { mount as tileGrid } from "./render/tile_grid_view.js";
import { mount as tree } from "./render/tree.js";
import { mount as report } from "./render/report.js";

export const RENDERERS = { table, grid, curve, highlighted_text: highlightedText, report, map, figure, tile_grid: tileGrid, tree };

/** Draws a view by its kind; an unknown kind is replaced by a sentence. */
export function renderView(root, view, hooks = {}) {
  const mount = RENDERERS[view.kind] ?? unknown;
  return mount(root, view, { ...hooks, renderView });
}

function unknown(root, view) {
  root.textContent = `The studio cannot draw the kind '${view.kind}'; use SVG, HTML or CSV.`;
  return { update: () => {}, state: () => ({}), svg: () => null, csv: () => null };
}
