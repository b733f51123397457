// Linked: drawings beside each other. What is pointed at, pinned or scrolled in one is so in the others too.

/**
 * linked(translate) gives {hooks(name), join(name, drawer, body), leave()}. A drawer is mounted with its `hooks`, then joined;
 * translate(place, from, to) says which place of `to` a place of `from` is, or null where there is none.
 */
export function linkRenderers(translate) {
  const joined = new Map(); // name -> {drawer, body}
  let scrolling = false;

  const across = (place, from, to) => (place === null || place === undefined ? null : translate(place, from, to));

  function moved(from, { at, pinned }) {
    for (const [to, each] of joined)
      if (to !== from) each.renderer?.follow?.({ at: across(at, from, to), pinned: across(pinned, from, to) });
  }

  function scrolled(from, event) {
    if (scrolling || !event.target.classList?.contains("wide")) return;
    scrolling = true;
    const share = event.target.scrollLeft / Math.max(1, event.target.scrollWidth - event.target.clientWidth);
    for (const [to, each] of joined)
      for (const other of to === from ? [] : each.body.querySelectorAll(".wide"))
        other.scrollLeft = share * (other.scrollWidth - other.clientWidth);
    requestAnimationFrame(() => (scrolling = false));
  }

  return {
    hooks: (name) => ({ onMove: (move) => moved(name, move) }),
    join(name, renderer, body) {
      // Scrolling does not bubble, but it can be heard on its way down.
      if (!joined.has(name)) body.addEventListener("scroll", (event) => scrolled(name, event), { capture: true });
      joined.set(name, { renderer, body });
    },
    leave: (name) => joined.has(name) && joined.set(name, { ...joined.get(name), renderer: null }),
  };
}

/** Places of views of one kind, from one to another: cells by row and column, rows by their names, pieces by their characters. */
export function translatePosition(place, from, to) {
  if (!from || !to || from.kind !== to.kind) return null;
  if (from.kind === "grid") return gridPlace(place, from, to);
  if (from.kind === "table") return found(to.rows.findIndex((row) => row[0] === from.rows[place]?.[0] && sameId(row, from.rows[place], from, to)));
  if (from.kind === "highlighted_text") return pieceAt(place, from, to);
  return place;
}

const found = (place) => (place < 0 ? null : place);

/** Whether two rows have one id, where both tables have ids. */
function sameId(row, other, from, to) {
  const [mine, theirs] = [from.columns.indexOf("id"), to.columns.indexOf("id")];
  return mine < 0 || theirs < 0 || other[mine] === row[theirs];
}

function gridPlace(place, from, to) {
  const within = (at, labels) => (at !== null && at < labels.length ? at : null);
  if (typeof place === "number") return within(place, to.row_labels);
  const [row, column] = [within(place.row, to.row_labels), within(place.column, to.column_labels)];
  return column === null || (row === null && place.row !== null) ? null : { row, column };
}

/** The piece of one text that holds the first character of another's; the same number where the texts differ. */
function pieceAt(place, from, to) {
  const [mine, theirs] = [from, to].map((view) => view.spans.map((each) => each.text).join(""));
  if (mine !== theirs) return place < to.spans.length ? place : null;
  const start = from.spans.slice(0, place).reduce((sum, each) => sum + each.text.length, 0);
  let stop = 0;
  return found(to.spans.findIndex((each) => (stop += each.text.length) > start));
}
