// Table: rows of cells, one column as bars as well.

import { el } from "../dom.js";
import { cellText } from "../format.js";

const FIRST = 60;

/** data: a Table. Rows may be long: the first are shown, and a button shows more; none is hidden without a word. */
export function mount(root, data, { onPick = (_) => {}, onMove = (_) => {} } = {}) {
  let view = data;
  let shown = FIRST;
  let pinned = null;

  function update(next) {
    view = next;
    shown = FIRST;
    pinned = null;
    paint();
  }

  function paint() {
    const bar = view.bar === null || view.bar === undefined ? -1 : view.columns.indexOf(view.bar);
    const numeric = view.columns.map((_, i) => view.rows.every((row) => row[i] === null || typeof row[i] === "number"));
    const most = Math.max(0, ...view.rows.map((row) => Math.abs(row[bar] ?? 0)));
    const signed = bar >= 0 && view.rows.some((row) => row[bar] < 0);
    const rows = view.rows.slice(0, shown).map((row, place) =>
      el(
        "tr",
        {
          tabindex: "0", "aria-selected": String(place === pinned), data: { row: place },
          onpointerenter: () => (onMove({ at: place, pinned }), onPick({ row: place, pinned: false })),
          onpointerleave: () => onMove({ at: null, pinned }),
          onfocus: () => onMove({ at: place, pinned }),
          onclick: () => pick(place),
          onkeydown: (event) => keys(event, place),
        },
        ...row.map((value, i) => (i === bar ? barCell(value, most, signed) : cell(value, numeric[i], i === 0))),
      ),
    );
    const left = view.rows.length - shown;
    root.replaceChildren(
      el(
        "div",
        { class: "wide" },
        el(
          "table",
          { class: "drawn" },
          el("thead", {}, el("tr", {}, ...view.columns.map((name, i) => head(name, numeric[i] && i !== bar)))),
          el("tbody", {}, ...rows),
        ),
      ),
      left > 0 ? el("button", { type: "button", class: "more", onclick: more }, `Show ${left.toLocaleString("en-US")} more rows`) : "",
    );
  }

  function more() {
    shown = view.rows.length;
    paint();
  }

  function pick(place) {
    pinned = pinned === place ? null : place;
    mark();
    onMove({ at: place, pinned });
    onPick({ row: pinned, pinned: pinned !== null });
  }

  function mark() {
    for (const each of root.querySelectorAll("tbody tr"))
      each.setAttribute("aria-selected", String(Number(each.dataset.row) === pinned));
  }

  /** What is pointed at or pinned in a table beside this one, as this one's rows. */
  function follow({ at, pinned: held }) {
    pinned = held;
    mark();
    for (const each of root.querySelectorAll("tbody tr")) each.classList.toggle("pointed", Number(each.dataset.row) === at);
  }

  function keys(event, place) {
    const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (way) {
      event.preventDefault();
      root.querySelector(`tbody tr[data-row="${place + way}"]`)?.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      pick(place);
    } else if (event.key === "Escape" && pinned !== null) {
      event.stopPropagation();
      pick(pinned);
    }
  }

  paint();
  return { update, follow, state: () => ({ row: pinned }), svg: () => null, csv: () => null };
}

const head = (name, number) => el("th", { scope: "col", class: number ? "n" : null }, name);

function cell(value, number, first) {
  if (number) return el("td", { class: "n", title: value ?? "", data: { value: value ?? "" } }, cellText(value));
  return el("td", { class: first ? "mono" : null }, cellText(value));
}

function barCell(value, most, signed) {
  const share = most ? Math.abs(value ?? 0) / most : 0;
  const kind = value < 0 ? "bar below" : "bar";
  const line = el("span", { class: kind, style: { width: `${(share * 100).toFixed(2)}%` } });
  const room = el("span", { class: "bar-room" }, line);
  return el(
    "td",
    { class: `bars${signed ? " signed" : ""}`, title: value ?? "", data: { value: value ?? "" } },
    room,
    el("span", { class: "n" }, cellText(value)),
  );
}
