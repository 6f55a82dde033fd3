// What a job made: its leaderboard, what its best model looks at, its contract, and files to take away.

import { download, jobPath } from "./api.js";
import { h, table } from "./dom.js";
import { bytes, count, measure, plural } from "./format.js";

const METRICS = ["auc", "average_precision", "accuracy", "f1", "log_loss", "brier", "rmse", "mae", "r2"];
const TOP_FEATURES = 12;
/** Stages whose outcome has a leaderboard, the one that says the most first. */
const BOARDS = ["evaluate", "ensemble", "tune", "compare"];

/** The sections of a manifest that there is something to say in. */
export function resultsOf(manifest) {
  const results = manifest.results ?? {};
  return [leaderboard(results), features(results), contract(results), notes(manifest)].filter(Boolean);
}

function section(id, title, ...content) {
  return h("section", { "aria-labelledby": id }, h("h2", { id }, title), ...content);
}

function leaderboard(results) {
  const board = BOARDS.map((name) => results[name]).find((found) => found?.rows?.length);
  if (!board) return null;
  const metrics = METRICS.filter((name) => board.rows.some((row) => typeof row[name] === "number"));
  if (!metrics.includes(board.metric) && board.rows.some((row) => board.metric in row)) metrics.unshift(board.metric);
  const number = (name) => ({ name: name.replaceAll("_", " "), kind: name === board.metric ? "number chief" : "number" });
  const columns = [{ name: "model", kind: "word" }, ...metrics.map(number), { name: "train s", kind: "number" }];
  const rows = board.rows.map((row) => ({
    kind: row.model === board.best ? "best" : null,
    cells: [
      row.error ? h("span", {}, row.model, h("span", { class: "row-error" }, ` failed: ${row.error}`)) : String(row.model),
      ...metrics.map((name) => measure(row[name])),
      typeof row.train_seconds === "number" ? row.train_seconds.toFixed(1) : "",
    ],
  }));
  const where = results.folds ? `mean of ${results.folds.rows.length} folds` : "on the test rows";
  const by = h("p", { class: "hint" }, `By ${board.metric}, ${where}; the best first.`);
  return section("leaderboard-title", "Leaderboard", by, table("Leaderboard", columns, rows), heldOut(board, metrics));
}

function heldOut(board, metrics) {
  if (!board.held_out) return null;
  const measured = metrics.filter((name) => name in board.held_out).map((name) => `${name} ${measure(board.held_out[name])}`);
  return h("p", { class: "hint" }, `${board.best}, trained on all training rows, on the test rows: ${measured.join(", ")}`);
}

function features(results) {
  const importance = Object.entries(results.explain?.importance ?? {});
  if (!importance.length) return null;
  const largest = importance[0][1] || 1;
  const items = importance.slice(0, TOP_FEATURES).map(([name, value]) =>
    h("li", {}, h("span", { class: "feature" }, name),
      h("meter", { min: 0, max: largest, value, "aria-label": `Contribution of ${name}` }),
      h("span", { class: "number" }, measure(value))));
  const left = importance.length - items.length;
  const hint = `Mean absolute contribution to the best model's margin${left > 0 ? `; ${count(left)} more are in the table explanations` : ""}.`;
  return section("features-title", "Features", h("p", { class: "hint" }, hint), h("ol", { class: "features" }, ...items));
}

function contract(results) {
  const verdicts = results.contract?.verdicts ?? [];
  if (!verdicts.length) return null;
  const passed = verdicts.filter((verdict) => verdict.status === "passed").length;
  const columns = [{ name: "expectation", kind: "word" }, { name: "status", kind: "word" }, { name: "rows that break it", kind: "number" }];
  const rows = verdicts.map((verdict) => ({
    kind: verdict.status === "failed" ? "bad" : null,
    cells: [
      String(verdict.name), String(verdict.status),
      typeof verdict.violations === "number" ? `${count(verdict.violations)} of ${count(verdict.rows)}` : "",
    ],
  }));
  const hint = h("p", { class: "hint" }, `${passed} of ${plural(verdicts.length, "expectation is", "expectations are")} met.`);
  return section("contract-title", "Contract", hint, table("Contract", columns, rows));
}

function notes(manifest) {
  const texts = [...(manifest.fell_back ?? []).map((text) => `Fell back: ${text}`), ...(manifest.warnings ?? [])];
  if (!texts.length) return null;
  return section("notes-title", "Warnings", h("ul", { class: "notes" }, ...texts.map((text) => h("li", {}, String(text)))));
}

/** Files, tables and models, with links to those that can be taken away. */
export function artifactsOf(id, artifacts) {
  const columns = [
    { name: "artifact", kind: "word" }, { name: "kind", kind: "word" }, { name: "rows", kind: "number" },
    { name: "size", kind: "number" }, { name: "where", kind: "path" },
  ];
  const rows = artifacts.map((artifact) => ({
    cells: [link(id, artifact), kindOf(artifact), count(artifact.rows), bytes(artifact.bytes), String(artifact.path)],
  }));
  return section("artifacts-title", "Artifacts", table("Artifacts", columns, rows));
}

function kindOf({ kind, version }) {
  return kind === "table" && typeof version === "number" ? `table, version ${version}` : String(kind);
}

function link(id, { kind, name }) {
  if (kind === "model") return String(name);
  const parts = name.split("/");
  const path = kind === "table" ? jobPath(id, "tables", encodeURIComponent(name))
    : jobPath(id, "artifacts", ...parts.map(encodeURIComponent));
  const file = kind === "table" ? `${name}.arrows` : parts.at(-1);
  return h("a", { href: path, download: file, onclick: download }, name);
}
