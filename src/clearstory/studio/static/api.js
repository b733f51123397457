// API: requests to the studio's server. Requests that are no longer needed are aborted in the browser and on the server.

import { signal } from "./dom.js";

/** An error response of the server; the message is a sentence for the user, `isHint` whether the user can act on it. */
export class ApiError extends Error {
  /** @param {string} message @param {number} [status] the HTTP status; none if the page itself found the error */
  constructor(message, status = 400) {
    super(message);
    this.isHint = status < 500;
  }
}

/** Thrown for a response that a newer request has replaced. It is ignored everywhere. */
export class StaleResponse extends Error {}

const UNREACHABLE = "the studio's server does not respond; start it again with: clearstory studio";

/** Whether the last request reached the server. */
export const serverReachable = signal(true);

function serverLost() {
  serverReachable.set(false);
  return new ApiError(UNREACHABLE, 503);
}

async function request(path, init) {
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error.name === "AbortError") throw new StaleResponse();
    throw serverLost();
  }
  if (response.ok) return response;
  let sentence = `the server responded with status ${response.status}`;
  try {
    sentence = (await response.json()).error ?? sentence;
  } catch (error) {
    if (error.name === "AbortError") throw new StaleResponse();
  }
  throw new ApiError(sentence, response.status);
}

async function readBody(response, method) {
  try {
    return await response[method]();
  } catch (error) {
    throw error.name === "AbortError" ? new StaleResponse() : serverLost();
  }
}

const postInit = (payload, signal) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(payload),
  signal,
});

/** GET /api/PATH?query as data. */
export async function getJson(path, query = {}, signal = undefined) {
  const search = new URLSearchParams(query).toString();
  return readBody(await request(`/api/${path}${search ? `?${search}` : ""}`, { signal }), "json");
}

/** POST /api/PATH as data. */
export async function postJson(path, payload, signal = undefined) {
  return readBody(await request(`/api/${path}`, postInit(payload, signal)), "json");
}

/** A view, or the result of another path, as the text of a file: svg, csv or html. */
export async function fetchFile(payload, format, path = "view") {
  return readBody(await request(`/api/${path}`, postInit({ ...payload, format }, undefined)), "text");
}

const TYPED_ARRAYS = { float32: Float32Array, uint8: Uint8Array, int32: Int32Array };

/** POST /api/arrays: typed arrays as {name: {shape, values}}, and plain data by name. */
export async function fetchArrays(payload, signal = undefined) {
  const bytes = await readBody(await request("/api/arrays", postInit(payload, signal)), "arrayBuffer");
  const length = new DataView(bytes).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  const result = { ...header.plain };
  for (const { name, dtype, shape, at } of header.arrays) {
    const size = shape.reduce((a, b) => a * b, 1);
    result[name] = { shape, values: new TYPED_ARRAYS[dtype](bytes, 4 + length + at, size) };
  }
  return result;
}

/**
 * A sequence of requests of which only the latest counts: a new one aborts the one before, whose response is dropped with
 * StaleResponse.
 */
export function latestRequest() {
  let number = 0;
  let controller = null;
  return {
    async run(send) {
      controller?.abort();
      controller = new AbortController();
      const own = ++number;
      const result = await send(controller.signal);
      if (own !== number) throw new StaleResponse();
      return result;
    },
    cancel() {
      controller?.abort();
      number++;
    },
  };
}

/** A signal that aborts after some milliseconds. */
function abortAfter(milliseconds) {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), milliseconds);
  return controller.signal;
}

/** Checks whether the server responds, and updates `serverReachable`. */
export async function ping() {
  try {
    const response = await fetch("/health", { signal: abortAfter(4000) });
    await response.text(); // an unread body keeps the connection open
    serverReachable.set(response.ok);
  } catch {
    serverReachable.set(false);
  }
}
