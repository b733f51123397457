// App: the sentence and its tokens, the pages, and the status line around every page.

import { serverReachable, getJson, latestRequest, ping, postJson, ApiError, StaleResponse } from "./api.js";
import { mount as chips } from "./token_chips.js";
import { el, signal } from "./dom.js";
import * as models from "./model_picker.js";
import { makeRail } from "./rail.js";
import { DEFAULT_TEXT, state } from "./url_state.js";
import { initTheme } from "./theme.js";
import { makeTour, tourDone } from "./tour.js";

/** @type {(id: string) => any} */
const byId = (id) => document.getElementById(id);
const [form, textInput, statusLine, alarmBox, main, chipBox, allChips] = [byId("sentence"), byId("text"), byId("words"), byId("alarm"), byId("page"), byId("chips"), byId("chips-all")];

let lastTrace = null; // the latest trace: tokens and facts about the model
let views = new Map(); // the views by name
let page = null; // {key, update, destroy, back}
let keptHead = null; // {key, layer, head}, see context.keepHead
let pending = 0; // number of promises that the page waits for
const traceRequest = latestRequest();
const viewsRequest = latestRequest();
const hoveredToken = signal(null); // position of the token under the pointer

function markReady() {
  tour.scrollToCard();
  document.body.dataset.ready = "true";
}

// ---- the context passed to pages

const context = {
  state,
  hoveredToken,
  /** The path of the model, or of the selected checkpoint; null if there is none. */
  model() {
    const name = state.get("model");
    const step = state.get("step");
    return name && step !== null ? `${name}/checkpoints/step-${step.padStart(6, "0")}` : name;
  },
  text: () => state.get("text") ?? DEFAULT_TEXT,
  /** How the sentence becomes a prompt: the fields of a request that differ from the defaults. */
  prompt: () => ({
    ...(state.get("raw") === null ? {} : { raw: true }),
    ...(state.get("system") === null ? {} : { system: state.get("system") }),
    ...(state.get("specials") === null ? {} : { special_tokens: false }),
  }),
  /** The fields of a request about the sentence. */
  input: () => ({ model: context.model(), text: context.text(), ...context.prompt() }),
  /** Keeps the head that a page shows while none is chosen, for other pages of the same model and sentence. */
  keepHead(layer, head) {
    keptHead = { key: JSON.stringify(context.input()), layer, head };
  },
  /** The kept head; null if there is none for this model and sentence. */
  keptHead: () => (keptHead?.key === JSON.stringify(context.input()) ? { layer: keptHead.layer, head: keptHead.head } : null),
  tokens: () => lastTrace?.tokens ?? [],
  trace: () => lastTrace,
  views: () => views,
  models: models.knownModels,
  /** Whether labels of rows are those of the sentence's tokens: a token that occurs twice has its position behind it. */
  rowsAreTokens(labels) {
    const tokens = context.tokens();
    return labels?.length === tokens.length && labels.every((label, position) => label === tokens[position].piece || label === `${tokens[position].piece}·${position}`);
  },
  /** The text of the hovered or pinned token, or of the last one. */
  selectedWord() {
    const tokens = context.tokens();
    const chosen = tokens[hoveredToken.get() ?? state.pinned()[0]];
    const source = (chosen?.text ? chosen : tokens.findLast((token) => token.text))?.text ?? "";
    return source.trim() || source; // a token may be whitespace only
  },
  /** Marks the page as not ready until the promise is settled. */
  track(promise) {
    pending++;
    document.body.dataset.ready = "false";
    const done = () => {
      pending--;
      if (!pending) requestAnimationFrame(() => !pending && markReady());
    };
    promise.then(done, (error) => {
      done();
      if (error instanceof StaleResponse) return;
      // A bug of the page: shown instead of ignored.
      context.showAlarm(`The page could not be drawn: ${error.message}.`);
      console.error(error);
    });
    return promise;
  },
  /** Handles a renderer's onPick: a row is a token if the view has one row per token. */
  pick(pick, view) {
    if (pick.panel !== undefined) return state.set({ panel: pick.panel }, { quiet: true });
    if (!context.rowsAreTokens(view?.row_labels) || pick.row === undefined) return undefined;
    if (pick.pinned) return state.set({ query: pick.row }, { quiet: true });
    return hoveredToken.set(pick.row);
  },
  showAlarm: (sentence, isHint = false) => {
    alarmBox.className = isHint ? "hint" : "problem";
    alarmBox.textContent = sentence ?? "";
    alarmBox.hidden = !sentence;
  },
  reload: () => loadModels(),
  go: (id, changes = {}) => state.set({ page: id, ...changes }),
};

const rail = makeRail(context, byId("rail"), byId("rail-button"), (page) => state.set({ page }));
const tour = makeTour(context, byId("tour"));
byId("tour-button").onclick = tour.begin;

// ---- the folder

async function loadModels() {
  try {
    return await models.loadModels();
  } catch (error) {
    if (!(error instanceof StaleResponse)) context.showAlarm(error.message);
    return null;
  }
}

// ---- the sentence

form.onsubmit = (event) => {
  event.preventDefault();
  state.set({ text: textInput.value });
};
textInput.onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    form.requestSubmit();
  }
};
textInput.oninput = textInput.onfocus = textInput.onblur = resizeInput;

/** The field has one line; while it is edited, as many as its text. */
function resizeInput() {
  textInput.style.height = "auto";
  if (document.activeElement === textInput) textInput.style.height = `${Math.min(textInput.scrollHeight + 2, 160)}px`;
}

const tokenChips = chips(chipBox, { tokens: [] }, { onPick: onPickToken });

/** Shows the tokens in one line; if there are more, the button shows all lines. */
function updateChips() {
  tokenChips.update({ tokens: context.tokens(), pinned: state.pinned() });
  allChips.hidden = !chipBox.classList.contains("all") && chipBox.scrollWidth <= chipBox.clientWidth;
}
allChips.onclick = () => {
  allChips.setAttribute("aria-pressed", String(chipBox.classList.toggle("all")));
  updateChips();
};

function onPickToken({ query, pinned, add }) {
  if (!pinned) return hoveredToken.set(query);
  const now = state.pinned();
  const next = add ? (now.includes(query) ? now.filter((each) => each !== query) : [...now, query]) : now.length === 1 && now[0] === query ? [] : [query];
  return state.set({ query: next.join(",") || null }, { quiet: true });
}

addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const menu = openMenu();
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  } else if (state.pinned().length) state.set({ query: null }, { quiet: true });
});

/** The open menu of the bar, which a click elsewhere and Esc close. */
const openMenu = () => /** @type {HTMLDetailsElement} */ (document.querySelector("details.menu[open]"));
addEventListener("pointerdown", (event) => {
  const menu = openMenu();
  if (menu && !menu.contains(/** @type {Node} */ (event.target))) menu.open = false;
});

hoveredToken.on(updateStatus);

/** Describes the selection and the text in the status line. */
function updateStatus() {
  const tokens = context.tokens();
  const name = (position) => `${tokens[position]?.piece ?? "?"} (${position})`;
  const parts = [];
  if (state.get("layer") !== null) parts.push(`layer ${state.get("layer")}`);
  if (state.get("head") !== null) parts.push(`head ${state.get("head")}`);
  const pinned = state.pinned();
  if (hoveredToken.get() !== null && !pinned.includes(hoveredToken.get())) parts.push(`token ${name(hoveredToken.get())}`);
  if (pinned.length) parts.push(`query ${pinned.map(name).join(", ")}, pinned`);
  const sentence = parts.join(", ");
  const size = lastTrace ? `${tokens.length} token${tokens.length === 1 ? "" : "s"}${lastTrace.context ? ` of at most ${lastTrace.context.toLocaleString("en-US")}` : ""}` : "";
  statusLine.title = statusLine.textContent = [sentence ? sentence[0].toUpperCase() + sentence.slice(1) : "", size, lastTrace?.problem ?? ""].filter(Boolean).join(" · ");
}

/** Requests the tokens of the sentence, which opens the model. */
async function trace() {
  const model = context.model();
  lastTrace = lastTrace && lastTrace.model === model ? lastTrace : null;
  if (!model) {
    updateChips();
    return updateStatus();
  }
  const startTime = performance.now();
  const ticking = setInterval(() => {
    const seconds = Math.round((performance.now() - startTime) / 1000);
    if (seconds) statusLine.textContent = `Opening ${model}, ${seconds} s …`;
  }, 500);
  try {
    const response = await traceRequest.run((signal) => postJson("trace", { ...context.input(), top: 0 }, signal));
    lastTrace = response;
    models.showFacts(response);
    context.showAlarm(null);
  } catch (error) {
    if (error instanceof StaleResponse) throw error;
    if (!(error instanceof ApiError)) throw error;
    lastTrace = null;
    context.showAlarm(error.message, error.isHint);
  } finally {
    clearInterval(ticking);
  }
  updateChips();
  updatePrompting();
  updateStatus();
}

/** Shows the choices of how the sentence becomes a prompt that this model has. */
function updatePrompting() {
  const prompt = lastTrace?.prompt ?? {};
  const raw = state.get("raw") !== null;
  byId("chat-box").hidden = !prompt.has_chat_template;
  // A system message in a link to a model without a chat template is an error that only this field can mend.
  byId("system-box").hidden = state.get("system") === null && (!prompt.has_chat_template || raw);
  byId("specials-box").hidden = !prompt.has_special_tokens || prompt.chat;
  byId("prompting").hidden = ["chat-box", "system-box", "specials-box"].every((id) => byId(id).hidden);
  byId("chat").checked = !raw;
  byId("specials").checked = state.get("specials") === null;
  if (document.activeElement !== byId("system")) byId("system").value = state.get("system") ?? "";
}

// The pinned tokens are at other positions then.
byId("chat").onchange = () => state.set({ raw: byId("chat").checked ? null : 1, system: null, query: null });
byId("specials").onchange = () => state.set({ specials: byId("specials").checked ? null : 0, query: null });
byId("system").onchange = () => state.set({ system: byId("system").value || null, query: null });

async function loadViews() {
  const model = context.model();
  if (!model) {
    views = new Map();
    return rail.update();
  }
  try {
    const response = await viewsRequest.run((signal) => getJson("views", { name: model }, signal));
    views = new Map(response.views.map((each) => [each.name, each]));
  } catch (error) {
    if (error instanceof StaleResponse) throw error;
    views = new Map();
  }
  rail.update();
}

// ---- pages

/** The page without a key in the URL: the first that the model can show. */
const firstPage = () => (!context.model() ? "home" : rail.reason(rail.of("sentence")) ? "tokens" : "sentence");

async function openPage() {
  const link = rail.of(state.get("page") ?? firstPage()) ?? rail.of("home");
  const id = link.dataset.page;
  rail.update();
  const [name, question] = rail.words(link);
  document.title = `${name} · ${models.shortName(context.model())} · Clearstory`;
  const reason = rail.reason(link);
  const views = rail.availableViews(link);
  const key = `${id}:${reason ?? views.join(" ")}`; // another model may support other views
  if (page?.key === key) return page.update?.();
  page?.destroy?.();
  page = { key };
  document.body.dataset.page = id;
  rail.show(link);
  const heading = el("h1", {}, question);
  if (reason) {
    main.replaceChildren(heading, el("p", { class: "hint", data: { reason: "" } }, reason));
    return undefined;
  }
  const root = el("div", { class: "page" });
  const module = await import(`/static/pages/${"own" in link.dataset ? id.replaceAll("-", "_") : "view_list"}.js`);
  if (page.key !== key) return undefined; // another page was chosen meanwhile
  main.replaceChildren(heading, root);
  page = { key, ...module.mount(root, context, { views }) };
  scrollTo({ top: 0 });
  return page.update?.();
}

let previous = {};

/** Updates everything after a change of the URL state. */
async function applyState() {
  const current = state.all();
  const changed = (name) => (current[name] ?? null) !== (previous[name] ?? null);
  const needsTrace = ["model", "step", "text", "raw", "system", "specials"].some(changed);
  const model = changed("model") || changed("step");
  previous = current;
  if (document.activeElement !== textInput || textInput.value.trim() === "") textInput.value = context.text();
  resizeInput();
  try {
    if (model) models.updatePicker();
    if (model && !views.size) await Promise.all([loadViews(), trace()]);
    else if (model) await Promise.all([trace(), loadViews()]);
    else if (needsTrace) await trace();
    updateChips();
    updateStatus();
    await Promise.all([openPage(), tour.update()]);
  } catch (error) {
    if (!(error instanceof StaleResponse)) throw error;
  }
}

state.on(() => context.track(applyState()));

// ---- when the server stops and returns

let unreachable = false;
serverReachable.on((reachable) => {
  if (unreachable === !reachable) return;
  unreachable = !reachable;
  if (unreachable) return context.showAlarm("The studio's server does not respond. Start it again with clearstory studio; this page then continues by itself. Training runs are not affected.");
  context.showAlarm(null);
  previous = {}; // repeat the requests that failed
  context.track(loadModels().then(applyState).then(() => page?.back?.()));
});
setInterval(() => document.hidden || ping(), 2000);

// ---- start

history.scrollRestoration = "manual"; // a page opens at its top, also by back and forward
new ResizeObserver(([{ target }]) => {
  document.documentElement.style.setProperty("--bar-height", `${/** @type {HTMLElement} */ (target).offsetHeight}px`);
  requestAnimationFrame(updateChips);
}).observe(byId("top"));
/** @type {HTMLAnchorElement} */ (document.querySelector(".brand")).onclick = (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  state.set({ page: null });
};

async function startApp() {
  initTheme(byId("theme"));
  textInput.value = context.text();
  resizeInput();
  await loadModels();
  const usable = models.knownModels().filter((each) => !each.problem);
  // On a first visit without a link, a model opens on its picture; where there is none yet, the tour offers to train one.
  if (!location.search && !usable.length && !tourDone()) state.set({ tour: 0 }, { quiet: true });
  if (!state.get("model")) {
    const preferred = usable.find((each) => each.name.endsWith("quickstart")) ?? usable[0];
    if (preferred) return state.set({ model: preferred.name }, { quiet: true });
  }
  return context.track(applyState());
}

context.track(startApp());
