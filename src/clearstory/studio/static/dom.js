// DOM: elements, signals, sliders, downloads. Text is inserted as text nodes, styles through the object model: the text of
// a token is never parsed as markup, and the Content-Security-Policy allows no inline styles.

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

/** An SVG element: svg("rect", {x: 1, class: "bar"}). */
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

/** A value whose changes can be subscribed to: get(), set(value), on(listener) -> unsubscribe. */
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

/** The current value of a theme colour, for a canvas: themeColor("bar"). */
export function themeColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim() || "#888";
}

/** Calls redraw(width) when the element's width or the theme changes, at most once per frame. Returns a function that stops it. */
export function redrawOnResize(node, redraw) {
  let width = Math.floor(node.clientWidth); // the caller draws at the current width
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
 * A labelled slider that shows its formatted value.
 * @param {{label: string, name?: string, min: number, max: number, step: number, value: any, format?: (value: number) => string, oninput: (value: number) => any}} options
 */
export function slider({ label, name, min, max, step, value, format = String, oninput }) {
  const output = el("output", {}, format(value));
  const input = el("input", {
    type: "range", min, max, step, name,
    oninput: () => {
      output.textContent = format(Number(input.value));
      oninput(Number(input.value));
    },
  });
  input.value = value;
  return el("label", { class: "slider" }, el("span", {}, label), input, output);
}

/** Resolves when everything that the page waits for is drawn. */
export function whenReady() {
  return new Promise((resolve) => {
    const isReady = () => document.body.dataset.ready === "true";
    if (isReady()) return resolve();
    const watcher = new MutationObserver(() => isReady() && (watcher.disconnect(), resolve()));
    return watcher.observe(document.body, { attributeFilter: ["data-ready"] });
  });
}

/** Downloads text as a file. */
export function downloadFile(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Copies text to the clipboard; false if the browser forbids it. */
export async function copyToClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
