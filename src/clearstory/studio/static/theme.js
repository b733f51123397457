// Theme: light, dark, or the system's. A change is announced by the event "theme", on which canvases redraw.

import { stored } from "./stored.js";

const THEMES = ["system", "light", "dark"];

/** Applies the saved theme, and lets the button cycle through the themes. */
export function initTheme(button) {
  let theme = stored.get("theme") ?? "system";

  const nextTheme = () => THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];

  function applyTheme() {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.title = `Theme: ${theme}. Press for ${nextTheme()}.`;
    button.setAttribute("aria-label", `Theme: ${theme}`);
    document.dispatchEvent(new Event("theme"));
  }

  button.onclick = () => {
    theme = nextTheme();
    stored.set("theme", theme);
    applyTheme();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("theme")));
  applyTheme();
}
