// Format: numbers, tokens, tables, CSV and Python literals as text, formatted as in the library's own renderings.

/** A table cell: four significant digits, a dash for null. */
export function cellText(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (value === 0) return "0"; // not -0
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size > 0 && size < 1e-4) return exponential(value, 3).replace(/e([+-])0*(\d)/, "e$1$2");
  return size < 1e4 ? trimZeros(value.toPrecision(4)) : exponential(value, 4);
}

function exponential(value, shortCount) {
  const text = value.toExponential(shortCount - 1);
  const [mantissa, power] = text.split("e");
  return `${trimZeros(mantissa)}e${power}`;
}

function trimZeros(text) {
  const plain = text.includes("e") ? String(Number(text)) : text;
  const axisLabel = plain.includes(".") ? plain.replace(/\.?0+$/, "") : plain;
  const [integerPart, fraction] = axisLabel.split(".");
  const grouped = integerPart.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}

/** An axis label. */
export function axisLabel(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  for (const [limit, unit, letter] of /** @type {[number, number, string][]} */ ([[1e9, 1e9, "G"], [1e6, 1e6, "M"], [1e4, 1e3, "k"]]))
    if (size >= limit) return `${Number((value / unit).toPrecision(3))}${letter}`;
  if (size < 1e-3) return value.toExponential(1).replace(".0e", "e");
  return size < 1000 ? String(Number(value.toPrecision(4))) : Math.round(value).toLocaleString("en-US");
}

/** A probability as a percentage: 46%, 0.04%. */
export function percent(p) {
  return p >= 0.1 ? `${Math.round(100 * p)}%` : `${Number((100 * p).toPrecision(2))}%`;
}

/** A count with a unit: 1,234,567 is 1.23 M. */
export function shortCount(value) {
  if (value === null || value === undefined) return "size unknown";
  for (const [limit, letter] of /** @type {[number, string][]} */ ([[1e9, "B"], [1e6, "M"], [1e3, "k"]]))
    if (value >= limit) return `${Number((value / limit).toPrecision(3))} ${letter}`;
  return String(value);
}

/** Seconds as 0:07, 12:30, 3:05:00. */
export function duration(seconds) {
  const all = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  const twoDigits = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${twoDigits(m)}:${twoDigits(s)}` : `${m}:${twoDigits(s)}`;
}

/** How long ago a time in seconds since 1970 is. */
export function timeAgo(time) {
  if (!time) return "";
  const seconds = Date.now() / 1000 - time;
  for (const [limit, word] of /** @type {[number, string][]} */ ([[86_400, "day"], [3600, "hour"], [60, "minute"]]))
    if (seconds >= limit) {
      const n = Math.floor(seconds / limit);
      return `${n} ${word}${n === 1 ? "" : "s"} ago`;
    }
  return "just now";
}

/** Text with visible spaces, newlines and tabs. */
export function visibleWhitespace(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
}

/** The matches of a pattern, each with its characters [start, stop); the server counts Unicode code points, as Python does. */
export function splitText(text, pattern) {
  return [...text.matchAll(pattern)].map((match) => {
    const start = [...text.slice(0, match.index)].length;
    return { word: match[0], start, stop: start + [...match[0]].length };
  });
}

/** A value as a Python literal. */
export function pythonLiteral(value) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `(${value.map(pythonLiteral).join(", ")}${value.length === 1 ? "," : ""})`;
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

/** The data of a view as tables {title, columns, rows}: one, or one per panel of a report. */
export function viewTables(view) {
  if (view.kind === "table") return [{ title: view.title, columns: view.columns, rows: view.rows }];
  if (view.kind === "curve") {
    const rows = view.lines.flatMap((line) => line.x.map((x, i) => [line.name, x, line.y[i]]));
    return [{ title: view.title, columns: ["line", view.x_label, view.y_label], rows }];
  }
  if (view.kind === "grid") {
    const rows = view.row_labels.map((label, i) => [label, ...view.values[i]]);
    return [{ title: view.title, columns: ["", ...view.column_labels], rows }];
  }
  if (view.kind === "highlighted_text") {
    const blank = view.columns.map(() => null);
    const rows = view.spans.map((each) => [each.text, each.value, ...(each.cells.length ? each.cells : blank), each.note]);
    return [{ title: view.title, columns: ["text", view.unit || "value", ...view.columns, "note"], rows }];
  }
  if (view.kind === "tile_grid") {
    const rows = view.tiles.flatMap((row, i) => row.map((tile, k) => [view.row_labels[i], view.column_labels[k], tile.category, tile.score]));
    return [{ title: view.title, columns: ["row", "column", "category", "score"], rows }];
  }
  if (view.kind === "tree") {
    const rows = view.nodes.map((each, index) => [index, each.parent, each.text, each.value, each.status]);
    return [{ title: view.title, columns: ["node", "parent", "text", view.unit || "value", "status"], rows }];
  }
  if (view.kind === "map") {
    const rows = view.points.map((each) => [each.label, each.x, each.y, view.groups[each.group] ?? null, each.note]);
    return [{ title: view.title, columns: ["point", view.x_label, view.y_label, "group", "note"], rows }];
  }
  if (view.kind === "report") return view.panels.flatMap(viewTables);
  return [];
}

/** Rows as CSV. */
export function toCsv(columns, rows) {
  const cell = (each) => {
    const text = each === null || each === undefined ? "" : String(each);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

/** The title of a view before it is drawn: "logit-lens" is Logit lens. */
export function viewTitle(name) {
  const words = name.replaceAll("-", " ").replace(/\bqk\b/, "QK");
  return words[0].toUpperCase() + words.slice(1);
}

const PROMPT_FIELDS = ["raw", "system", "special_tokens"];

/** The Python keywords of the request fields that say how a text becomes a prompt: ", raw=True". */
export function promptKeywords(request) {
  return PROMPT_FIELDS.filter((name) => name in request).map((name) => `, ${name}=${pythonLiteral(request[name])}`).join("");
}

/** The same as a Python expression, PromptOptions(raw=True); empty for the defaults. */
export function promptOptions(request) {
  const keywords = promptKeywords(request).slice(2).replace("special_tokens=", "add_special_tokens=");
  return keywords && `PromptOptions(${keywords})`;
}

/** The same as a Python argument, and the line that imports it. */
export const promptArgument = (request) => promptOptions(request) && `, prompt=${promptOptions(request)}`;
export const promptImport = (request) => promptOptions(request) && "from clearstory.models.prompts import PromptOptions\n";

/** Python code that opens a model and encodes a text as the model reads it: `opened` and `prompt`. */
export function promptSnippet({ model, text, ...request }) {
  const options = promptOptions(request);
  return `import clearstory\nfrom clearstory.models.prompts import ${options ? "PromptOptions, " : ""}encode_prompt\n\nopened = clearstory.open(${pythonLiteral(model)})\nprompt = encode_prompt(opened.model, opened.tokenizer, ${pythonLiteral(text)}${options && `, ${options}`})\n`;
}

/** Python code that calls a function of the studio, to be run in its folder. */
export function pythonCall(module, name, { model, text, ...request }, settings) {
  const keywords = Object.entries(settings).map(([key, value]) => `, ${key}=${pythonLiteral(value)}`);
  return `import clearstory\n${promptImport(request)}from clearstory.studio.${module} import ${name}\n\nopened = clearstory.open(${pythonLiteral(model)})\nresult = ${name}(opened.model, opened.tokenizer, ${pythonLiteral(text)}${keywords.join("")}${promptArgument(request)})\n`;
}
