// The stages of a job as its events tell them, one attempt at a time.

import { now } from "./api.js";
import { arrange, h, say, setState } from "./dom.js";
import { bytes, count, duration, instant, whole } from "./format.js";

export class Stages {
  #attempts = new Map();
  #shown = null;
  #chosen = false;
  #ended = false;

  constructor() {
    this.choice = h("select", { id: "attempt", onchange: () => this.#choose() });
    this.chooser = h("span", { class: "chooser", hidden: true },
      h("label", { for: "attempt" }, "Attempt "), this.choice);
    this.list = h("ol", { class: "stages" });
    this.empty = h("p", { class: "empty" }, "No stage has begun.");
    this.element = h("section", { "aria-labelledby": "stages-title" },
      h("div", { class: "bar" }, h("h2", { id: "stages-title" }, "Stages"), this.chooser), this.list, this.empty);
  }

  /** Takes in what a stage said. */
  add(event) {
    const attempt = Number(event.attempt ?? 1);
    if (!this.#attempts.has(attempt)) this.#attempts.set(attempt, new Map());
    const stages = this.#attempts.get(attempt);
    const name = String(event.stage);
    const stage = stages.get(name) ?? { name, state: "running", began: event.time };
    stages.set(name, stage);
    if (event.event === "started") Object.assign(stage, { state: "running", began: event.time, done: null, total: null });
    else if (event.event === "progress") Object.assign(stage, { done: event.done, total: event.total, progress: event });
    else if (["finished", "cached", "failed"].includes(event.event)) {
      Object.assign(stage, { state: event.event, ended: event.time, end: event });
    }
    if (!this.#chosen) this.#shown = Math.max(...this.#attempts.keys());
  }

  /** Whether the job has ended, so that nothing runs any more. */
  set ended(value) {
    this.#ended = value;
  }

  #choose() {
    this.#shown = Number(this.choice.value);
    this.#chosen = this.#shown !== Math.max(...this.#attempts.keys());
    this.draw();
  }

  draw() {
    const attempts = [...this.#attempts.keys()].sort((a, b) => a - b);
    arrange(this.choice, attempts, String, (n) => h("option", { value: n }, String(n)), () => {});
    if (this.#shown !== null) this.choice.value = String(this.#shown);
    this.chooser.hidden = attempts.length < 2;
    const stages = [...(this.#attempts.get(this.#shown)?.values() ?? [])];
    arrange(this.list, stages, (stage) => stage.name, makeStage, (element, stage) => this.#update(element, stage));
    this.empty.hidden = stages.length > 0;
  }

  #update(element, stage) {
    const [mark, name, bar, note, time] = element.children;
    const newest = this.#shown === Math.max(...this.#attempts.keys());
    const stopped = stage.state === "running" && (this.#ended || !newest);
    const state = stopped ? "stopped" : stage.state;
    setState(mark, state);
    say(name, stage.name);
    element.className = `stage stage-${state}`;
    bar.hidden = state !== "running";
    bar.setAttribute("aria-label", `Progress of ${stage.name}`);
    if (stage.total) {
      bar.max = stage.total;
      bar.value = stage.done;
    } else bar.removeAttribute("value");
    say(note, noteOf(stage, state));
    if (note.title !== note.textContent) note.title = note.textContent;
    say(time, timeOf(stage, state));
  }
}

function makeStage() {
  return h("li", {}, h("span"), h("span", { class: "stage-name" }), h("progress"),
    h("span", { class: "stage-note" }), h("span", { class: "stage-time" }));
}

function noteOf(stage, state) {
  const { end, progress } = stage;
  if (state === "failed") return String(end.error ?? "");
  if (state === "running" || state === "stopped") return progress ? progressNote(progress) : "";
  if (stage.name === "cluster" && end.device) {
    return `${end.device === "cuda" ? "on GPUs" : "on the CPU"} (${end.device_reason})`;
  }
  const rows = progress?.rows ? `${count(progress.rows)} rows` : "";
  return [rows, end.peak_bytes ? `peak ${bytes(end.peak_bytes)}` : ""].filter(Boolean).join(", ");
}

function progressNote(event) {
  if (event.note) return String(event.note);
  const rows = event.rows === null || event.rows === undefined ? "" : `, ${count(event.rows)} rows`;
  return event.total ? `${count(event.done)} of ${count(event.total)} partitions${rows}` : `${count(event.done)} tables`;
}

function timeOf(stage, state) {
  if (state === "cached" || state === "stopped") return "";
  if (state === "running") return whole((now() - instant(stage.began)) / 1000);
  return duration(stage.end.wall_seconds ?? (instant(stage.ended) - instant(stage.began)) / 1000);
}
