// Chips: the tokens of a text as buttons. Hovering previews, a click pins, shift adds, arrows move, Esc lets go.

import { el } from "./dom.js";

/**
 * mount(root, data, {onPick}) with data {tokens: [{piece, id, ...}], pinned: [places], shade: [0..1]|null}.
 * onPick({query: place|null, pinned: boolean, add: boolean}) is told of every move.
 */
export function mount(root, data, { onPick = (_) => {} } = {}) {
  let tokens = null;
  let at = 0;
  const box = el("div", { class: "chips", role: "listbox", "aria-label": "tokens", onkeydown: keys });
  root.replaceChildren(box);

  function update(next) {
    const same = next.tokens === tokens;
    ({ tokens } = next);
    const pinned = new Set(next.pinned ?? []);
    if (same && !next.shade) {
      // Only what is pinned has changed: whoever walks along the chips keeps their place.
      for (const each of box.children) each.setAttribute("aria-selected", String(pinned.has(Number(each.dataset.place))));
      return;
    }
    at = Math.min(at, Math.max(0, tokens.length - 1));
    box.replaceChildren(
      ...tokens.map((token, place) => {
        const kind = token.special ? " special" : token.unknown ? " unknown" : "";
        const level = next.shade ? ` heat-${Math.min(5, Math.floor(next.shade[place] * 6))}` : "";
        return el(
          "button",
          {
            type: "button", role: "option", class: `chip${kind}${level}`, "aria-selected": String(pinned.has(place)),
            tabindex: place === at ? "0" : "-1", data: { place, id: token.id },
            title: token.title ?? `token ${place}, id ${token.id}`,
            onpointerenter: () => onPick({ query: place, pinned: false, add: false }),
            onpointerleave: () => onPick({ query: null, pinned: false, add: false }),
            onclick: (event) => onPick({ query: place, pinned: true, add: event.shiftKey }),
            onfocus: () => (at = place),
          },
          token.piece,
        );
      }),
    );
    box.dataset.count = tokens.length;
  }

  function keys(event) {
    const way = { ArrowRight: 1, ArrowLeft: -1, Home: -tokens.length, End: tokens.length }[event.key];
    if (way !== undefined) {
      event.preventDefault();
      const from = box.children[at];
      at = Math.max(0, Math.min(tokens.length - 1, at + way));
      from?.setAttribute("tabindex", "-1");
      box.children[at]?.setAttribute("tabindex", "0");
      box.children[at]?.focus();
      onPick({ query: at, pinned: false, add: false });
    }
  }

  update(data);
  return {
    update,
    state: () => ({ count: tokens.length, at }),
    svg: () => null,
    csv: () => null,
  };
}
