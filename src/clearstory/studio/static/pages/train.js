// Train: a run is begun from a form, and watched while it learns. It is a process of its own: closing this page, or the
// server, loses nothing.

import { getJson, postJson, ApiError, StaleResponse } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { RENDERERS, renderView } from "../renderers.js";
import { el } from "../dom.js";
import { viewCard } from "../view_card.js";
import { cellText, duration, viewTables, pythonLiteral } from "../format.js";
import { trainForm } from "./train_form.js";

const EVERY = 1500; // milliseconds between two questions

export function mount(root, context) {
  let name = null; // the run that is watched
  let record = null; // {since, file, rows}
  let timer = 0;
  let ended = false;
  let looks = 0;
  let live = null; // a view of the newest best model

  const form = trainForm(context, (run) => {
    context.state.set({ run: run.name });
    return context.reload();
  });
  const runs = el("select", { "aria-label": "run", onchange: () => context.state.set({ run: runs.value || null }) });
  const status = el("p", { class: "status", "aria-live": "polite" });
  const progress = el("progress", { max: 1, hidden: true });
  const stop = el("button", { type: "button", onclick: () => act("runs/stop") }, "Stop, with a checkpoint");
  const resume = el("button", { type: "button", onclick: () => act("runs/resume") }, "Let it go on");
  const use = el("button", { type: "button", class: "strong", onclick: () => context.go("next", { model: name }) }, "Look into it");
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const warnings = el("ul", { class: "warnings" });
  const samples = el("div", { class: "samples" });
  const curve = makeCard({ name: "curve", title: "How it learns", says: "Validation loss against tokens learnt from, over the runs of its kind where a reference is shipped." });
  const losses = makeCard({ name: "losses", title: "Loss of each step" });
  const rates = makeCard({ name: "gradient", title: "Length of the gradient, before it is clipped" });
  const liveBox = el("div", { class: "live" });
  const watched = el(
    "section",
    { class: "watched", hidden: true },
    el("div", { class: "buttons" }, el("label", {}, el("span", {}, "Run"), runs), stop, resume, use),
    status, progress, problem, warnings,
    el("div", { class: "cards" }, curve.root, losses.root, rates.root, liveBox),
    samples,
  );
  root.replaceChildren(form.root, watched);

  blank();

  async function update() {
    await form.ready;
    const models = context.models();
    const wanted = context.state.get("run");
    const known = models.filter((each) => each.kind === "run").map((each) => each.name);
    if (wanted && !known.includes(wanted)) known.unshift(wanted);
    runs.replaceChildren(el("option", { value: "" }, "choose a run"), ...known.map((each) => el("option", { value: each, selected: each === wanted }, each)));
    runs.value = wanted ?? "";
    watched.hidden = !known.length;
    // What is watched comes first, and where nothing is, the form.
    if (wanted) root.prepend(watched);
    else root.prepend(form.root);
    if (wanted !== name) {
      clearTimeout(timer);
      name = wanted;
      record = { since: 0, file: "", rows: [] };
      looks = 0;
      live?.end();
      live = null;
      liveBox.replaceChildren();
      for (const each of [warnings, samples]) each.replaceChildren();
      problem.hidden = true;
      await (name ? context.track(poll()) : blank());
    }
  }

  function blank() {
    status.textContent = "";
    progress.hidden = true;
    for (const each of [stop, resume, use, curve.root, losses.root, rates.root]) each.hidden = true;
  }

  async function act(path) {
    try {
      tell(await postJson(path, { name }));
      problem.hidden = true;
      clearTimeout(timer);
      timer = setTimeout(poll, 400);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      fail(error.message);
    }
  }

  function fail(sentence) {
    problem.textContent = sentence;
    problem.hidden = false;
  }

  async function poll() {
    clearTimeout(timer);
    const mine = name;
    let said;
    try {
      said = await getJson("runs/rows", { name, since: record.since, file: record.file });
    } catch (error) {
      if (error instanceof StaleResponse) return;
      if (!(error instanceof ApiError)) throw error;
      fail(error.message);
      if (root.isConnected && name === mine) timer = setTimeout(poll, 2 * EVERY);
      return;
    }
    if (mine !== name || !root.isConnected) return;
    problem.hidden = true;
    if (said.anew) record.rows = [];
    record.rows.push(...said.rows);
    Object.assign(record, { since: said.since, file: said.file });
    tell(said);
    if (said.rows.length || said.anew) await paint(said);
    if (name !== mine || !root.isConnected) return;
    const over = said.state !== "running" && !said.more;
    if (over && !ended) context.reload();
    ended = over;
    if (!over) timer = setTimeout(poll, said.more ? 0 : EVERY);
  }

  /** How it stands, in words. */
  function tell(said) {
    const steps = record.rows.filter((row) => row.kind === "step");
    const last = steps.at(-1);
    const config = said.config ?? {};
    const budget = config.minutes ? config.minutes * 60 : config.cpu_seconds;
    const part = !last ? 0 : config.steps ? last.step / config.steps : budget ? Math.min(1, last.seconds / budget) : null;
    const before = steps.at(-12);
    const speed = last && before && last.seconds > before.seconds ? (last.tokens - before.tokens) / (last.seconds - before.seconds) : null;
    const words = [STATES[said.state] ?? said.state];
    if (last) words.push(`step ${last.step.toLocaleString("en-US")}`);
    if (last?.loss !== null && last !== undefined) words.push(`loss ${cellText(last.loss)}`);
    if (said.state === "running" && speed) words.push(`${Math.round(speed).toLocaleString("en-US")} tokens a second`);
    if (said.state === "running" && part) words.push(`about ${duration((last.seconds / part) * (1 - part))} left`);
    if (said.state === "running" && !last) words.push(said.said || "reading the text, making the model");
    if (said.state === "failed") words.push(said.said);
    const end = record.rows.findLast((row) => row.kind === "end");
    if (end?.bits_per_byte) words.push(`${cellText(end.bits_per_byte)} bits per byte of the held-out text`);
    status.textContent = `${words.join(" · ")}.`;
    Object.assign(root.dataset, { state: said.state, step: last?.step ?? 0 });
    progress.hidden = said.state !== "running" || part === null;
    progress.value = part ?? 0;
    stop.hidden = said.state !== "running";
    resume.hidden = said.state !== "stopped";
    use.hidden = !said.has_model;
    for (const each of [curve.root, losses.root, rates.root]) each.hidden = false;
  }

  async function paint(said) {
    const rows = record.rows;
    const steps = rows.filter((row) => row.kind === "step");
    const now = rows.filter((row) => row.kind === "look").length;
    const waits = [];
    if (steps.some((row) => row.loss !== null)) {
      const xs = steps.map((row) => row.step);
      waits.push(
        losses.fill(async () => ownCurve("Loss of each step", "nats per token", xs, [["training", steps.map((row) => row.loss)]])),
        rates.fill(async () =>
          ownCurve("Length of the gradient, before it is clipped", "length", xs, [["gradient", steps.map((row) => row.gradient_norm)]]),
        ),
      );
    }
    if (now !== looks || said.anew) {
      looks = now;
      waits.push(
        curve.fill(async () => {
          const { view } = await getJson("runs/curve", { name });
          if (!view) throw new ApiError("It has not looked at its held-out text yet; the curve begins with the first look.");
          return shown(view, `from clearstory.training.metrics_log import read_metrics\n\nfor row in read_metrics(Path(${pythonLiteral(`${name}/metrics.jsonl`)})):\n    print(row)\n`);
        }),
      );
      if (said.has_model) waits.push(showLive());
    }
    warnings.replaceChildren(...rows.filter((row) => row.kind === "warning").map((row) => el("li", {}, `After step ${row.step.toLocaleString("en-US")}: ${row.sentence}.`)));
    const wrote = rows.filter((row) => row.kind === "sample").slice(-3).toReversed();
    samples.replaceChildren(
      ...(wrote.length ? [el("h2", {}, "What it writes")] : []),
      ...wrote.map((row) => el("figure", {}, el("figcaption", {}, `after step ${row.step.toLocaleString("en-US")}`), el("blockquote", {}, row.text))),
    );
    await Promise.all(waits);
  }

  /** A view of the newest best model, drawn again at each look. */
  async function showLive() {
    if (!live) {
      const mine = name;
      let said;
      try {
        said = await getJson("views", { name });
      } catch (error) {
        if (error instanceof ApiError || error instanceof StaleResponse) return undefined;
        throw error;
      }
      if (mine !== name) return undefined;
      const able = said.views.filter((each) => each.able).map((each) => each.name);
      const views = new Map(said.views.map((each) => [each.name, each]));
      const own = { ...context, model: () => name, views: () => views };
      const choose = el("select", { "aria-label": "view", onchange: () => put(choose.value) }, ...able.map((each) => el("option", { value: each }, each)));
      const place = el("div", {});
      const put = (view) => {
        live?.end();
        live = viewCard(own, view);
        place.replaceChildren(live.root);
        return live.update();
      };
      liveBox.replaceChildren(el("label", {}, el("span", {}, "A view of the best model so far"), choose), place);
      return put(able.includes("next-token") ? "next-token" : able[0]);
    }
    return live.update({ again: true });
  }

  return {
    update,
    back: () => (name ? poll() : undefined),
    end: () => (clearTimeout(timer), (name = null), live?.end()),
  };
}

const STATES = { running: "It is learning", finished: "It has learnt", stopped: "It was stopped; it can go on from its newest checkpoint", stopping: "It saves a checkpoint and ends", failed: "It could not go on" };

/** A curve of what a record says. */
function ownCurve(title, unit, x, lines) {
  const view = { kind: "curve", title, x_label: "step", y_label: unit, log_x: false, band: null, caption: null, lines: lines.map(([name, y]) => ({ name, x, y, dashed: false, of: null })) };
  return shown(view, null);
}

const shown = (view, code) => ({
  title: view.title,
  caption: view.caption,
  python: code,
  tables: () => viewTables(view),
  files: { csv: async () => tablesCsv(viewTables(view)) },
  mount(body) {
    // The same drawing goes on: it is not built anew with each poll.
    const before = body.renderer;
    if (before && body.childNodes.length && RENDERERS[view.kind]) {
      before.update(view);
      return before;
    }
    body.renderer = renderView(body, view, {});
    return body.renderer;
  },
});
