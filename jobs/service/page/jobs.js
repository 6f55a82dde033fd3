// The list of jobs: filters, a table that is kept up to date, and pages of it.

import { ask, json, now } from "./api.js";
import { arrange, h, head, moment, say, setState, show, stateMark } from "./dom.js";
import { clock, count, duration, instant, plural, whole } from "./format.js";

export const STATES = ["queued", "running", "succeeded", "failed", "cancelled", "timed_out", "lost"];
const LIMIT = 50;
const COLUMNS = [
  { name: "State", kind: "c-state" },
  { name: "Name", kind: "c-name" },
  { name: "Id", kind: "c-id" },
  { name: "User", kind: "c-user" },
  { name: "Priority", kind: "c-priority number" },
  { name: "Attempt", kind: "c-attempt number" },
  { name: "Age", kind: "c-age number" },
  { name: "Duration", kind: "c-duration number" },
  { name: "Reason", kind: "c-reason" },
];

/** The address of a job's page. */
export function jobAddress(id) {
  return `#/jobs/${encodeURIComponent(id)}`;
}

/** How many seconds the newest attempt has taken or took; null before the first. */
export function taken(job) {
  if (!job.started) return null;
  if (job.state === "queued") return null;
  return ((job.finished ? instant(job.finished) : now()) - instant(job.started)) / 1000;
}

export function takenText(job) {
  const seconds = taken(job);
  return job.finished ? duration(seconds) : seconds === null ? "" : whole(seconds);
}

export class JobsPage {
  title = "Jobs";
  #announce;
  #filter = { states: new Set(), name: "", cursor: null };
  #newer = [];
  #next = null;
  #jobs = [];
  #names = new Set();
  #seen = new Map();
  #asked = 0;

  constructor(query, announce) {
    this.#announce = announce;
    this.#build();
    this.route(query);
  }

  #build() {
    this.boxes = STATES.map((state) => h("input", { type: "checkbox", value: state, onchange: () => this.#changed() }));
    this.tallies = new Map(STATES.map((state) => [state, h("span", { class: "tally" })]));
    const chips = this.boxes.map((box) =>
      h("label", { class: "chip" }, box, stateMark(box.value), this.tallies.get(box.value)));
    this.known = h("datalist", { id: "names" });
    this.name = h("input", {
      type: "search", id: "filter-name", list: "names", autocomplete: "off", spellcheck: "false",
      placeholder: "all names",
      oninput: () => { clearTimeout(this.waiting); this.waiting = setTimeout(() => this.#changed(), 250); },
    });
    this.counts = h("p", { class: "counts" });
    this.body = h("tbody", { role: "rowgroup" });
    this.table = h("table", { role: "table", class: "jobs", "aria-label": "Jobs" }, head(COLUMNS), this.body);
    this.empty = h("p", { class: "empty", hidden: true });
    this.back = h("button", { type: "button", onclick: () => this.#turn(this.#newer.pop() ?? null) }, "Newer");
    this.onward = h("button", { type: "button", onclick: () => this.#older() }, "Older");
    this.pager = h("nav", { class: "pager", "aria-label": "Pages" }, this.back, this.onward);
    this.element = h("section", { "aria-labelledby": "jobs-title" },
      h("div", { class: "bar" }, h("h1", { id: "jobs-title" }, "Jobs"), this.counts),
      h("form", { class: "filters", onsubmit: (event) => event.preventDefault() },
        h("fieldset", {}, h("legend", { class: "unseen" }, "State"), ...chips),
        h("label", { class: "unseen", for: "filter-name" }, "Name"), this.name, this.known),
      this.table, this.empty, this.pager);
  }

  /** Takes the filter from the address. */
  route(query) {
    this.#filter = {
      states: new Set(query.getAll("state").filter((state) => STATES.includes(state))),
      name: query.get("name") ?? "",
      cursor: query.get("cursor"),
    };
    for (const box of this.boxes) box.checked = this.#filter.states.has(box.value);
    if (this.name.value.trim() !== this.#filter.name) this.name.value = this.#filter.name;
  }

  #changed() {
    this.#filter.states = new Set(this.boxes.filter((box) => box.checked).map((box) => box.value));
    this.#filter.name = this.name.value.trim();
    this.#newer = [];
    this.#turn(null);
  }

  #older() {
    this.#newer.push(this.#filter.cursor);
    this.#turn(this.#next);
  }

  #turn(cursor) {
    this.#filter.cursor = cursor;
    this.#seen.clear();
    history.replaceState(null, "", `#/jobs${this.#query().size ? `?${this.#query()}` : ""}`);
    this.tick().catch((error) => this.onrefusal(error));
  }

  #query() {
    const { states, name, cursor } = this.#filter;
    const query = new URLSearchParams([...states].map((state) => ["state", state]));
    if (name) query.set("name", name);
    if (cursor) query.set("cursor", cursor);
    return query;
  }

  onrefusal() {}

  start() {}

  stop() {
    clearTimeout(this.waiting);
  }

  pause() {}

  async tick() {
    this.#asked += 1;
    const asked = this.#asked;
    const query = this.#query();
    query.set("limit", LIMIT);
    const [page, tallies] = await Promise.all([json(`v1/jobs?${query}`), inEachState()]);
    // An answer to an older question comes too late.
    if (asked !== this.#asked) return;
    this.#jobs = page.jobs;
    this.#next = page.next;
    this.#report();
    this.#draw(tallies);
  }

  #draw(tallies) {
    arrange(this.body, this.#jobs, (job) => job.id, makeRow, updateRow);
    const filtered = this.#filter.states.size > 0 || this.#filter.name !== "";
    for (const [state, element] of this.tallies) say(element, count(tallies.get(state)));
    const all = [...tallies.values()].reduce((sum, tally) => sum + tally, 0);
    say(this.counts, `${plural(all, "job", "jobs")}, ${count(this.#jobs.length)} shown`);
    for (const { name } of this.#jobs) this.#names.add(name);
    arrange(this.known, [...this.#names].sort(), String, (name) => h("option", { value: name }), () => {});
    this.table.hidden = this.#jobs.length === 0;
    this.empty.hidden = this.#jobs.length > 0;
    say(this.empty, filtered ? "No job fits the filter." : "There is no job yet.");
    this.back.disabled = this.#filter.cursor === null;
    this.onward.disabled = this.#next === null;
    this.pager.hidden = this.back.disabled && this.onward.disabled;
  }

  /** Says which of the jobs that were seen before have changed. */
  #report() {
    const changed = this.#jobs.filter((job) => this.#seen.has(job.id) && this.#seen.get(job.id) !== job.state);
    this.#seen = new Map(this.#jobs.map((job) => [job.id, job.state]));
    if (changed.length > 3) this.#announce(`${changed.length} jobs have changed`);
    else if (changed.length) this.#announce(changed.map((job) => `${job.name}: ${job.state.replace("_", " ")}`).join("; "));
  }

  clock() {
    for (const job of this.#jobs) {
      const row = [...this.body.children].find((element) => element.dataset.key === job.id);
      if (row) updateTimes(row, job);
    }
  }
}

/** How many jobs are in each state, by the service's metrics. */
async function inEachState() {
  const text = await (await ask("metrics")).text();
  const lines = text.matchAll(/^treadle_jobs\{state="([a-z_]+)"\} (\S+)$/gm);
  return new Map([...lines].map(([, state, tally]) => [state, Number(tally)]));
}

function makeRow(job) {
  const cells = COLUMNS.map(({ kind }) => h("td", { role: "cell", class: kind }));
  show(cells[0], stateMark(job.state));
  show(cells[1], h("a", { href: jobAddress(job.id) }));
  return h("tr", { role: "row" }, ...cells);
}

function updateRow(row, job) {
  const [state, name, id, user, priority, attempt, , , reason] = row.children;
  setState(state.firstChild, job.state);
  say(name.firstChild, job.name);
  say(id, job.id);
  say(user, job.user);
  say(priority, String(job.priority));
  say(attempt, job.attempt ? String(job.attempt) : "");
  say(reason, job.reason);
  if (reason.title !== job.reason) reason.title = job.reason;
  updateTimes(row, job);
}

function updateTimes(row, job) {
  const age = row.querySelector(".c-age");
  if (age.dataset.created !== job.created) {
    age.dataset.created = job.created;
    show(age, moment(job.created, ""));
    age.firstChild.title = clock(job.created);
  }
  say(age.firstChild, whole((now() - instant(job.created)) / 1000));
  say(row.querySelector(".c-duration"), takenText(job));
}
