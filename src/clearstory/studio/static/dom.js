// Kit: small things that every page is made of. Text goes in as text nodes, styles through the object model: what a
// token spells is never read as markup, and the page's policy allows no inline style.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: el("button", {class: "x", onclick: f, data: {row: 3}, style: {width: "3em"}}, "text", child, ...).
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Node|string|number|null|undefined|false)} children
 */
export function el(tag, props = {}, ...children) {
  return applyProps(document.createElement(tag), props, children);
}

/** The same of a drawing: svg("rect", {x: 1, class: "bar"}). */
export function svg(tag, props = {}, ...children) {
  return applyProps(document.createElementNS(SVG, tag), props, children);
}

function applyProps(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "style") for (const [key, each] of Object.entries(value)) node.style.setProperty(key, each);
    else if (name in node && !(node instanceof SVGElement) && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((each) => each !== null && each !== undefined && each !== false).map(toChild));
  return node;
}

const toChild = (each) => (typeof each === "number" ? String(each) : each);

/** A value that tells when it changes. */
export function signal(value) {
  const listeners = new Set();
  return {
    get: () => value,
    set(next) {
      value = next;
      for (const listener of [...listeners]) listener(value);
    },
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** A colour of the theme as it is now, for a canvas: colour("bar"). */
export function themeColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim() || "#888";
}

/** Calls back when an element's width changes, and when the theme does; at most once a frame. Returns how to end it. */
export function redrawOnResize(node, redraw) {
  let width = Math.floor(node.clientWidth); // what it has now is drawn by who asks
  let frame = 0;
  const schedule = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => node.isConnected && redraw(width));
  };
  const watcher = new ResizeObserver(([entry]) => {
    const newWidth = Math.floor(entry.contentRect.width);
    if (newWidth && newWidth !== width) {
      width = newWidth;
      schedule();
    }
  });
  watcher.observe(node);
  document.addEventListener("theme", schedule);
  return () => {
    watcher.disconnect();
    document.removeEventListener("theme", schedule);
  };
}

/**
 * A labelled slider with its value in words.
 * @param {{label: string, name?: string, min: number, max: number, step: number, value: any, words?: (value: number) => string, oninput: (value: number) => any}} how
 */
export function slider({ label, name, min, max, step, value, format: words = String, oninput }) {
  const output = el("output", {}, words(value));
  const input = el("input", {
    type: "range", min, max, step, name,
    oninput: () => {
      output.textContent = words(Number(input.value));
      oninput(Number(input.value));
    },
  });
  input.value = value;
  return el("label", { class: "slider" }, el("span", {}, label), input, output);
}

/** Resolves when all that the page waits for is painted. */
export function whenReady() {
  return new Promise((resolve) => {
    const isReady = () => document.body.dataset.ready === "true";
    if (isReady()) return resolve();
    const watcher = new MutationObserver(() => isReady() && (watcher.disconnect(), resolve()));
    return watcher.observe(document.body, { attributeFilter: ["data-ready"] });
  });
}

/** A file for the reader to keep. */
export function downloadFile(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Puts text on the clipboard; where the browser forbids that, false. */
export async function copyToClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
