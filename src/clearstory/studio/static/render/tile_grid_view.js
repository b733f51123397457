// Tile grid view: the view kind tile_grid, drawn by the component of the attention page.

import { mount as tileGrid } from "./tile_grid.js";

/** data: a TileGrid. onPick({row, column, pinned}) reports the hovered or clicked tile. */
export function mount(root, data, { onPick = (_) => {} } = {}) {
  const onTilePick = ({ layer, head, pinned }) => onPick({ row: layer, column: head, pinned });
  const renderer = tileGrid(root, toTileGridData(data), { onPick: onTilePick });
  return { ...renderer, update: (view) => renderer.update(toTileGridData(view)) };
}

/** A TileGrid as data of the component: all cells in one array of bytes, and each tile's score under its own type. */
function toTileGridData(view) {
  const all = view.tiles.flat();
  const { cells } = all[0];
  const [layers, heads, kinds] = [view.tiles.length, view.tiles[0].length, view.categories.length - 1];
  const scores = new Float32Array(all.length * kinds);
  all.forEach((tile, index) => {
    const kind = view.categories.indexOf(tile.category);
    if (kind < kinds) scores[index * kinds + kind] = tile.score; // the last type, unclear, has no score
  });
  return {
    title: view.title,
    kinds: view.categories,
    names: view.tiles.map((row) => row.map((tile) => tile.category)),
    scores: { values: scores },
    inPlace: true,
    // The longer dimension is horizontal.
    order: all.map((_, i) => (layers > heads ? [i % layers, Math.floor(i / layers)] : [Math.floor(i / heads), i % heads])),
    patterns: {
      shape: [layers, heads, cells.length, cells[0].length],
      values: Uint8Array.from(all.flatMap((tile) => tile.cells.flat())),
    },
  };
}
