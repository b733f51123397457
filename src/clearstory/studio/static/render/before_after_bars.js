// Before-after bars: two probability bars per token, before (upper) and after (lower) interventions.

import { el } from "../dom.js";
import { percent } from "../format.js";

/** A short probability; tiny ones as <0.01%. */
const probabilityText = (p) => (p > 0 && p < 1e-4 ? "<0.01%" : percent(p));

/** data: a Table with the columns token, before, change, after. */
export function mount(root, data) {
  function update(view) {
    const [name, beforeColumn, afterColumn] = ["token", "before", "after"].map((column) => view.columns.indexOf(column));
    const max = Math.max(1e-12, ...view.rows.flatMap((row) => [row[beforeColumn], row[afterColumn]]));
    const bar = (kind, value) => el("span", { class: `bar ${kind}`, style: { width: `${((100 * value) / max).toFixed(3)}%` } });
    root.replaceChildren(
      el("p", { class: "legend" }, el("span", {}, el("span", { class: "swatch ink-band" }), "before"), el("span", {}, el("span", { class: "swatch ink-0" }), "after")),
      el(
        "ol",
        { class: "choices" },
        ...view.rows.map((row) =>
          el(
            "li",
            { class: "choice pair", data: { token: row[name], before: row[beforeColumn], after: row[afterColumn] } },
            el("span", { class: "mono piece-name" }, row[name]),
            el("span", { class: "bar-room" }, bar("before", row[beforeColumn]), bar("after", row[afterColumn])),
            el("span", { class: "n" }, `${probabilityText(row[beforeColumn])} → ${probabilityText(row[afterColumn])}`),
          ),
        ),
      ),
    );
  }
  update(data);
  return { update, state: () => ({}), svg: () => null, csv: () => null };
}
