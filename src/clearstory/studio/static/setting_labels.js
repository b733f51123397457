// Setting labels: what the fields of a view's settings are called, with units.

const LABELS = {
  ablate: "Replace by",
  beam: "Beams",
  centre: "Subtract the mean vector",
  columns: "Token positions",
  compare_tokenizer: "Second tokenizer (its folder)",
  edit: "Interventions",
  gate: "Gate",
  head: "Head",
  heads: "Heads, as 5.3; 5.4",
  ids: "Token ids",
  layer: "Layer",
  layout: "Layout",
  mask: "Positions to mask",
  matrix: "Embedding matrix",
  max_token_id: "Frequent tokens only, ids up to",
  max_tokens: "Tokens to generate",
  metric: "Value shown",
  occurrence: "Occurrence of the word",
  other_occurrence: "Occurrence in the other sentence",
  other_text: "Other sentence",
  other_word: "Word in the other sentence",
  part: "Attention part",
  reduce: "Combine heads by",
  remove_components: "Principal components removed",
  seed: "Random seed",
  sentences: "Sentences read",
  sentences_file: "Files with example sentences",
  target: "Target text",
  temperature: "Temperature",
  top: "Number shown",
  word: "Word",
  words: "Tokens, separated by ;",
};

/** The label of a setting; a setting without one is shown by its name in words. */
export const settingLabel = (name) => LABELS[name] ?? name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");
