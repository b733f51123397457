// Viewcard: any view of the library as a card: its settings as a form, its drawing, its numbers, its files.

import { fetchFile, latestRequest, postJson } from "./api.js";
import { makeCard, tablesCsv } from "./card.js";
import { renderView } from "./renderers.js";
import { el } from "./dom.js";
import { viewTables, pythonLiteral, visibleWhitespace } from "./format.js";

/** Views that are not about the sentence but about a text of their own, and what that is at first. */
const TEXT_FIELDS = {
  neighbours: { label: "Word", usual: (context) => context.word() },
  projection: { label: "Words", usual: (context) => context.text() },
  analogy: { label: "Analogy", usual: () => "king - man + woman" },
  "semantic-axis": { label: "Words", usual: (context) => context.text() },
  "dependency-heads": { label: "A .conllu file", usual: () => "" },
};

/** What must be filled in before a view can be shown. */
const REQUIRED_INPUT = { "dependency-heads": "about", "semantic-axis": "words", "activation-patching": "other_text", "contextual-embeddings": "other_text", interventions: "edit" };

/** Above so many tokens a view waits until it is asked for: its grids have a row and a column for each. */
const MAX_TOKENS = { head: 128 };

/** What a view is asked for by the chips that are pinned: an encoder hides them from itself. */
const PINNED_TOKEN_SETTINGS = {
  "fill-mask": (context) => {
    const [formValues, read] = [context.tokens().length, context.traced()?.read?.pieces.length];
    const pinned = context.state.pinned();
    return pinned.length && read === formValues + 2 ? { mask: pinned.map((place) => place + 1) } : {}; // behind [CLS]
  },
};

/** Settings that all cards share, through the page's address. */
const URL_SETTINGS = new Set(["layer", "head"]);

/** Settings that a page has no use for: the card's own buttons do it, or nothing is ever cut off. */
const HIDDEN_SETTINGS = new Set(["truncate"]);

/**
 * A card of the view `name`; update() asks again where model, text or settings have changed. A card below the window
 * asks when it comes into sight. `bound()` gives settings that the page keeps; they have no field in the form. `drawn` draws in
 * place of the kind's own drawer, `onPick(pick, view, asked)` hears what is pointed at, `empty` is said where something
 * must be given first; nothing is asked while `wait()`. update({again: true}) asks in any case: the model has learnt on.
 */
export function viewCard(context, name, { settings = {}, bound: boundSettings = null, title = null, drawn: render = renderView, onPick = context.pick, empty: emptyMessage = null, wait: isWaiting = () => /** @type {boolean} */ (false) } = {}) {
  const requests = latestRequest();
  const textField = TEXT_FIELDS[name];
  const entry = context.views().get(name);
  const formValues = {}; // what was set in the card's form
  let typedText = null; // what was typed in place of the usual text
  let lastRequest = null; // what was asked last, as one string
  let wasVisible = false;
  const isLong = () => context.tokens().length > (MAX_TOKENS[name] ?? Infinity);
  let confirmed = false; // a slow view, or one of a long text, waits until it is asked for
  const form = el("form", { class: "settings", onsubmit: (event) => event.preventDefault() });
  const computeButton = el("button", { type: "button", class: "strong", onclick: () => ((confirmed = true), update()) }, "Compute");
  const stopButton = el("button", { type: "button", onclick: () => showIdle() }, "Stop");
  const computeButtons = el("span", { class: "buttons" }, computeButton, stopButton);
  const card = makeCard({ name, title: title ?? name, description: entry?.description.replaceAll("`", "") ?? null, tools: form });
  const observer = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) onVisible();
  }, { rootMargin: "300px" });
  observer.observe(card.root);
  buildForm();

  function buildForm() {
    const visibleSettings = (entry?.settings ?? []).filter((setting) => !HIDDEN_SETTINGS.has(setting.name) && !(setting.name in { ...settings, ...boundSettings?.() }));
    form.replaceChildren(...(textField ? [textFieldInput()] : []), ...visibleSettings.map(field));
    form.append(computeButtons);
    updateComputeButtons();
  }

  /** Whether it waits until it is asked for; then there are buttons for that. */
  function updateComputeButtons() {
    computeButtons.hidden = !entry?.slow && !isLong();
    form.hidden = form.children.length === 1 && computeButtons.hidden;
    return !computeButtons.hidden;
  }

  function textFieldInput() {
    const input = el("input", { type: "text", name: "about", size: 24, oninput: () => scheduleChange("about", () => (typedText = input.value)) });
    input.value = typedText ?? textField.usual(context);
    return el("label", {}, el("span", {}, textField.label), input);
  }

  function field(setting) {
    const value = currentValue(setting);
    if (setting.kind === "boolean") {
      const box = el("input", { type: "checkbox", name: setting.name, checked: Boolean(value), onchange: () => setValue(setting, box.checked) });
      return el("label", {}, box, el("span", {}, setting.name));
    }
    if (setting.kind === "choice") {
      const select = el("select", { name: setting.name, onchange: () => setValue(setting, select.value || null) });
      if (setting.default === null) select.append(el("option", { value: "" }, "as usual"));
      select.append(...setting.choices.map((each) => el("option", { value: each, selected: each === value }, each)));
      return el("label", {}, el("span", {}, setting.name), select);
    }
    const number = setting.kind === "integer" || setting.kind === "number";
    const input = el("input", {
      type: number ? "number" : "text", step: setting.kind === "integer" ? "1" : "any", name: setting.name,
      placeholder: setting.kind === "list" ? "one; another" : setting.default === null ? "usual" : String(setting.default), size: number ? 6 : 16,
      oninput: () => scheduleChange(setting.name, () => setValue(setting, read(setting, input.value))),
    });
    input.value = value === null || value === undefined || value === setting.default ? "" : value;
    return el("label", {}, el("span", {}, setting.name), input);
  }

  function read(setting, text) {
    if (text === "") return null;
    if (setting.kind === "list") return text.split(";").map((each) => each.trim()).filter(Boolean);
    return setting.kind === "integer" || setting.kind === "number" ? Number(text) : text;
  }

  function currentValue(setting) {
    return URL_SETTINGS.has(setting.name) ? context.state.number(setting.name) : (formValues[setting.name] ?? setting.default);
  }

  let timer = 0;
  let collecting = false;
  const changes = new Map(); // by field: two that are filled in quickly both count
  function scheduleChange(field, change) {
    changes.set(field, change);
    clearTimeout(timer);
    timer = setTimeout(() => {
      collecting = true;
      for (const each of changes.values()) each();
      changes.clear();
      collecting = false;
      update();
    }, 250);
  }

  function setValue(setting, value) {
    if (URL_SETTINGS.has(setting.name)) context.state.set({ [setting.name]: value }, { quiet: true });
    else {
      if (value === null) delete formValues[setting.name];
      else formValues[setting.name] = value;
      update();
    }
  }

  /** What the library is asked. */
  function buildRequest() {
    const values = { ...settings, ...(formValues.mask ? {} : PINNED_TOKEN_SETTINGS[name]?.(context)), ...boundSettings?.() };
    for (const setting of entry?.settings ?? []) {
      const value = URL_SETTINGS.has(setting.name) ? context.state.number(setting.name) : formValues[setting.name];
      if (value !== null && value !== undefined && !(setting.name in values)) values[setting.name] = value;
    }
    return { model: context.model(), text: typedText ?? textField?.usual(context) ?? context.text(), view: name, settings: values };
  }

  const isNearViewport = () => card.root.getBoundingClientRect().top < innerHeight + 300;

  /** Asks, if there is something new to ask and the card is in sight. Resolves when it is painted. */
  function update({ again = false } = {}) {
    if (again) lastRequest = null;
    if (!context.model() || !card.root.isConnected || collecting || isWaiting()) return Promise.resolve();
    for (const key of URL_SETTINGS) {
      const input = form.elements[key];
      if (input && document.activeElement !== input) input.value = context.state.number(key) ?? "";
    }
    const box = form.elements.about;
    if (box && typedText === null && document.activeElement !== box) box.value = textField.usual(context);
    const request = buildRequest();
    if (JSON.stringify(request) === lastRequest) {
      highlightHoveredToken();
      return Promise.resolve();
    }
    wasVisible = wasVisible || isNearViewport();
    if (showMissingInput(request)) return Promise.resolve();
    if (updateComputeButtons() && !confirmed) return showIdle();
    return wasVisible ? sendRequest(request) : Promise.resolve();
  }

  /** Whether something must be filled in first; then the card says what, and asks nothing. */
  function showMissingInput(request) {
    const required = REQUIRED_INPUT[name];
    const provided = required === "about" ? request.text : request.settings[required];
    if (!required || (provided ?? "").length) return false;
    lastRequest = null;
    requests.cancel();
    card.wait(emptyMessage ?? `Fill in ‘${required === "about" ? textField.label : required}’ above to see this.`);
    return true;
  }

  /** A slow view that is not asked for says so. */
  function showIdle() {
    confirmed = false;
    lastRequest = null;
    requests.cancel(); // of what was asked before the settings changed
    card.wait(entry?.slow ? "This reads the text once for each part of the model, which takes a while: Compute begins it." : `${context.tokens().length} tokens make long tables, which take a while: Compute begins it.`);
    return Promise.resolve();
  }

  function onVisible() {
    if (wasVisible) return;
    wasVisible = true;
    update();
  }

  function sendRequest(request) {
    lastRequest = JSON.stringify(request);
    confirmed = false; // another text is another wish
    return context.track(
      card.fill(async () => {
        let view;
        try {
          view = await requests.run((signal) => postJson("view", request, signal));
        } catch (error) {
          lastRequest = null;
          throw error;
        }
        return cardContent(view, request);
      }),
    );
  }

  let shownView = null; // the view that is drawn

  /** Whether its rows are the sentence's tokens, so that pinning a chip is pinning a row. */
  const rowsAreTokens = () => shownView?.row_labels?.length === context.tokens().length;

  /** The pinned chip, or the one that is pointed at, as the drawing's row. */
  function highlightHoveredToken() {
    if (!rowsAreTokens()) return;
    card.renderer()?.point?.({ row: context.preview.get(), pinned: context.state.pinned()[0] ?? null });
  }
  const unsubscribe = context.preview.on(highlightHoveredToken);

  const cardContent = (view, request) => ({
    title: view.title,
    caption: view.caption,
    python: inspectSnippet(request),
    tables: () => viewTables(view),
    files: {
      svg: () => fetchFile(request, "svg"),
      csv: async () => (view.kind in { table: 1, grid: 1, curve: 1, highlighted_text: 1 } ? tablesCsv(viewTables(view)) : fetchFile(request, "csv")),
      html: () => fetchFile(request, "html"),
    },
    mount: (body) => {
      shownView = view;
      const initialPick = { stage: context.state.get("stage"), row: rowsAreTokens() ? (context.state.pinned()[0] ?? null) : null };
      const renderer = render(body, view, { onPick: (pick) => onPick(pick, view, request), picked: initialPick });
      body.dataset.kind = view.kind;
      return renderer;
    },
  });

  /** Another text is being read: what was asked of the old one is not wanted. */
  const drop = () => (requests.cancel(), (lastRequest = null));

  return { root: card.root, update, cancel: drop, destroy: () => (unsubscribe(), observer.disconnect(), card.renderer()?.destroy?.(), requests.cancel()) };
}

/** The call that gives these numbers, to be run in the studio's folder. */
export function inspectSnippet({ model, text, view, settings }) {
  const formValues = Object.entries(settings).filter(([, value]) => value !== undefined).map(([name, value]) => `, ${name}=${pythonLiteral(value)}`);
  return `import clearstory\n\nview = clearstory.inspect(${pythonLiteral(model)}, ${pythonLiteral(text)}, view=${pythonLiteral(view)}${formValues.join("")})\n`;
}

/** What is said of a text that is shown in the middle of words. */
export const quoted = (text) => `“${visibleWhitespace(text)}”`;
