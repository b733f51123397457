// Frame: what stands around every page: the models, the sentence and its tokens, the rail, the state in words.

import { serverReachable, getJson, latestRequest, ping, postJson, ApiError, StaleResponse } from "./api.js";
import { mount as chips } from "./token_chips.js";
import { el, signal } from "./dom.js";
import * as models from "./model_picker.js";
import { DEFAULT_TEXT, state } from "./url_state.js";
import { initTheme } from "./theme.js";
import { makeTour, tourDone } from "./tour.js";

/** @type {(id: string) => any} */
const byId = (id) => document.getElementById(id);
const [form, textInput, statusLine, alarmBox, nav, main] = [byId("sentence"), byId("text"), byId("words"), byId("alarm"), byId("rail"), byId("page")];

let lastTrace = null; // the newest trace: tokens and what the model is
let views = new Map(); // the model's views by name
let page = null; // {id, update, end}
let pending = 0; // promises that the page waits for
const traceRequest = latestRequest();
const viewsRequest = latestRequest();
const hoveredToken = signal(null); // the token that is pointed at

function markReady() {
  tour.settle();
  document.body.dataset.ready = "true";
}

// ---- what pages are handed

const context = {
  state,
  preview: hoveredToken,
  /** The model's path, its checkpoint's where a step is chosen; null where there is none. */
  model() {
    const name = state.get("model");
    const step = state.get("step");
    return name && step !== null ? `${name}/checkpoints/step-${step.padStart(6, "0")}` : name;
  },
  text: () => state.get("text") ?? DEFAULT_TEXT,
  tokens: () => lastTrace?.tokens ?? [],
  traced: () => lastTrace,
  views: () => views,
  models: models.knownModels,
  /** The pinned token as a word, or the last one. */
  word() {
    const tokens = context.tokens();
    const place = hoveredToken.get() ?? state.pinned()[0] ?? tokens.length - 1;
    const token = tokens[place];
    if (!token) return "";
    const written = context.text().slice(token.start, token.stop);
    return written.trim() || written; // a token of white space is a word too
  },
  /** Waits for a promise before the page is said to be ready. */
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
      // A fault of the page's own: said, not swallowed.
      context.alarm(`The page could not be drawn: ${error.message}.`);
      console.error(error);
    });
    return promise;
  },
  /** What a drawer's reader points at: rows and columns are tokens where the view is about all of them. */
  pick(pick, view) {
    if (pick.stage !== undefined) return state.set({ stage: pick.stage }, { quiet: true });
    const rowsAreTokens = view?.row_labels?.length === context.tokens().length;
    if (!rowsAreTokens || pick.row === undefined) return undefined;
    if (pick.pinned) return state.set({ query: pick.row }, { quiet: true });
    return hoveredToken.set(pick.row);
  },
  say: (sentence) => (statusLine.textContent = sentence),
  alarm: (sentence) => {
    alarmBox.textContent = sentence ?? "";
    alarmBox.hidden = !sentence;
  },
  reload: () => loadModels(),
  go: (id, changes = {}) => state.set({ page: id, ...changes }),
};

const tour = makeTour(context, byId("tour"));
byId("tour-button").onclick = tour.begin;

// ---- the folder

async function loadModels() {
  try {
    return await models.loadModels();
  } catch (error) {
    if (!(error instanceof StaleResponse)) context.alarm(error.message);
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
textInput.oninput = resizeInput;

function resizeInput() {
  textInput.style.height = "auto";
  textInput.style.height = `${Math.min(textInput.scrollHeight + 2, 160)}px`;
}

const tokenChips = chips(byId("chips"), { tokens: [] }, { onPick: onPickToken });

function onPickToken({ query, pinned, add }) {
  if (!pinned) return hoveredToken.set(query);
  const now = state.pinned();
  const next = add ? (now.includes(query) ? now.filter((each) => each !== query) : [...now, query]) : now.length === 1 && now[0] === query ? [] : [query];
  return state.set({ query: next.join(",") || null }, { quiet: true });
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.pinned().length) state.set({ query: null }, { quiet: true });
});

hoveredToken.on(updateStatus);

/** The state in words. */
function updateStatus() {
  const tokens = context.tokens();
  const name = (place) => `${tokens[place]?.piece ?? "?"} (${place})`;
  const parts = [];
  if (state.get("layer") !== null) parts.push(`layer ${state.get("layer")}`);
  if (state.get("head") !== null) parts.push(`head ${state.get("head")}`);
  const pinned = state.pinned();
  if (hoveredToken.get() !== null && !pinned.includes(hoveredToken.get())) parts.push(`token ${name(hoveredToken.get())}`);
  if (pinned.length) parts.push(`query ${pinned.map(name).join(", ")}, pinned`);
  const sentence = parts.join(", ");
  const size = lastTrace ? `${tokens.length} token${tokens.length === 1 ? "" : "s"}${lastTrace.context ? ` of at most ${lastTrace.context.toLocaleString("en-US")}` : ""}` : "";
  statusLine.textContent = [sentence ? sentence[0].toUpperCase() + sentence.slice(1) : "", size, lastTrace?.problem ?? ""].filter(Boolean).join(" · ");
}

/** Asks for the tokens of the sentence; the model is opened by it. */
async function trace() {
  const model = context.model();
  lastTrace = lastTrace && lastTrace.model === model ? lastTrace : null;
  if (!model) {
    tokenChips.update({ tokens: [] });
    return updateStatus();
  }
  const startTime = performance.now();
  const ticking = setInterval(() => {
    const seconds = Math.round((performance.now() - startTime) / 1000);
    if (seconds) statusLine.textContent = `Opening ${model}, ${seconds} s …`;
  }, 500);
  try {
    const response = await traceRequest.run((signal) => postJson("trace", { model, text: context.text(), top: 0 }, signal));
    lastTrace = response;
    context.alarm(null);
  } catch (error) {
    if (error instanceof StaleResponse) throw error;
    if (!(error instanceof ApiError)) throw error;
    lastTrace = null;
    context.alarm(error.message);
  } finally {
    clearInterval(ticking);
  }
  tokenChips.update({ tokens: context.tokens(), pinned: state.pinned() });
  updateStatus();
}

async function loadViews() {
  const model = context.model();
  if (!model) {
    views = new Map();
    return updateLinks();
  }
  try {
    const response = await viewsRequest.run((signal) => getJson("views", { name: model }, signal));
    views = new Map(response.views.map((each) => [each.name, each]));
  } catch (error) {
    if (error instanceof StaleResponse) throw error;
    views = new Map();
  }
  updateLinks();
}

// ---- pages

/** @type {HTMLAnchorElement[]} */
const links = [...nav.querySelectorAll("a[data-page]")];

/** The views of a page that this version has. */
const viewsOf = (link) => (link.dataset.views === "*" ? [...views.keys()] : (link.dataset.views ?? "").split(" ").filter((name) => views.has(name)));

/** Why a page has nothing to show; null where it has. */
function unavailableReason(link) {
  if ("free" in link.dataset || !link.dataset.views) return null;
  if (!context.model()) return "there is no model yet; Home makes one";
  if (!views.size) return null; // not known yet
  const here = viewsOf(link);
  if (!here.length) return "own" in link.dataset ? null : "this version has no such views yet";
  return here.some((name) => views.get(name).available) ? null : views.get(here[0]).reason;
}

function updateLinks() {
  for (const link of links) {
    const reason = unavailableReason(link);
    link.classList.toggle("grey", Boolean(reason));
    link.setAttribute("aria-disabled", String(Boolean(reason)));
    link.title = reason ?? "";
  }
}

for (const link of links)
  link.onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    state.set({ page: link.dataset.page });
  };

async function openPage() {
  const id = state.get("page") ?? "home";
  const link = links.find((each) => each.dataset.page === id) ?? links[0];
  for (const each of links) each.toggleAttribute("aria-current", each === link);
  const reason = unavailableReason(link);
  const available = viewsOf(link).filter((name) => views.get(name).available);
  const key = `${link.dataset.page}:${reason ?? available.join(" ")}`; // a model that can show other views gets other cards
  if (page?.key === key) return page.update?.();
  page?.destroy?.();
  page = { key };
  document.body.dataset.page = link.dataset.page;
  if (reason) {
    main.replaceChildren(el("h1", {}, link.textContent), el("p", { class: "problem", data: { reason: "" } }, `Nothing to show here: ${reason}.`));
    return undefined;
  }
  const root = el("div", { class: "page" });
  const module = await import(`/static/pages/${"own" in link.dataset ? link.dataset.page : "generic"}.js`);
  if (page.key !== key) return undefined; // another page was chosen meanwhile
  main.replaceChildren(el("h1", {}, link.textContent), root);
  page = { key, ...module.mount(root, context, { views: available }) };
  if (!matchMedia("(max-width: 760px)").matches) main.scrollIntoView({ block: "nearest" });
  else nav.scrollLeft = link.offsetLeft - nav.offsetLeft - (nav.clientWidth - link.offsetWidth) / 2; // a row of pages there
  return page.update?.();
}

let before = {};

/** What follows from a change of the address. */
async function follow() {
  const now = state.all();
  const changed = (name) => (now[name] ?? null) !== (before[name] ?? null);
  const needsTrace = changed("model") || changed("step") || changed("text") || before === null;
  const model = changed("model") || changed("step");
  before = now;
  if (document.activeElement !== textInput || textInput.value.trim() === "") textInput.value = context.text();
  resizeInput();
  try {
    if (model) models.updatePicker();
    if (model && !views.size) await Promise.all([loadViews(), trace()]);
    else if (model) await Promise.all([trace(), loadViews()]);
    else if (needsTrace) await trace();
    tokenChips.update({ tokens: context.tokens(), pinned: state.pinned() });
    updateStatus();
    await Promise.all([openPage(), tour.update()]);
  } catch (error) {
    if (!(error instanceof StaleResponse)) throw error;
  }
}

state.on(() => context.track(follow()));

// ---- the server may go, and come back

let unreachable = false;
serverReachable.on((there) => {
  if (unreachable === !there) return;
  unreachable = !there;
  if (unreachable) return context.alarm("The studio does not answer: its server was stopped. Start it again with clearstory studio; this page goes on by itself, and trainings go on without it.");
  context.alarm(null);
  before = {}; // what was asked meanwhile is asked again
  context.track(loadModels().then(follow).then(() => page?.back?.()));
});
setInterval(() => document.hidden || ping(), 2000);

// ---- begin

async function startApp() {
  initTheme(byId("theme"));
  textInput.value = context.text();
  resizeInput();
  await loadModels();
  // Who comes for the first time, and by no link, is shown around.
  if (!location.search && !tourDone()) state.set({ tour: 0 }, { quiet: true });
  if (!state.get("model")) {
    const usable = models.knownModels().filter((each) => !each.problem);
    const usual = usable.find((each) => each.name.endsWith("quickstart")) ?? usable[0];
    if (usual) return state.set({ model: usual.name }, { quiet: true });
  }
  return context.track(follow());
}

context.track(startApp());
