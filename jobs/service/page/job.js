// One job: its state, stages, log, results, and what can be done with it.

import { ask, events, jobPath, json } from "./api.js";
import { arrange, confirmed, h, moment, say, setState, show } from "./dom.js";
import { Feed } from "./feed.js";
import { clock, duration, yaml } from "./format.js";
import { jobAddress, takenText } from "./jobs.js";
import { Log } from "./log.js";
import { artifactsOf, resultsOf } from "./results.js";
import { Stages } from "./stages.js";

const LIVE = ["queued", "running"];
const RETRIABLE = ["failed", "cancelled", "timed_out", "lost"];

export class JobPage {
  #id;
  #announce;
  #job = null;
  #last = null;
  #stopping = false;
  #drawing = null;
  #resultsOf = null;
  #stages = new Stages();
  #log;

  constructor(id, announce) {
    this.#id = id;
    this.#announce = announce;
    this.title = id;
    this.#log = new Log(id);
    const wanted = () => this.#job === null || this.#live;
    const refused = (error) => this.onrefusal(error);
    this.feeds = [
      new Feed((signal, alive) => this.#readEvents(signal, alive), wanted, refused),
      new Feed((signal, alive) => this.#log.read(signal, alive), wanted, refused),
    ];
    this.#build();
  }

  get #live() {
    return LIVE.includes(this.#job?.state);
  }

  #build() {
    this.heading = h("h1", {}, this.#id);
    this.state = h("span", { class: "state" });
    this.reason = h("span", { class: "reason" });
    this.cancel = h("button", { type: "button", hidden: true, onclick: () => this.#cancel() }, "Cancel");
    this.retry = h("button", { type: "button", hidden: true, onclick: () => this.#retry() }, "Retry");
    this.facts = h("dl", { class: "facts" });
    this.life = h("ol", { class: "life" });
    this.spec = h("pre", { class: "spec", tabindex: "0", "aria-label": "Spec" });
    this.results = h("div", { class: "results" });
    this.element = h("article", { class: "job", hidden: true },
      h("p", { class: "path" }, h("a", { href: "#/jobs" }, "All jobs")),
      h("div", { class: "bar" }, this.heading, h("div", { class: "buttons" }, this.cancel, this.retry)),
      h("p", { class: "standing" }, this.state, this.reason),
      h("div", { class: "columns" },
        h("div", { class: "main-column" }, this.#stages.element, this.results, this.#log.element),
        h("aside", { "aria-label": "About this job" },
          h("section", { "aria-labelledby": "facts-title" }, h("h2", { id: "facts-title" }, "Facts"), this.facts),
          h("section", { "aria-labelledby": "life-title" }, h("h2", { id: "life-title" }, "Life"), this.life),
          h("details", { open: true }, h("summary", {}, h("h2", {}, "Spec")), this.spec))));
  }

  onrefusal() {}

  start() {
    // What was asked before nobody looked any more may be answered only now.
    if (document.hidden) return;
    for (const feed of this.feeds) feed.start();
  }

  stop() {
    this.pause();
  }

  /** Streams are closed while nobody looks: a browser has only a few connections to a service. */
  pause() {
    clearTimeout(this.#drawing);
    this.#drawing = null;
    for (const feed of this.feeds) feed.stop();
  }

  async tick() {
    this.#take(await json(jobPath(this.#id)));
  }

  #take(job) {
    const before = this.#job;
    this.#job = job;
    this.title = job.name;
    this.element.hidden = false;
    this.#draw();
    if (before && before.state !== job.state) this.#announce(`${job.name}: ${job.state.replace("_", " ")}. ${job.reason}`);
    if (this.#live) {
      this.#resultsOf = null;
      show(this.results);
      this.start();
    } else if (job.attempt > 0 && this.#resultsOf !== job.attempt) this.#loadResults(job).catch((error) => this.onrefusal(error));
  }

  async #readEvents(signal, alive) {
    for await (const { id, event, data } of events(this.#id, this.#last, signal)) {
      if (id !== undefined) this.#last = id;
      alive();
      if (event === "stage") this.#stages.add(data);
      if (event === "state") this.tick().catch((error) => this.onrefusal(error));
      if (event === "end") this.tick().catch((error) => this.onrefusal(error));
      this.#drawing ??= setTimeout(() => { this.#drawing = null; this.clock(); }, 50);
    }
  }

  /** A job that failed may have a manifest, too: whether it has is known by its files. */
  async #loadResults(job) {
    this.#resultsOf = job.attempt;
    try {
      const { artifacts } = await json(jobPath(this.#id, "artifacts"));
      if (!artifacts.length) return;
      const told = artifacts.some(({ kind, name }) => kind === "file" && name === "manifest.json");
      const manifest = told ? await json(jobPath(this.#id, "manifest")) : {};
      show(this.results, ...resultsOf(manifest), artifactsOf(this.#id, artifacts));
    } catch (error) {
      if (error.status !== 404) {
        this.#resultsOf = null;
        throw error;
      }
    }
  }

  #draw() {
    const job = this.#job;
    say(this.heading, job.name);
    setState(this.state, job.state);
    say(this.reason, job.reason);
    this.#stopping &&= job.state === "running";
    this.cancel.hidden = !this.#live;
    this.cancel.disabled = this.#stopping;
    say(this.cancel, this.#stopping ? "Stopping" : "Cancel");
    this.retry.hidden = !RETRIABLE.includes(job.state);
    this.#stages.ended = this.#log.ended = !this.#live;
    arrange(this.facts, factsOf(job), ([name]) => name, makeFact, updateFact);
    arrange(this.life, job.transitions, (step) => `${step.time} ${step.after}`, makeStep, updateStep);
    say(this.spec, yaml(job.spec));
    this.clock();
  }

  clock() {
    this.#stages.draw();
    if (this.#job === null) return;
    arrange(this.facts, factsOf(this.#job), ([name]) => name, makeFact, updateFact);
  }

  async #cancel() {
    const { name } = this.#job;
    const answer = await confirmed({
      title: `Cancel ${name}?`,
      text: "What it has not published is lost; stages that are done are kept for another attempt.",
      action: "Cancel the job", keep: "Let it go on",
    });
    if (answer === null) return;
    // It is stopped a little later when it runs.
    this.#stopping = true;
    await this.#change("cancel");
  }

  async #retry() {
    const answer = await confirmed({
      title: `Try ${this.#job.name} again?`,
      text: "It is queued again, and goes on with the stages that are done.",
      option: "Do all stages again", action: "Try again", keep: "Leave it",
    });
    if (answer !== null) await this.#change("retry", { fresh: answer });
  }

  async #change(action, body) {
    try {
      await ask(jobPath(this.#id, action), { method: "POST", body });
    } catch (error) {
      this.#stopping = false;
      this.onrefusal(error);
    }
    await this.tick().catch((error) => this.onrefusal(error));
    this.heading.tabIndex = -1;
    this.heading.focus();
  }
}

/** Pairs of a name and what it is: a text, or an ISO time as `{time}`, or ids of jobs as `{jobs}`. */
function factsOf(job) {
  return [
    ["Id", job.id],
    ["User", job.user],
    ["Priority", String(job.priority)],
    ["Attempt", job.attempt ? String(job.attempt) : null],
    ["Retries", String(job.retries)],
    ["Submitted", { time: job.created }],
    ["Started", job.started && { time: job.started }],
    ["Finished", job.finished && { time: job.finished }],
    ["Duration", takenText(job)],
    ["Next attempt", job.not_before && !job.finished && { time: job.not_before }],
    ["Timeout", job.timeout && duration(job.timeout)],
    ["After", job.after.length ? { jobs: job.after } : null],
    ["Schedule", job.schedule],
    ["Submission", job.submission_id],
    ["Run", job.run !== job.id ? job.run : null],
    ["Artifacts", job.root],
  ].filter(([, value]) => value);
}

function makeFact([name]) {
  return h("div", {}, h("dt", {}, name), h("dd"));
}

function updateFact(element, [, value]) {
  const place = element.lastChild;
  if (typeof value === "string") say(place, value);
  else if (place.dataset.shown !== JSON.stringify(value)) {
    place.dataset.shown = JSON.stringify(value);
    if (value.time) show(place, moment(value.time, clock(value.time)));
    else show(place, ...value.jobs.map((id) => h("a", { href: jobAddress(id) }, id)));
  }
}

function makeStep(step) {
  return h("li", {}, moment(step.time, clock(step.time)), h("span"), h("span", { class: "reason" }));
}

function updateStep(element, step) {
  setState(element.children[1], step.after);
  say(element.children[2], step.reason);
}
