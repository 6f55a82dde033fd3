// The page as a whole: which view is shown, the cluster's line, the token, and when to look again.

import { json, token } from "./api.js";
import { h, outward, say, show } from "./dom.js";
import { bytes, count, plural } from "./format.js";
import { JobPage } from "./job.js";
import { JobsPage } from "./jobs.js";

const LOOK = 2;
const LOOK_AT_CLUSTER = 6;
const byId = (id) => document.getElementById(id);
const main = byId("main");
const notice = byId("notice");
const form = byId("token");
let view = null;
let seconds = 0;
let waitUntil = 0;
let toldUntil = 0;
let looking = false;

function announce(text) {
  say(byId("announcer"), text);
}

/** Shows a notice for some seconds at least; an empty one takes away one whose time is over. */
function tell(text, seconds = 0) {
  if (text === "" && Date.now() < toldUntil) return;
  toldUntil = Date.now() + seconds * 1000;
  notice.hidden = text === "";
  say(notice, text);
}

/** What to do about an error: ask for a token, wait, or say it. */
function refused(error) {
  if (error.status === 401) askForToken(error.message);
  else if (error.status === undefined) throw error;
  else {
    waitUntil = Date.now() + error.wait * 1000;
    const more = error.status === 0 || error.status === 503 || error.status === 429 ? " Trying again." : "";
    tell(`${error.message}${more}`, more ? 0 : 10);
  }
}

function askForToken(why) {
  view?.pause();
  // Several answers may say it at once.
  if (!form.hidden) return;
  main.hidden = true;
  tell("");
  say(byId("token-why"), token.get() ? why : "It is kept in this tab until you close it, and sent only to this service.");
  byId("token-value").setAttribute("aria-invalid", String(Boolean(token.get())));
  token.forget();
  byId("forget").hidden = true;
  form.hidden = false;
  byId("token-value").focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(byId("token-value").value.trim());
  byId("token-value").value = "";
  form.hidden = true;
  route();
});

byId("forget").addEventListener("click", () => {
  token.forget();
  route();
});

byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

/** Shows what the address says: `#/jobs?state=...`, or `#/jobs/ID`. */
function route() {
  view?.stop();
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [, id] = path.split("/");
  view = id ? new JobPage(decoded(id), announce) : new JobsPage(new URLSearchParams(query), announce);
  view.onrefusal = refused;
  waitUntil = toldUntil = 0;
  tell("");
  main.hidden = false;
  form.hidden = true;
  show(main, view.element);
  window.scrollTo(0, 0);
  look(true);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Asks for news; what is open stays open. One question at a time. */
async function look(first = false) {
  if (document.hidden || !form.hidden || Date.now() < waitUntil || (looking && !first)) return;
  looking = true;
  const asked = view;
  try {
    await asked.tick();
    if (asked !== view || document.hidden) return;
    if (first) asked.start();
    document.title = `${asked.title} - Treadle`;
    tell("");
    byId("forget").hidden = !token.get();
    if (first || seconds % LOOK_AT_CLUSTER === 0) drawCluster(await json("v1/cluster"));
  } catch (error) {
    if (asked !== view) return;
    refused(error);
    // The same will hardly be answered otherwise soon.
    if ([403, 404, 422].includes(error.status)) waitUntil = Date.now() + 30_000;
  } finally {
    looking = false;
  }
}

function drawCluster(cluster) {
  const line = byId("cluster");
  const parts = [
    cluster.workers === null ? null : plural(cluster.workers, "worker", "workers"),
    cluster.threads === null ? null : plural(cluster.threads, "thread", "threads"),
    cluster.memory_bytes === null ? null : bytes(cluster.memory_bytes),
  ].filter(Boolean);
  const text = cluster.state === "up" && parts.length ? parts.join(", ") : `${cluster.state}: ${cluster.reason}`;
  const key = JSON.stringify(cluster);
  if (line.dataset.shown === key) return;
  line.dataset.shown = key;
  line.title = cluster.address ?? "";
  show(line, h("span", { class: `cluster-${cluster.state === "up" ? "up" : "off"}` }, "Cluster"), h("span", {}, text),
    cluster.dashboard ? outward(cluster.dashboard, "Dask dashboard") : null);
}

setInterval(() => {
  seconds += 1;
  if (document.hidden || !view) return;
  if (form.hidden) view.clock();
  if (seconds % LOOK === 0) look();
}, 1000);

document.addEventListener("visibilitychange", () => {
  if (document.hidden) view?.pause();
  else if (form.hidden) look(true);
});
window.addEventListener("unhandledrejection", (event) => {
  if (event.reason?.status === undefined) return;
  event.preventDefault();
  refused(event.reason);
});
window.addEventListener("hashchange", () => {
  route();
  main.focus();
});
route();
