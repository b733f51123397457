// Tiles: the kind of view that is many small pictures, drawn as the attention page draws all heads.

import { mount as tileGrid } from "./tile_grid.js";

/** data: a Mosaic. onPick({row, column, pinned}) tells of the tile that is pointed at. */
export function mount(root, data, { onPick = (_) => {} } = {}) {
  const onTilePick = ({ layer, head, pinned }) => onPick({ row: layer, column: head, pinned });
  const renderer = tileGrid(root, toTileGridData(data), { onPick: onTilePick });
  return { ...renderer, update: (view) => renderer.update(toTileGridData(view)) };
}

/** A Mosaic as the canvas takes it: all cells in one row of bytes, and each tile's score under its own kind. */
function toTileGridData(view) {
  const all = view.tiles.flat();
  const { cells } = all[0];
  const [layers, heads, kinds] = [view.tiles.length, view.tiles[0].length, view.categories.length - 1];
  const scores = new Float32Array(all.length * kinds);
  all.forEach((tile, index) => {
    const kind = view.categories.indexOf(tile.category);
    if (kind < kinds) scores[index * kinds + kind] = tile.score; // the last kind, what could not be named, has none
  });
  return {
    title: view.title,
    kinds: view.categories,
    names: view.tiles.map((row) => row.map((tile) => tile.category)),
    scores: { values: scores },
    inPlace: true,
    // The longer side goes across.
    order: all.map((_, i) => (layers > heads ? [i % layers, Math.floor(i / layers)] : [Math.floor(i / heads), i % heads])),
    patterns: {
      shape: [layers, heads, cells.length, cells[0].length],
      values: Uint8Array.from(all.flatMap((tile) => tile.cells.flat())),
    },
  };
}
