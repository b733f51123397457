// View card: one view of the library as a card, with its settings as a form, its tables and its files.

import { fetchFile, latestRequest, postJson } from "./api.js";
import { makeCard, options, tablesCsv } from "./card.js";
import { renderView } from "./renderers.js";
import { el } from "./dom.js";
import { settingLabel } from "./setting_labels.js";
import { viewTables, promptKeywords, pythonLiteral, viewTitle } from "./format.js";

/** Views with a text field of their own instead of the sentence: its label and initial value. */
const TEXT_FIELDS = {
  neighbours: { label: "Word", usual: (context) => context.selectedWord() },
  projection: { label: "Words", usual: (context) => context.text() },
  analogy: { label: "Analogy", usual: () => "king - man + woman" },
  "semantic-axis": { label: "Words", usual: (context) => context.text() },
  "dependency-heads": { label: "A .conllu file", usual: () => "" },
};

/** Inputs that must be filled in before a view is requested. */
const REQUIRED_INPUT = { "dependency-heads": "about", "semantic-axis": "words", "activation-patching": "other_text", "contextual-embeddings": "other_text", interventions: "edit" };

/** Token counts above which a view is only computed on demand: its grids have a row and a column per token. */
const MAX_TOKENS = { head: 128 };

/** Settings that follow from the pinned tokens: fill-mask masks them. */
const PINNED_TOKEN_SETTINGS = {
  "fill-mask": (context) => {
    const pinned = context.state.pinned().filter((position) => context.tokens()[position]?.special === false);
    return pinned.length ? { mask: pinned } : {};
  },
};

/** Settings that all cards share through the URL state. */
const URL_SETTINGS = new Set(["layer", "head"]);

/** Settings without a form field. */
const HIDDEN_SETTINGS = new Set(["truncate"]);

/**
 * A card of the view `name`. update() sends a request if model, text or settings have changed; update({force: true}) always
 * does. A card below the viewport sends its request when it becomes visible. `boundSettings()` returns settings that the page
 * controls, without a field in the form. `render` replaces the renderer of the view's kind, `onPick(pick, view, request)` is
 * called on hover and click, `emptyMessage` is shown while a required input is missing; no request is sent while `isWaiting()`.
 */
export function viewCard(context, name, { settings = {}, boundSettings = null, title = null, render = renderView, onPick = context.pick, emptyMessage = null, isWaiting = () => /** @type {boolean} */ (false) } = {}) {
  const requests = latestRequest();
  const textField = TEXT_FIELDS[name];
  const entry = context.views().get(name);
  const formValues = {}; // settings from the card's form
  let typedText = null; // typed text that replaces the initial one
  let lastRequest = null; // the last request as JSON
  let wasVisible = false;
  const isLong = () => context.tokens().length > (MAX_TOKENS[name] ?? Infinity);
  let confirmed = false; // slow views and long texts wait for the Compute button
  const form = el("form", { class: "settings", onsubmit: (event) => event.preventDefault() });
  const computeButton = el("button", { type: "button", class: "strong", onclick: () => (applyChanges(), (confirmed = true), update()) }, "Compute");
  const stopButton = el("button", { type: "button", onclick: () => showIdle() }, "Stop");
  const computeButtons = el("span", { class: "buttons" }, computeButton, stopButton);
  const card = makeCard({ name, title: title ?? viewTitle(name), description: entry?.description.replaceAll("`", "") ?? null, tools: form });
  const observer = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) onVisible();
  }, { rootMargin: "300px" });
  observer.observe(card.root);
  buildForm();

  function buildForm() {
    const isFixed = (name) => name in settings || (!URL_SETTINGS.has(name) && name in (boundSettings?.() ?? {}));
    const visibleSettings = (entry?.settings ?? []).filter((setting) => !HIDDEN_SETTINGS.has(setting.name) && !isFixed(setting.name));
    const isRequired = (setting) => setting.name === REQUIRED_INPUT[name];
    const optional = visibleSettings.filter((setting) => !isRequired(setting)).map(field);
    form.replaceChildren(...(textField ? [textFieldInput()] : []), ...visibleSettings.filter(isRequired).map(field));
    if (optional.length) form.append(options(...optional));
    form.append(computeButtons);
    updateComputeButtons();
  }

  /** Shows the Compute and Stop buttons if the view is only computed on demand; returns whether it is. */
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
      return el("label", {}, box, el("span", {}, settingLabel(setting.name)));
    }
    if (setting.kind === "choice") {
      const select = el("select", { name: setting.name, onchange: () => setValue(setting, select.value || null) });
      if (setting.default === null) select.append(el("option", { value: "" }, "auto"));
      select.append(...setting.choices.map((each) => el("option", { value: each, selected: each === value }, each)));
      return el("label", {}, el("span", {}, settingLabel(setting.name)), select);
    }
    const number = setting.kind === "integer" || setting.kind === "number";
    const input = el("input", {
      type: number ? "number" : "text", step: setting.kind === "integer" ? "1" : "any", name: setting.name,
      placeholder: setting.kind === "list" ? "one; another" : setting.default === null ? "auto" : String(setting.default), size: number ? 6 : 16,
      oninput: () => scheduleChange(setting.name, () => setValue(setting, parseValue(setting, input.value))),
    });
    input.value = value === null || value === undefined || value === setting.default ? "" : value;
    return el("label", {}, el("span", {}, settingLabel(setting.name)), input);
  }

  function parseValue(setting, text) {
    if (text === "") return null;
    if (setting.kind === "list") return text.split(";").map((each) => each.trim()).filter(Boolean);
    return setting.kind === "integer" || setting.kind === "number" ? Number(text) : text;
  }

  function currentValue(setting) {
    return URL_SETTINGS.has(setting.name) ? context.state.number(setting.name) : (formValues[setting.name] ?? setting.default);
  }

  let timer = 0;
  let collecting = false;
  const changes = new Map(); // by field, so that quick edits of two fields both count
  function scheduleChange(field, change) {
    changes.set(field, change);
    clearTimeout(timer);
    timer = setTimeout(() => (applyChanges(), update()), 250);
  }

  /** Applies the changes that wait. */
  function applyChanges() {
    clearTimeout(timer);
    collecting = true;
    for (const each of changes.values()) each();
    changes.clear();
    collecting = false;
  }

  function setValue(setting, value) {
    if (URL_SETTINGS.has(setting.name)) context.state.set({ [setting.name]: value }, { quiet: true });
    else {
      if (value === null) delete formValues[setting.name];
      else formValues[setting.name] = value;
      update();
    }
  }

  /** The request for the current model, text and settings. */
  function buildRequest() {
    const values = { ...settings, ...(formValues.mask ? {} : PINNED_TOKEN_SETTINGS[name]?.(context)), ...boundSettings?.() };
    for (const setting of entry?.settings ?? []) {
      const value = URL_SETTINGS.has(setting.name) ? context.state.number(setting.name) : formValues[setting.name];
      if (value !== null && value !== undefined && !(setting.name in values)) values[setting.name] = value;
    }
    const input = textField ? { model: context.model(), text: typedText ?? textField.usual(context) } : context.input();
    return { ...input, view: name, settings: values };
  }

  const isNearViewport = () => card.root.getBoundingClientRect().top < innerHeight + 300;

  /** Sends a request if it differs from the last one and the card is visible. Resolves when it is drawn. */
  function update({ force = false } = {}) {
    if (force) lastRequest = null;
    if (!context.model() || !card.root.isConnected || collecting || isWaiting()) return Promise.resolve();
    for (const key of URL_SETTINGS) {
      const input = form.elements[key];
      if (!input) continue;
      if (document.activeElement !== input) input.value = context.state.number(key) ?? "";
      input.placeholder = boundSettings?.()[key] ?? "auto";
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

  /** Whether a required input is missing; if so, the card says which. */
  function showMissingInput(request) {
    const required = REQUIRED_INPUT[name];
    const provided = required === "about" ? request.text : request.settings[required];
    if (!required || (provided ?? "").length) return false;
    lastRequest = null;
    requests.cancel();
    card.showMessage(emptyMessage ?? `Fill in ‘${required === "about" ? textField.label : settingLabel(required)}’ above to see this.`);
    return true;
  }

  /** Shows that the view is computed on demand. */
  function showIdle() {
    confirmed = false;
    lastRequest = null;
    requests.cancel(); // a request with the previous settings
    card.showMessage(entry?.slow ? "This view runs the model once per component, which takes a while. Press Compute to start." : `The tables for ${context.tokens().length} tokens take a while. Press Compute to start.`);
    return Promise.resolve();
  }

  function onVisible() {
    if (wasVisible) return;
    wasVisible = true;
    update();
  }

  function sendRequest(request) {
    lastRequest = JSON.stringify(request);
    confirmed = false; // another text needs another confirmation
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

  let shownView = null; // the drawn view

  /** Whether the view has one row per token, so that pinned tokens are pinned rows. */
  const rowsAreTokens = () => context.rowsAreTokens(shownView?.row_labels);

  /** Marks the rows of the hovered and pinned tokens. */
  function highlightHoveredToken() {
    if (!rowsAreTokens()) return;
    card.renderer()?.point?.({ row: context.hoveredToken.get(), pinned: context.state.pinned()[0] ?? null });
  }
  const unsubscribe = context.hoveredToken.on(highlightHoveredToken);

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
      const initialPick = { panel: context.state.get("panel"), row: rowsAreTokens() ? (context.state.pinned()[0] ?? null) : null };
      const renderer = render(body, view, { onPick: (pick) => onPick(pick, view, request), picked: initialPick });
      body.dataset.kind = view.kind;
      return renderer;
    },
  });

  /** Cancels the request for the previous text. */
  const cancel = () => (requests.cancel(), (lastRequest = null));

  return { root: card.root, update, cancel, destroy: () => (unsubscribe(), observer.disconnect(), card.renderer()?.destroy?.(), requests.cancel()) };
}

/** The call that gives these numbers, to be run in the studio's folder. */
export function inspectSnippet({ model, text, view, settings, ...prompt }) {
  const formValues = Object.entries(settings).filter(([, value]) => value !== undefined).map(([name, value]) => `, ${name}=${pythonLiteral(value)}`);
  return `import clearstory\n\nview = clearstory.inspect(${pythonLiteral(model)}, ${pythonLiteral(text)}, view=${pythonLiteral(view)}${promptKeywords(prompt)}${formValues.join("")})\n`;
}
