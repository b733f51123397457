// Ask: questions to the studio's server. An answer that is no longer wanted is dropped, on both sides.

import { signal } from "./dom.js";

/** What went wrong, in a sentence for the reader. */
export class ApiError extends Error {}

/** An answer that came too late: something newer was asked. Nobody shows it. */
export class StaleResponse extends Error {}

const UNREACHABLE = "the studio does not answer; start it again with: clearstory studio";

/** Whether the server answered when it was last asked anything. */
export const serverReachable = signal(true);

function serverLost() {
  serverReachable.set(false);
  return new ApiError(UNREACHABLE);
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
  let sentence = `the studio answered ${response.status}`;
  try {
    sentence = (await response.json()).error ?? sentence;
  } catch (error) {
    if (error.name === "AbortError") throw new StaleResponse();
  }
  throw new ApiError(sentence);
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

/** A view, or what another path gives in its place, as the file that the library writes: svg, csv or html. */
export async function fetchFile(payload, format, path = "view") {
  return readBody(await request(`/api/${path}`, postInit({ ...payload, format }, undefined)), "text");
}

const TYPED_ARRAYS = { float32: Float32Array, uint8: Uint8Array, int32: Int32Array };

/** POST /api/numbers: {name: {shape, values}} of typed arrays, and plain data beside them. */
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
 * A line of questions in which only the newest counts: asking again aborts the one before, and an answer that comes
 * out of turn is thrown away as Stale.
 */
export function latestRequest() {
  let number = 0;
  let controller = null;
  return {
    async ask(question) {
      controller?.abort();
      controller = new AbortController();
      const own = ++number;
      const payload = await question(controller.signal);
      if (own !== number) throw new StaleResponse();
      return payload;
    },
    drop() {
      controller?.abort();
      number++;
    },
  };
}

/** Aborts what has taken so many milliseconds. */
function abortAfter(milliseconds) {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), milliseconds);
  return controller.signal;
}

/** Asks whether the server is there; `answers` says what came of it. */
export async function ping() {
  try {
    const response = await fetch("/health", { signal: abortAfter(4000) });
    await response.text(); // or the browser keeps the connection for it
    serverReachable.set(response.ok);
  } catch {
    serverReachable.set(false);
  }
}
