// Ask: questions to the studio's server. An answer that is no longer wanted is dropped, on both sides.

import { signal } from "./dom.js";

/** What went wrong, in a sentence for the reader. */
export class ApiError extends Error {}

/** An answer that came too late: something newer was asked. Nobody shows it. */
export class StaleResponse extends Error {}

const GONE = "the studio does not answer; start it again with: clearstory studio";

/** Whether the server answered when it was last asked anything. */
export const serverReachable = signal(true);

function lost() {
  serverReachable.set(false);
  return new ApiError(GONE);
}

async function fetched(path, init) {
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error.name === "AbortError") throw new StaleResponse();
    throw lost();
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

async function body(response, how) {
  try {
    return await response[how]();
  } catch (error) {
    throw error.name === "AbortError" ? new StaleResponse() : lost();
  }
}

const posted = (said, signal) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(said),
  signal,
});

/** GET /api/PATH?query as data. */
export async function getJson(path, query = {}, signal = undefined) {
  const behind = new URLSearchParams(query).toString();
  return body(await fetched(`/api/${path}${behind ? `?${behind}` : ""}`, { signal }), "json");
}

/** POST /api/PATH as data. */
export async function postJson(path, said, signal = undefined) {
  return body(await fetched(`/api/${path}`, posted(said, signal)), "json");
}

/** A view, or what another path gives in its place, as the file that the library writes: svg, csv or html. */
export async function fetchFile(said, format, path = "view") {
  return body(await fetched(`/api/${path}`, posted({ ...said, format }, undefined)), "text");
}

const KINDS = { float32: Float32Array, uint8: Uint8Array, int32: Int32Array };

/** POST /api/numbers: {name: {shape, values}} of typed arrays, and plain data beside them. */
export async function fetchArrays(said, signal = undefined) {
  const bytes = await body(await fetched("/api/numbers", posted(said, signal)), "arrayBuffer");
  const length = new DataView(bytes).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  const made = { ...header.plain };
  for (const { name, dtype, shape, at } of header.arrays) {
    const size = shape.reduce((a, b) => a * b, 1);
    made[name] = { shape, values: new KINDS[dtype](bytes, 4 + length + at, size) };
  }
  return made;
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
      const mine = ++number;
      const said = await question(controller.signal);
      if (mine !== number) throw new StaleResponse();
      return said;
    },
    drop() {
      controller?.abort();
      number++;
    },
  };
}

/** Aborts what has taken so many milliseconds. */
function timeout(milliseconds) {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), milliseconds);
  return controller.signal;
}

/** Asks whether the server is there; `answers` says what came of it. */
export async function ping() {
  try {
    const response = await fetch("/health", { signal: timeout(4000) });
    await response.text(); // or the browser keeps the connection for it
    serverReachable.set(response.ok);
  } catch {
    serverReachable.set(false);
  }
}
