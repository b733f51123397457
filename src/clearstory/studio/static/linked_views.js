// Linked views: hovering, pinning and scrolling in one view is applied to the others.

/**
 * linkRenderers(translate) -> {hooks(name), join(name, renderer, body), leave(name)}. A renderer is mounted with its `hooks`, then
 * joined; translate(position, from, to) maps a position of view `from` to one of view `to`, or to null.
 */
export function linkRenderers(translate) {
  const members = new Map(); // name -> {renderer, body}
  let isScrolling = false;

  const translateOrNull = (position, from, to) => (position === null || position === undefined ? null : translate(position, from, to));

  function onMemberMove(from, { hovered, pinned }) {
    for (const [to, each] of members)
      if (to !== from) each.renderer?.follow?.({ hovered: translateOrNull(hovered, from, to), pinned: translateOrNull(pinned, from, to) });
  }

  function onMemberScroll(from, event) {
    if (isScrolling || !event.target.classList?.contains("wide")) return;
    isScrolling = true;
    const fraction = event.target.scrollLeft / Math.max(1, event.target.scrollWidth - event.target.clientWidth);
    for (const [to, each] of members)
      for (const other of to === from ? [] : each.body.querySelectorAll(".wide"))
        other.scrollLeft = fraction * (other.scrollWidth - other.clientWidth);
    requestAnimationFrame(() => (isScrolling = false));
  }

  return {
    hooks: (name) => ({ onMove: (move) => onMemberMove(name, move) }),
    join(name, renderer, body) {
      // Scroll events do not bubble, so they are captured.
      if (!members.has(name)) body.addEventListener("scroll", (event) => onMemberScroll(name, event), { capture: true });
      members.set(name, { renderer, body });
    },
    leave: (name) => members.has(name) && members.set(name, { ...members.get(name), renderer: null }),
  };
}

/** Maps a position between views of the same kind: grid cells by indices, table rows by label, text spans by characters. */
export function translatePosition(position, from, to) {
  if (!from || !to || from.kind !== to.kind) return null;
  if (from.kind === "grid") return gridPosition(position, from, to);
  if (from.kind === "table") return found(to.rows.findIndex((row) => row[0] === from.rows[position]?.[0] && sameId(row, from.rows[position], from, to)));
  if (from.kind === "highlighted_text") return spanAt(position, from, to);
  return position;
}

const found = (position) => (position < 0 ? null : position);

/** Whether two rows have the same id, if both tables have ids. */
function sameId(row, other, from, to) {
  const [fromText, toText] = [from.columns.indexOf("id"), to.columns.indexOf("id")];
  return fromText < 0 || toText < 0 || other[fromText] === row[toText];
}

function gridPosition(position, from, to) {
  const validIndex = (at, labels) => (at !== null && at < labels.length ? at : null);
  if (typeof position === "number") return validIndex(position, to.row_labels);
  const [row, column] = [validIndex(position.row, to.row_labels), validIndex(position.column, to.column_labels)];
  return column === null || (row === null && position.row !== null) ? null : { row, column };
}

/** The span that contains the first character of the other text's span; the same index if the texts differ. */
function spanAt(position, from, to) {
  const [fromText, toText] = [from, to].map((view) => view.spans.map((each) => each.text).join(""));
  if (fromText !== toText) return position < to.spans.length ? position : null;
  const start = from.spans.slice(0, position).reduce((sum, each) => sum + each.text.length, 0);
  let stop = 0;
  return found(to.spans.findIndex((each) => (stop += each.text.length) > start));
}
