// Theme: light, dark, or as the system is; what is drawn on a canvas hears of a change as the event "theme".

const THEMES = ["system", "light", "dark"];

/** Dresses the page, and lets the button go through the themes. */
export function initTheme(button) {
  let theme = localStorage.getItem("theme") ?? "system";

  function applyTheme() {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    document.dispatchEvent(new Event("theme"));
  }

  button.onclick = () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem("theme", theme);
    applyTheme();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("theme")));
  applyTheme();
}
