// Stream: what the model would say after every step, only at the tokens that have room on the screen; and the other views
// of its stream.

import { el, redrawOnResize, slider } from "../dom.js";
import { viewCard } from "../view_card.js";

/** Pixels of a column, of the rows' names, and of the card around. */
const [COLUMN, NAMES] = [84, 186];

export function mount(root, context, { views }) {
  let room = 8;
  const tools = el("div", { class: "settings" });
  const hold = el("div", {});
  const lens = views.includes("logit-lens") ? viewCard(context, "logit-lens", { bound: () => ({ columns: shown() }) }) : null;
  const rest = views.filter((name) => name !== "logit-lens").map((name) => viewCard(context, name));
  root.replaceChildren(el("div", { class: "cards" }, lens?.root, ...rest.map((card) => card.root)));
  lens?.root.querySelector("header").after(hold);
  hold.append(tools);
  const end = redrawOnResize(hold, () => measured() || (lens && context.track(update())));

  /** Whether there is as much room as before. */
  function measured() {
    const before = room;
    room = Math.max(2, Math.floor((hold.clientWidth - NAMES) / COLUMN));
    return room === before;
  }

  /** How many tokens the model reads, those in front of and behind the text included. */
  function count() {
    return context.traced()?.read?.pieces.length ?? context.tokens().length;
  }

  /** Where the window begins: as chosen, or so that the pinned token stands in it, or at the end. */
  function first() {
    const last = Math.max(0, count() - room);
    const pinned = context.state.pinned()[0];
    const wanted = context.state.number("from") ?? (pinned === undefined ? last : Math.max(0, pinned - Math.floor(room / 2)));
    return Math.min(last, wanted);
  }

  /** The columns that have room; no list where all have. */
  function shown() {
    if (count() <= room) return undefined;
    return Array.from({ length: room }, (_, place) => first() + place);
  }

  function paint() {
    tools.hidden = count() <= room;
    if (tools.hidden) return;
    const words = (from) => `${from} to ${from + room - 1} of ${count()}`;
    const range = tools.querySelector("input");
    if (range && range === document.activeElement && Number(range.max) === count() - room) return;
    tools.replaceChildren(
      slider({ label: "Tokens", name: "from", min: 0, max: count() - room, step: 1, value: first(), words, oninput: (from) => context.state.set({ from }, { quiet: true }) }),
      el("span", { class: "soft" }, "Only what is on the screen is computed."),
    );
  }

  async function update() {
    measured();
    paint();
    await Promise.all([lens?.update(), ...rest.map((card) => card.update())]);
  }

  return { update, end: () => (end(), lens?.end(), rest.forEach((card) => card.end())) };
}
