// Train form: the settings of a training run as a form, with the names and help texts of the command line.

import { getJson, postJson, ApiError } from "../api.js";
import { el } from "../dom.js";

/** Settings at the top of the form; all others are under "All settings". */
const MAIN_SETTINGS = new Set(["text", "model", "tokenizer", "minutes", "cpu_seconds", "steps", "parameters", "out", "objective", "training.sample_steps"]);

/** A form that starts a run and calls onStarted(run). `ready` resolves when the form is shown. */
export function trainForm(context, onStarted) {
  const root = el("form", { class: "train", autocomplete: "off" });
  const problem = el("p", { class: "hint", role: "status", hidden: true });
  const otherFields = new Map(); // key -> () => value, for all other settings
  let formData = null;
  let preset = null;

  const ready = (async () => {
    try {
      formData = await getJson("train-form");
      paint();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      root.replaceChildren(el("p", { class: "hint" }, error.message));
    }
  })();

  function paint() {
    const help = Object.fromEntries(formData.settings.map((row) => [row.key, row.help]));
    const name = el("input", { name: "name", required: true, size: 14, placeholder: "book-1" });
    name.value = unusedName("run");
    const text = el("input", { name: "text", size: 26, list: "corpora", placeholder: "corpus:kjv, or a file or folder" });
    text.value = formData.corpora[0] ?? "";
    const model = el("select", { name: "model", onchange: () => selectPreset(model.value) });
    for (const [group, names] of groupPresets(formData.presets))
      model.append(el("optgroup", { label: group }, ...names.map((each) => el("option", { value: each, selected: each === "clear" }, each))));
    const tokenizer = el("input", { name: "tokenizer", size: 14, list: "tokenizers", placeholder: "default" });
    const parameters = el("input", { name: "parameters", size: 8, placeholder: "to fit the time budget" });
    const minutes = el("input", { name: "minutes", type: "number", min: 0, step: "any", value: "2" });
    const steps = el("input", { name: "steps", type: "number", min: 1, step: 1, placeholder: "by time budget" });
    steps.oninput = () => steps.value && (minutes.value = "");
    minutes.oninput = () => minutes.value && (steps.value = "");
    const samplesEvery = el("input", { name: "samples", type: "number", min: 0, step: 1, value: "50" });
    const otherSettings = el("div", { class: "others" });
    const searchInput = el("input", { type: "search", placeholder: "find a setting", "aria-label": "find a setting", oninput: () => filterFields(otherSettings, searchInput.value) });
    const details = el("details", {}, el("summary", {}, "All settings"), searchInput, otherSettings);
    root.replaceChildren(
      el("h2", {}, "Train a new model"),
      el(
        "div",
        { class: "fields" },
        labelled("Name", name, "folder of the run in runs/"),
        labelled("Text", text, help.text),
        labelled("Model", model, help.model),
        labelled("Tokenizer", tokenizer, help.tokenizer),
        labelled("Parameters", parameters, help.parameters),
        labelled("Minutes", minutes, help.minutes),
        labelled("Steps", steps, help.steps),
        labelled("Sample every … steps", samplesEvery, help["training.sample_steps"]),
        el("button", { type: "submit", class: "strong" }, "Start"),
      ),
      el("datalist", { id: "corpora" }, ...formData.corpora.map((each) => el("option", { value: each }))),
      el("datalist", { id: "tokenizers" }, ...formData.tokenizers.map((each) => el("option", { value: each }))),
      problem,
      details,
    );

    function selectPreset(value) {
      preset = formData.presets.find((each) => each.name === value);
      tokenizer.placeholder = preset?.tokenizer ?? "default";
      otherFields.clear();
      otherSettings.replaceChildren(...formData.settings.filter((row) => !MAIN_SETTINGS.has(row.key) && isOfPreset(row)).map(settingField));
      filterFields(otherSettings, searchInput.value);
    }

    selectPreset("clear");
    root.onsubmit = async (event) => {
      event.preventDefault();
      const settings = {
        text: text.value.trim() ? text.value.trim().split(/\s+/) : [], model: model.value,
        tokenizer: tokenizer.value.trim() || null, parameters: parameters.value.trim() || null,
        minutes: minutes.value ? Number(minutes.value) : null, steps: steps.value ? Number(steps.value) : null,
        "training.sample_steps": samplesEvery.value ? Number(samplesEvery.value) : null,
      };
      for (const [key, read] of otherFields) if (read() !== null) settings[key] = read();
      await startRun(name.value, settings);
      name.value = unusedName(name.value);
    };
  }

  async function startRun(name, settings) {
    try {
      const run = await context.track(postJson("runs", { name, settings }));
      problem.hidden = true;
      await onStarted(run);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      problem.textContent = error.message;
      problem.hidden = false;
    }
  }

  /** A name that no run uses yet. */
  function unusedName(base) {
    const usedNames = new Set(context.models().map((each) => each.name));
    const prefix = base.replace(/-\d+$/, "");
    let number = 1;
    while (usedNames.has(`runs/${prefix}-${number}`) || `${prefix}-${number}` === base) number++;
    return `${prefix}-${number}`;
  }

  /** Whether a setting applies to the selected preset: model settings differ by family. */
  const isOfPreset = (row) => !row.key.startsWith("model.") || (row.key.slice(6) in (preset?.settings ?? {}));

  function settingField(row) {
    const defaultValue = row.key.startsWith("model.") ? preset.settings[row.key.slice(6)] : row.default;
    const placeholder = defaultValue === null || defaultValue === undefined ? "default" : String(defaultValue);
    let input;
    if (row.kind === "choice" || row.kind === "boolean") {
      const choices = row.kind === "boolean" ? ["true", "false"] : row.choices;
      input = el("select", { name: row.key }, el("option", { value: "" }, `default (${placeholder})`), ...choices.map((each) => el("option", { value: each }, each)));
    } else input = el("input", { name: row.key, size: 12, placeholder });
    otherFields.set(row.key, () => {
      if (input.value === "") return null;
      return row.kind === "list" ? input.value.split(/[\s,]+/).filter(Boolean) : input.value;
    });
    return labelled(row.key, input, row.help);
  }

  return { root, ready };
}

const labelled = (title, input, help) => el("label", { class: "field", title: help ?? null, data: { key: title } }, el("span", {}, title), input, help ? el("small", {}, help) : null);

function filterFields(box, text) {
  for (const each of box.children) each.hidden = Boolean(text) && !each.textContent.toLowerCase().includes(text.toLowerCase());
}

function groupPresets(presets) {
  const groups = new Map();
  for (const each of presets) groups.set(each.group, [...(groups.get(each.group) ?? []), each.name]);
  return groups;
}
