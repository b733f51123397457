// Speed: tokens per second with the model's memory kept and without it, measured by the server when it is asked for.

import { latestRequest, fetchArrays } from "../api.js";
import { makeCard, tablesCsv } from "../card.js";
import { mount as curve } from "../render/curve.js";
import { el } from "../dom.js";
import { cellText, viewTables, pythonCall } from "../format.js";

export function generationSpeedCard(context) {
  const asking = latestRequest();
  const tokens = el("input", { type: "number", min: 2, max: 128, step: 1, value: 16, name: "speed-tokens" });
  const runs = el("input", { type: "number", min: 1, max: 9, step: 1, value: 3, name: "speed-runs" });
  const measure = el("button", { type: "button", class: "strong", onclick: ask }, "Measure");
  const stop = el("button", { type: "button", onclick: () => (asking.drop(), hush()) }, "Stop");
  const card = makeCard({
    name: "speed",
    title: "With what is kept, and without",
    says: "The same tokens are written both ways, turn about: with the memory of what was read, and with all of it read anew for each token.",
    tools: el("div", { class: "settings" }, el("label", {}, el("span", {}, "Tokens"), tokens), el("label", {}, el("span", {}, "Runs"), runs), el("span", { class: "buttons" }, measure, stop)),
  });
  let of = null;
  const key = () => JSON.stringify([context.model(), context.text()]);

  function hush() {
    of = key();
    card.renderer()?.end?.();
    card.body.replaceChildren(el("p", { class: "quiet" }, "It takes this machine some seconds, so it begins when asked."));
    card.root.dataset.state = "waiting";
  }

  function ask() {
    const settings = { tokens: Number(tokens.value), runs: Number(runs.value) };
    const wanted = { model: context.model(), text: context.text(), what: "speed", settings };
    of = key();
    return context.track(
      card.fill(async () => {
        const said = await asking.ask((signal) => fetchArrays(wanted, signal));
        const each = { title: "Runs", columns: ["run", "seconds, kept", "seconds, read anew"], rows: said.seconds.kept.map((value, i) => [i + 1, value, said.seconds.anew[i]]) };
        const tables = [{ title: "Tokens per second", columns: ["way", "tokens per second"], rows: [["kept", said.kept], ["read anew", said.anew]] }, each, ...viewTables(said.curve)];
        return {
          caption: said.caption,
          python: pythonCall("speed", "speed", wanted, settings),
          tables: () => tables,
          files: { csv: async () => tablesCsv(tables) },
          mount: (body) => paint(body, said),
        };
      }),
    );
  }

  function paint(body, said) {
    card.renderer()?.end?.();
    const most = Math.max(said.kept, said.anew);
    const bar = (name, value) =>
      el(
        "li",
        { class: "choice", data: { way: name, rate: value } },
        el("span", {}, name),
        el("span", { class: "bar-room" }, el("span", { class: "bar", style: { width: `${((100 * value) / most).toFixed(3)}%` } })),
        el("span", { class: "n" }, cellText(Number(value.toPrecision(3)))),
        el("span", { class: "n soft" }, "tokens / s"),
      );
    const field = el("div", {});
    body.replaceChildren(
      el("ol", { class: "choices" }, bar("kept", said.kept), bar("read anew", said.anew)),
      field,
      el("p", { class: "quiet" }, `Both ways say the same: their last logits differ by at most ${cellText(said.difference)}.`),
    );
    Object.assign(body.dataset, { ratio: said.ratio, tokens: said.tokens });
    return curve(field, said.curve);
  }

  hush();
  return {
    root: card.root,
    update: () => (of === key() ? undefined : (asking.drop(), hush())),
    end: () => (asking.drop(), card.renderer()?.end?.()),
  };
}
