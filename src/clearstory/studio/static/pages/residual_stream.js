// Stream: what the model would say after every step, only at the tokens that have room on the screen; and the other views
// of its stream.

import { el, redrawOnResize, slider } from "../dom.js";
import { viewCard } from "../view_card.js";

/** Pixels of a column, of the rows' names, and of the card around. */
const [COLUMN_WIDTH, LABEL_WIDTH] = [84, 186];

export function mount(root, context, { views }) {
  let columnsThatFit = 8;
  const tools = el("div", { class: "settings" });
  const controlsBox = el("div", {});
  const logitLens = views.includes("logit-lens") ? viewCard(context, "logit-lens", { boundSettings: () => ({ columns: visibleColumns() }) }) : null;
  const otherCards = views.filter((name) => name !== "logit-lens").map((name) => viewCard(context, name));
  root.replaceChildren(el("div", { class: "cards" }, logitLens?.root, ...otherCards.map((card) => card.root)));
  logitLens?.root.querySelector("header").after(controlsBox);
  controlsBox.append(tools);
  const stopResize = redrawOnResize(controlsBox, () => measureWidth() || (logitLens && context.track(update())));

  /** Whether there is as much room as before. */
  function measureWidth() {
    const previous = columnsThatFit;
    columnsThatFit = Math.max(2, Math.floor((controlsBox.clientWidth - LABEL_WIDTH) / COLUMN_WIDTH));
    return columnsThatFit === previous;
  }

  /** How many tokens the model reads, those in front of and behind the text included. */
  function tokenCount() {
    return context.trace()?.passage?.pieces.length ?? context.tokens().length;
  }

  /** Where the window begins: as chosen, or so that the pinned token stands in it, or at the end. */
  function firstColumn() {
    const lastFirst = Math.max(0, tokenCount() - columnsThatFit);
    const pinned = context.state.pinned()[0];
    const preferred = context.state.number("from") ?? (pinned === undefined ? lastFirst : Math.max(0, pinned - Math.floor(columnsThatFit / 2)));
    return Math.min(lastFirst, preferred);
  }

  /** The columns that have room; no list where all have. */
  function visibleColumns() {
    if (tokenCount() <= columnsThatFit) return undefined;
    return Array.from({ length: columnsThatFit }, (_, index) => firstColumn() + index);
  }

  function updateControls() {
    tools.hidden = tokenCount() <= columnsThatFit;
    if (tools.hidden) return;
    const rangeText = (from) => `${from} to ${from + columnsThatFit - 1} of ${tokenCount()}`;
    const range = tools.querySelector("input");
    if (range && range === document.activeElement && Number(range.max) === tokenCount() - columnsThatFit) return;
    tools.replaceChildren(
      slider({ label: "Tokens", name: "from", min: 0, max: tokenCount() - columnsThatFit, step: 1, value: firstColumn(), format: rangeText, oninput: (from) => context.state.set({ from }, { quiet: true }) }),
      el("span", { class: "soft" }, "Only what is on the screen is computed."),
    );
  }

  async function update() {
    measureWidth();
    updateControls();
    await Promise.all([logitLens?.update(), ...otherCards.map((card) => card.update())]);
  }

  return { update, destroy: () => (stopResize(), logitLens?.destroy(), otherCards.forEach((card) => card.destroy())) };
}
