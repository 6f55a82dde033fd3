// What the page says to the service: JSON requests, a stream of events and a stream of bytes.

const KEY = "treadle.token";
let skew = 0;

/** The answer says no: `status` is HTTP's, 0 when there was no answer; `wait` says in how many seconds to ask again. */
export class Refusal extends Error {
  constructor(status, message, wait = 0) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** Milliseconds since 1970 by the service's clock. */
export function now() {
  return Date.now() + skew;
}

/** The path of something of a job. */
export function jobPath(id, ...parts) {
  return ["v1/jobs", encodeURIComponent(id), ...parts].join("/");
}

/** A response that is fine. Raises Refusal for any other, and for none. */
export async function ask(path, { method = "GET", body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (token.get()) sent.Authorization = `Bearer ${token.get()}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let response;
  try {
    const content = body === undefined ? undefined : JSON.stringify(body);
    response = await fetch(path, { method, body: content, headers: sent, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The service does not answer.");
  }
  follow(response);
  if (!response.ok) throw await refusal(response);
  return response;
}

// The header has whole seconds, so that a small difference says nothing.
function follow(response) {
  const told = Date.parse(response.headers.get("Date") ?? "");
  if (!Number.isNaN(told)) skew = Math.abs(told - Date.now()) > 2000 ? told - Date.now() : 0;
}

async function refusal(response) {
  const wait = Number(response.headers.get("Retry-After")) || 0;
  let message = `The service answers ${response.status} ${response.statusText}`.trim();
  try {
    const problem = await response.json();
    message = problem.detail || problem.title || message;
  } catch {
    // It is no document of the service's: the status has to do.
  }
  return new Refusal(response.status, String(message), wait);
}

export async function json(path, options) {
  return parsed(await (await ask(path, options)).text());
}

/** The value of a JSON text. Python also writes NaN and infinities, which JSON lacks: they are null. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    const plain = /"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b/g;
    return JSON.parse(text.replace(plain, (part) => (part.startsWith('"') ? part : "null")));
  }
}

async function* chunks(response) {
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The bytes of a log from an offset on, as they are written. */
export async function* logBytes(id, offset, signal) {
  yield* chunks(await ask(`${jobPath(id, "logs")}?offset=${offset}&follow=true`, { signal }));
}

/**
 * The events of a job after the one with number `last`, as `{id, event, data}`. Read by fetch, for EventSource
 * can send no token.
 */
export async function* events(id, last, signal) {
  const headers = { Accept: "text/event-stream" };
  if (last) headers["Last-Event-ID"] = last;
  const response = await ask(`${jobPath(id, "events")}?follow=true`, { headers, signal });
  const decoder = new TextDecoder();
  let rest = "";
  let current = {};
  for await (const chunk of chunks(response)) {
    rest += decoder.decode(chunk, { stream: true });
    const lines = rest.split(/\r\n|\n|\r(?=.)/s);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (current.data !== undefined) yield { id: current.id, event: current.event, data: parsed(current.data) };
        current = {};
      } else {
        const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
        if (field === "data") current.data = current.data === undefined ? value : `${current.data}\n${value}`;
        else if (field !== "") current[field] = value;
      }
    }
  }
}

/** For clicks on links to files. With a token the page has to fetch the file, for a link sends none. */
export async function download(click) {
  if (!token.get()) return;
  click.preventDefault();
  const link = document.createElement("a");
  link.download = click.currentTarget.download;
  link.href = URL.createObjectURL(await (await ask(click.currentTarget.href)).blob());
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
