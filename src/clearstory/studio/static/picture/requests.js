// Requests: what the picture asks the server for. A first pass reads a text; a later round only the row of the new token.

/** The most rows that are drawn; a longer text is grouped, or seen through a window. */
export const rowLimit = (width) => (width < 860 ? 14 : 20);

const listed = (text) => (text ? text.split(".").map(Number).filter(Number.isInteger) : []);

/** What the address says: the drawn tokens, the layer and head, the window of rows. */
export function readAddress(context) {
  const rows = listed(context.state.get("rows"));
  return {
    drawn: listed(context.state.get("drawn")),
    layer: context.state.number("layer"), head: context.state.number("head"),
    rows: rows.length === 2 && rows[0] < rows[1] ? rows : null,
  };
}

/** The sentence or, once tokens were drawn, the ids of all tokens. */
function input(context, drawn) {
  if (!drawn.length) return context.input();
  return { model: context.model(), token_ids: [...context.tokens().map((token) => token.id), ...drawn] };
}

/** The request for everything on the page. */
export function passRequest(context, { drawn, layer, head, rows }, limit) {
  const settings = { cells: limit };
  if (layer !== null) settings.layer = layer;
  if (head !== null) settings.head = head;
  // The prediction is that of the last row on the page.
  if (rows) Object.assign(settings, { rows, columns: rows, row: rows[1] - 1 });
  return { ...input(context, drawn), function: "walkthrough", settings };
}

/** The request for the row of the token that was drawn last, in the same layer and head. */
export function rowRequest(context, story, drawn, limit) {
  const count = story.tokens.length + 1;
  return { ...input(context, drawn), function: "walkthrough", settings: { cells: limit, layer: story.layer, head: story.head, rows: [count - 1, count] } };
}

/** Whether one more token has a row of its own beside those that are shown. */
export const fitsAnotherRow = (story, limit) => !story.grouped && story.n === story.tokens.length && story.n < limit;
