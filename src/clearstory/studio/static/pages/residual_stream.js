// Residual stream page: the logit lens, computed only for the tokens that fit on the screen, and the other views of the
// residual stream.

import { el, redrawOnResize, slider } from "../dom.js";
import { viewCard } from "../view_card.js";

/** Pixels of a column, and of the row labels with the card's padding. */
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

  /** Measures how many columns fit; returns whether the number is unchanged. */
  function measureWidth() {
    const previous = columnsThatFit;
    columnsThatFit = Math.max(2, Math.floor((controlsBox.clientWidth - LABEL_WIDTH) / COLUMN_WIDTH));
    return columnsThatFit === previous;
  }

  /** The number of tokens the model processes, with special tokens. */
  function tokenCount() {
    return context.trace()?.passage?.pieces.length ?? context.tokens().length;
  }

  /** The first visible column: as selected, or such that the pinned token is visible, or the last possible one. */
  function firstColumn() {
    const lastFirst = Math.max(0, tokenCount() - columnsThatFit);
    const pinned = context.state.pinned()[0];
    const preferred = context.state.number("first_token") ?? (pinned === undefined ? lastFirst : Math.max(0, pinned - Math.floor(columnsThatFit / 2)));
    return Math.min(lastFirst, preferred);
  }

  /** The visible columns; undefined if all fit. */
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
      slider({ label: "Tokens", name: "first-token", min: 0, max: tokenCount() - columnsThatFit, step: 1, value: firstColumn(), format: rangeText, oninput: (from) => context.state.set({ first_token: from }, { quiet: true }) }),
      el("span", { class: "soft" }, "Only the visible columns are computed."),
    );
  }

  async function update() {
    measureWidth();
    updateControls();
    await Promise.all([logitLens?.update(), ...otherCards.map((card) => card.update())]);
  }

  return { update, destroy: () => (stopResize(), logitLens?.destroy(), otherCards.forEach((card) => card.destroy())) };
}
