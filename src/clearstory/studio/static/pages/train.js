// Train page: starts a training run from a form and shows its progress. A run is a process of its own and continues when this
// page or the server is closed.

import { getJson, postJson, ApiError, StaleResponse } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { RENDERERS, renderView } from "../renderers.js";
import { el } from "../dom.js";
import { viewCard } from "../view_card.js";
import { cellText, duration, viewTables, viewTitle, pythonLiteral } from "../format.js";
import { trainForm } from "./train_form.js";

const POLL_MS = 1500; // milliseconds between two requests

export function mount(root, context) {
  let name = null; // the shown run
  let metrics = null; // {offset, file, records}
  let timer = 0;
  let wasOver = false;
  let evaluations = 0;
  let liveCard = null; // a view of the best model so far

  const form = trainForm(context, (run) => {
    context.state.set({ run: run.name });
    return context.reload();
  });
  const runs = el("select", { "aria-label": "run", onchange: () => context.state.set({ run: runs.value || null }) });
  const statusLine = el("p", { class: "status", "aria-live": "polite" });
  const progress = el("progress", { max: 1, hidden: true });
  const stopButton = el("button", { type: "button", onclick: () => postAction("runs/stop") }, "Stop and save a checkpoint");
  const resumeButton = el("button", { type: "button", onclick: () => postAction("runs/resume") }, "Resume");
  const inspectButton = el("button", { type: "button", class: "strong", onclick: () => context.go("next-token", { model: name }) }, "Inspect the model");
  const problem = el("p", { class: "hint", role: "status", hidden: true });
  const warnings = el("ul", { class: "warnings" });
  const samples = el("div", { class: "samples" });
  const curveCard = makeCard({ name: "learning-curve", title: "Learning curve", description: "Validation loss against training tokens, with the reference curve of the model family if there is one." });
  const lossCard = makeCard({ name: "training-loss", title: "Training loss per step" });
  const gradientCard = makeCard({ name: "gradient-norm", title: "Gradient norm before clipping" });
  const liveBox = el("div", { class: "live" });
  const runSection = el(
    "section",
    { class: "watched", hidden: true },
    el("div", { class: "buttons" }, el("label", {}, el("span", {}, "Run"), runs), stopButton, resumeButton, inspectButton),
    statusLine, progress, problem, warnings,
    el("div", { class: "cards" }, curveCard.root, lossCard.root, gradientCard.root, liveBox),
    samples,
  );
  root.replaceChildren(form.root, runSection);

  clearStatus();

  async function update() {
    await form.ready;
    const models = context.models();
    const selectedRun = context.state.get("run");
    const runNames = models.filter((each) => each.kind === "run").map((each) => each.name);
    if (selectedRun && !runNames.includes(selectedRun)) runNames.unshift(selectedRun);
    runs.replaceChildren(el("option", { value: "" }, "choose a run"), ...runNames.map((each) => el("option", { value: each, selected: each === selectedRun }, each)));
    runs.value = selectedRun ?? "";
    runSection.hidden = !runNames.length;
    // The selected run comes first; without one, the form.
    if (selectedRun) root.prepend(runSection);
    else root.prepend(form.root);
    if (selectedRun !== name) {
      clearTimeout(timer);
      name = selectedRun;
      metrics = { offset: 0, file: "", records: [] };
      evaluations = 0;
      liveCard?.destroy();
      liveCard = null;
      liveBox.replaceChildren();
      for (const each of [warnings, samples]) each.replaceChildren();
      problem.hidden = true;
      await (name ? context.track(poll()) : clearStatus());
    }
  }

  function clearStatus() {
    statusLine.textContent = "";
    progress.hidden = true;
    for (const each of [stopButton, resumeButton, inspectButton, curveCard.root, lossCard.root, gradientCard.root]) each.hidden = true;
  }

  async function postAction(path) {
    try {
      updateStatus(await postJson(path, { name }));
      problem.hidden = true;
      clearTimeout(timer);
      timer = setTimeout(poll, 400);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      showProblem(error.message);
    }
  }

  function showProblem(sentence) {
    problem.textContent = sentence;
    problem.hidden = false;
  }

  async function poll() {
    clearTimeout(timer);
    const polledRun = name;
    let response;
    try {
      response = await getJson("runs/records", { name, offset: metrics.offset, file: metrics.file });
    } catch (error) {
      if (error instanceof StaleResponse) return;
      if (!(error instanceof ApiError)) throw error;
      showProblem(error.message);
      if (root.isConnected && name === polledRun) timer = setTimeout(poll, 2 * POLL_MS);
      return;
    }
    if (polledRun !== name || !root.isConnected) return;
    problem.hidden = true;
    if (response.restarted) metrics.records = [];
    metrics.records.push(...response.records);
    Object.assign(metrics, { offset: response.offset, file: response.file });
    updateStatus(response);
    if (response.records.length || response.restarted) await updateCards(response);
    if (name !== polledRun || !root.isConnected) return;
    const isOver = response.state !== "running" && !response.more;
    if (isOver && !wasOver) context.reload();
    wasOver = isOver;
    if (!isOver) timer = setTimeout(poll, response.more ? 0 : POLL_MS);
  }

  /** Shows the run's state, step, loss, speed and remaining time. */
  function updateStatus(response) {
    const steps = metrics.records.filter((row) => row.kind === "step");
    const last = steps.at(-1);
    const config = response.config ?? {};
    const budget = config.minutes ? config.minutes * 60 : config.cpu_seconds;
    const fraction = !last ? 0 : config.steps ? last.step / config.steps : budget ? Math.min(1, last.seconds / budget) : null;
    const earlier = steps.at(-12);
    const speed = last && earlier && last.seconds > earlier.seconds ? (last.tokens - earlier.tokens) / (last.seconds - earlier.seconds) : null;
    const facts = [STATE_LABELS[response.state] ?? response.state];
    if (last) facts.push(`step ${last.step.toLocaleString("en-US")}`);
    if (last?.loss !== null && last !== undefined) facts.push(`loss ${cellText(last.loss)}`);
    if (response.state === "running" && speed) facts.push(`${Math.round(speed).toLocaleString("en-US")} tokens per second`);
    if (response.state === "running" && fraction) facts.push(`about ${duration((last.seconds / fraction) * (1 - fraction))} left`);
    if (response.state === "running" && !last) facts.push(response.message || "preparing the data and the model");
    if (response.state === "failed") facts.push(response.message);
    const end = metrics.records.findLast((row) => row.kind === "end");
    if (end?.bits_per_byte) facts.push(`${cellText(end.bits_per_byte)} bits per byte on the validation text`);
    statusLine.textContent = `${facts.join(" · ")}.`;
    Object.assign(root.dataset, { state: response.state, step: last?.step ?? 0 });
    progress.hidden = response.state !== "running" || fraction === null;
    progress.value = fraction ?? 0;
    stopButton.hidden = response.state !== "running";
    resumeButton.hidden = response.state !== "stopped";
    inspectButton.hidden = !response.has_model;
    for (const each of [curveCard.root, lossCard.root, gradientCard.root]) each.hidden = false;
  }

  async function updateCards(response) {
    const rows = metrics.records;
    const steps = rows.filter((row) => row.kind === "step");
    const evaluationCount = rows.filter((row) => row.kind === "evaluation").length;
    const pending = [];
    if (steps.some((row) => row.loss !== null)) {
      const xs = steps.map((row) => row.step);
      pending.push(
        lossCard.fill(async () => curveOf("Training loss per step", "nats per token", xs, [["training", steps.map((row) => row.loss)]])),
        gradientCard.fill(async () =>
          curveOf("Gradient norm before clipping", "L2 norm", xs, [["gradient", steps.map((row) => row.gradient_norm)]]),
        ),
      );
    }
    if (evaluationCount !== evaluations || response.restarted) {
      evaluations = evaluationCount;
      pending.push(
        curveCard.fill(async () => {
          const { view } = await getJson("runs/learning-curve", { name });
          if (!view) throw new ApiError("There has been no evaluation yet; the curve starts with the first evaluation.");
          return cardContent(view, `from pathlib import Path\n\nfrom clearstory.training.metrics_log import read_metrics\n\nfor row in read_metrics(Path(${pythonLiteral(`${name}/metrics.jsonl`)})):\n    print(row)\n`);
        }),
      );
      if (response.has_model) pending.push(updateLiveView());
    }
    warnings.replaceChildren(...rows.filter((row) => row.kind === "warning").map((row) => el("li", {}, `After step ${row.step.toLocaleString("en-US")}: ${row.message}.`)));
    const lastSamples = rows.filter((row) => row.kind === "sample").slice(-3).toReversed();
    samples.replaceChildren(
      ...(lastSamples.length ? [el("h2", {}, "Samples")] : []),
      ...lastSamples.map((row) => el("figure", {}, el("figcaption", {}, `after step ${row.step.toLocaleString("en-US")}`), el("blockquote", {}, row.text))),
    );
    await Promise.all(pending);
  }

  /** Updates the view of the best model so far, after each evaluation. */
  async function updateLiveView() {
    if (!liveCard) {
      const polledRun = name;
      let response;
      try {
        response = await getJson("views", { name });
      } catch (error) {
        if (error instanceof ApiError || error instanceof StaleResponse) return undefined;
        throw error;
      }
      if (polledRun !== name) return undefined;
      const availableViews = response.views.filter((each) => each.available).map((each) => each.name);
      const views = new Map(response.views.map((each) => [each.name, each]));
      const liveContext = { ...context, model: () => name, input: () => ({ model: name, text: context.text() }), views: () => views };
      const viewSelect = el("select", { "aria-label": "view", onchange: () => showView(viewSelect.value) }, ...availableViews.map((each) => el("option", { value: each }, viewTitle(each))));
      const container = el("div", {});
      const showView = (view) => {
        viewSelect.value = view;
        liveCard?.destroy();
        liveCard = viewCard(liveContext, view);
        container.replaceChildren(liveCard.root);
        return liveCard.update();
      };
      liveBox.replaceChildren(el("label", {}, el("span", {}, "View of the best model so far"), viewSelect), container);
      return showView(availableViews.includes("next-token") ? "next-token" : availableViews[0]);
    }
    return liveCard.update({ force: true });
  }

  return {
    update,
    back: () => (name ? poll() : undefined),
    destroy: () => (clearTimeout(timer), (name = null), liveCard?.destroy()),
  };
}

const STATE_LABELS = { running: "Training", finished: "Finished", stopped: "Stopped; can be resumed from its newest checkpoint", stopping: "Saving a checkpoint and stopping", failed: "Failed" };

/** A card content with a curve over the training steps. */
function curveOf(title, unit, x, lines) {
  const view = { kind: "curve", title, x_label: "step", y_label: unit, log_x: false, band: null, caption: null, lines: lines.map(([name, y]) => ({ name, x, y, dashed: false, same_color_as: null })) };
  return cardContent(view, null);
}

const cardContent = (view, code) => ({
  title: view.title,
  caption: view.caption,
  python: code,
  tables: () => viewTables(view),
  files: { csv: async () => tablesCsv(viewTables(view)) },
  mount(body) {
    // The existing drawing is updated instead of rebuilt at each poll.
    const existing = body.renderer;
    if (existing && body.childNodes.length && RENDERERS[view.kind]) {
      existing.update(view);
      return existing;
    }
    body.renderer = renderView(body, view, {});
    return body.renderer;
  },
});
