// Generation speed: tokens per second with and without the model's cached state, measured by the server on demand.

import { latestRequest, fetchArrays } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as mountCurve } from "../render/curve.js";
import { el } from "../dom.js";
import { cellText, viewTables, pythonCall } from "../format.js";

export function generationSpeedCard(context) {
  const requests = latestRequest();
  const tokens = el("input", { type: "number", min: 2, max: 128, step: 1, value: 16, name: "speed-tokens" });
  const runs = el("input", { type: "number", min: 1, max: 9, step: 1, value: 3, name: "speed-runs" });
  const measure = el("button", { type: "button", class: "strong", onclick: load }, "Measure");
  const stop = el("button", { type: "button", onclick: () => (requests.cancel(), showIdle()) }, "Stop");
  const card = makeCard({
    name: "generation-speed",
    title: "Generation speed with and without cached state",
    description: "The same tokens are generated alternately with the cached state (for a Transformer the KV cache) and by processing the whole sequence again for each token.",
    tools: el("div", { class: "settings" }, el("label", {}, el("span", {}, "Tokens"), tokens), el("label", {}, el("span", {}, "Runs"), runs), el("span", { class: "buttons" }, measure, stop)),
  });
  let shownKey = null;
  const key = () => JSON.stringify([context.input()]);

  function showIdle() {
    shownKey = key();
    card.renderer()?.destroy?.();
    card.body.replaceChildren(el("p", { class: "quiet" }, "The measurement takes a few seconds. Press Measure to start."));
    card.root.dataset.state = "waiting";
  }

  function load() {
    const settings = { tokens: Number(tokens.value), runs: Number(runs.value) };
    const request = { ...context.input(), function: "measure_generation_speed", settings };
    shownKey = key();
    return context.track(
      card.fill(async () => {
        const response = await requests.run((signal) => fetchArrays(request, signal));
        const runsTable = { title: "Runs", columns: ["run", "seconds, cached", "seconds, recomputed"], rows: response.seconds.cached.map((value, i) => [i + 1, value, response.seconds.recomputed[i]]) };
        const tables = [{ title: "Tokens per second", columns: ["method", "tokens per second"], rows: [["cached", response.cached], ["recomputed", response.recomputed]] }, runsTable, ...viewTables(response.curve)];
        return {
          caption: response.caption,
          python: pythonCall("generation_speed", "measure_generation_speed", request, settings),
          tables: () => tables,
          files: { csv: async () => tablesCsv(tables) },
          mount: (body) => paint(body, response),
        };
      }),
    );
  }

  function paint(body, response) {
    card.renderer()?.destroy?.();
    const max = Math.max(response.cached, response.recomputed);
    const bar = (name, value) =>
      el(
        "li",
        { class: "choice", data: { method: name, rate: value } },
        el("span", {}, name),
        el("span", { class: "bar-room" }, el("span", { class: "bar", style: { width: `${((100 * value) / max).toFixed(3)}%` } })),
        el("span", { class: "n" }, cellText(Number(value.toPrecision(3)))),
        el("span", { class: "n soft" }, "tokens / s"),
      );
    const container = el("div", {});
    body.replaceChildren(
      el("ol", { class: "choices" }, bar("cached", response.cached), bar("recomputed", response.recomputed)),
      container,
      el("p", { class: "quiet" }, `Both methods give the same result: the last logits differ by at most ${cellText(response.difference)}.`),
    );
    Object.assign(body.dataset, { ratio: response.ratio, tokens: response.tokens });
    return mountCurve(container, response.curve);
  }

  showIdle();
  return {
    root: card.root,
    update: () => (shownKey === key() ? undefined : (requests.cancel(), showIdle())),
    destroy: () => (requests.cancel(), card.renderer()?.destroy?.()),
  };
}
