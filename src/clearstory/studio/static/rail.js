// Rail: the pages that the model can show, in groups. Beside a page it can be folded; on a small window, and on the page of one
// sentence, it is a menu.

import { stored } from "./stored.js";

/** Names and headings of the page of a model's family, by the first view that the model supports. */
const FAMILY_PAGES = {
  "fill-mask": ["Masked words", "Which word belongs in the gap?"],
  backoff: ["Counts", "How often was this seen?"],
  experts: ["Experts", "Which model answers?"],
  viterbi: ["States", "Which states does it pass through?"],
  gates: ["Memory", "What does it keep, and what does it forget?"],
  "gradient-reach": ["Reach", "How far back does a word matter?"],
  attribution: ["Attribution", "Which words decide the label?"],
};
const FOLDED_KEY = "clearstory.rail";

/**
 * The rail of `nav`, opened and closed by `button`. `open(page)` is called when a page is chosen. update() shows what the model
 * supports; show(link) marks a page; of(key) finds one; availableViews, reason and words tell its views, why it is missing, and
 * its name and heading.
 */
export function makeRail(context, nav, button, open) {
  /** @type {HTMLAnchorElement[]} */
  const links = [...nav.querySelectorAll("a[data-page]")];
  const narrow = matchMedia("(max-width: 900px)");
  let menuOpen = false;
  const isMenu = () => narrow.matches || document.body.dataset.page === "sentence";
  const isFolded = () => stored.get(FOLDED_KEY) === "folded";
  const isOpen = () => (isMenu() ? menuOpen : !isFolded());

  function paint() {
    document.body.dataset.rail = `${isMenu() ? "menu" : "beside"} ${isOpen() ? "open" : "closed"}`;
    button.setAttribute("aria-expanded", String(isOpen()));
  }

  function closeMenu() {
    if (!isMenu() || !menuOpen) return false;
    menuOpen = false;
    paint();
    return true;
  }

  button.onclick = () => {
    if (isMenu()) menuOpen = !menuOpen;
    else stored.set(FOLDED_KEY, isFolded() ? "open" : "folded");
    paint();
  };
  narrow.addEventListener("change", paint);
  addEventListener("pointerdown", (event) => !nav.contains(/** @type {Node} */ (event.target)) && !button.contains(event.target) && closeMenu());
  nav.addEventListener("keydown", (event) => event.key === "Escape" && closeMenu() && button.focus());
  for (const link of links)
    link.onclick = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      if (closeMenu()) document.getElementById("page").focus({ preventScroll: true }); // the link is gone
      open(link.dataset.page);
    };

  /** The views of a page that the server knows. */
  const viewsOf = (link) => (link.dataset.views === "*" ? [...context.views().keys()] : (link.dataset.views ?? "").split(" ").filter((name) => context.views().has(name)));
  const availableViews = (link) => viewsOf(link).filter((name) => context.views().get(name).available);

  /** Why a page cannot show anything for this model, as a sentence; null if it can. */
  function reason(link) {
    if ("free" in link.dataset || !link.dataset.views) return null;
    if (!context.model()) return "There is no model yet: train one on the page Home.";
    if (!context.views().size) return null; // not known yet
    const here = viewsOf(link);
    if (availableViews(link).length || (!here.length && "own" in link.dataset)) return null;
    return here.length ? `This model cannot show this: ${context.views().get(here[0]).reason}.` : "This version has no such views.";
  }

  /** The name and the heading of a page. */
  function words(link) {
    const special = link.dataset.page === "families" && FAMILY_PAGES[availableViews(link).find((name) => FAMILY_PAGES[name])];
    return special || [link.dataset.name ?? link.textContent, link.dataset.question];
  }

  function update() {
    for (const link of links) {
      link.dataset.name ??= link.textContent;
      link.textContent = words(link)[0];
      link.hidden = Boolean(reason(link));
      link.href = `?${new URLSearchParams({ ...context.state.all(), page: link.dataset.page })}`;
    }
    for (const section of /** @type {NodeListOf<HTMLElement>} */ (nav.querySelectorAll("section"))) section.hidden = !section.querySelector("a:not([hidden])");
  }

  function show(link) {
    for (const each of links) each.removeAttribute("aria-current");
    link.setAttribute("aria-current", "page");
    menuOpen = false;
    paint();
  }

  paint();
  return { update, show, reason, words, availableViews, of: (key) => links.find((each) => each.dataset.page === key) };
}
