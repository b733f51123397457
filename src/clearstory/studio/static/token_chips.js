// Token chips: the tokens of a text as buttons. Hover to preview, click to pin, shift-click to add, arrow keys to move, Esc to release.

import { el } from "./dom.js";

/**
 * mount(root, data, {onPick}) with data {tokens: [{piece, id, ...}], pinned: [positions], shade: [0..1]|null}.
 * onPick({query: position|null, pinned: boolean, add: boolean}) is called on every move.
 */
export function mount(root, data, { onPick = (_) => {} } = {}) {
  let tokens = null;
  let focused = 0;
  const list = el("div", { class: "chips", role: "listbox", "aria-label": "tokens", onkeydown: onKeyDown });
  root.replaceChildren(list);

  function update(next) {
    const sameTokens = next.tokens === tokens;
    ({ tokens } = next);
    const pinned = new Set(next.pinned ?? []);
    if (sameTokens && !next.shade) {
      // Only the pinned tokens have changed, so the keyboard focus is kept.
      for (const each of list.children) each.setAttribute("aria-selected", String(pinned.has(Number(each.dataset.position))));
      return scrollToChip(list.querySelector('[aria-selected="true"]'));
    }
    focused = Math.min(focused, Math.max(0, tokens.length - 1));
    list.replaceChildren(
      ...tokens.map((token, position) => {
        const kind = token.special ? " special" : token.unknown ? " unknown" : "";
        const level = next.shade ? ` heat-${Math.min(5, Math.floor(next.shade[position] * 6))}` : "";
        return el(
          "button",
          {
            type: "button", role: "option", class: `chip${kind}${level}`, "aria-selected": String(pinned.has(position)),
            tabindex: position === focused ? "0" : "-1", data: { position, id: token.id },
            title: token.title ?? `token ${position}, id ${token.id}`,
            onpointerenter: () => onPick({ query: position, pinned: false, add: false }),
            onpointerleave: () => onPick({ query: null, pinned: false, add: false }),
            onclick: (event) => onPick({ query: position, pinned: true, add: event.shiftKey }),
            onfocus: () => (focused = position),
          },
          token.piece,
        );
      }),
    );
    list.dataset.count = tokens.length;
    scrollToChip(list.querySelector('[aria-selected="true"]') ?? list.querySelector(":not(.special)"));
  }

  /** Scrolls a row of chips, not the page, to a chip: a pinned one, or the first of the text after those of a chat template. */
  function scrollToChip(chip) {
    if (chip && root.scrollWidth > root.clientWidth) root.scrollLeft = chip.offsetLeft - root.clientWidth / 4;
  }

  function onKeyDown(event) {
    const offset = { ArrowRight: 1, ArrowLeft: -1, Home: -tokens.length, End: tokens.length }[event.key];
    if (offset !== undefined) {
      event.preventDefault();
      const from = list.children[focused];
      focused = Math.max(0, Math.min(tokens.length - 1, focused + offset));
      from?.setAttribute("tabindex", "-1");
      list.children[focused]?.setAttribute("tabindex", "0");
      list.children[focused]?.focus();
      onPick({ query: focused, pinned: false, add: false });
    }
  }

  update(data);
  return {
    update,
    state: () => ({ count: tokens.length, at: focused }),
    svg: () => null,
    csv: () => null,
  };
}
