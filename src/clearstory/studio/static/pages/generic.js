// Generic: a page of views, one card each. What is registered in lens/table.py stands here without further words.

import { el } from "../kit.js";
import { viewCard } from "../viewcard.js";

export function mount(root, context, { views }) {
  const cards = views.map((name) => viewCard(context, name));
  const box = el("div", { class: "cards" }, ...cards.map((card) => card.root));
  root.replaceChildren(box);
  return {
    update: () => Promise.all(cards.map((card) => card.update())),
    end: () => cards.forEach((card) => card.end()),
  };
}
