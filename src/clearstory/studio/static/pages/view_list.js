// View list: a page with one card per view.

import { el } from "../dom.js";
import { viewCard } from "../view_card.js";

export function mount(root, context, { views }) {
  const cards = views.map((name) => viewCard(context, name));
  const container = el("div", { class: "cards" }, ...cards.map((card) => card.root));
  root.replaceChildren(container);
  return {
    update: () => Promise.all(cards.map((card) => card.update())),
    destroy: () => cards.forEach((card) => card.destroy()),
  };
}
