// Numbers, times and documents as people read them.

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

/** The two largest units: `12 ms`, `4.2 s`, `3 min 10 s`, `2 d 4 h`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  if (seconds < 0.0995) return `${Math.max(Math.round(seconds * 1000), 0)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  return whole(seconds);
}

/** As `duration`, without tenths. */
export function whole(seconds) {
  let left = Math.max(Math.round(seconds), 0);
  const parts = [];
  for (const [unit, size] of UNITS) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count > 0) parts.push(`${count} ${unit}`);
    else if (parts.length) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ") || "0 s";
}

/** Milliseconds since 1970; a time without a zone is in UTC. NaN when it is none. */
export function instant(iso) {
  if (!iso) return NaN;
  return Date.parse(/(Z|[+-]\d\d:?\d\d)$/.test(iso) ? iso : `${iso}Z`);
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DATE = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });

/** The local time of day, with the date where that is not today's. */
export function clock(iso) {
  const time = instant(iso);
  if (Number.isNaN(time)) return "";
  const day = DATE.format(time);
  return day === DATE.format(Date.now()) ? CLOCK.format(time) : `${day}, ${CLOCK.format(time)}`;
}

export function bytes(count) {
  if (count === null || count === undefined) return "";
  let value = count;
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1024 || unit === "TiB") return `${unit === "B" ? value : value.toPrecision(3)} ${unit}`;
    value /= 1024;
  }
  return "";
}

const WHOLE = new Intl.NumberFormat("en");

export function count(value) {
  return value === null || value === undefined ? "" : WHOLE.format(value);
}

export function measure(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  return size >= 1e5 || (size > 0 && size < 1e-4) ? value.toExponential(3) : value.toFixed(4);
}

export function plural(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

const RESERVED = /^(true|false|null|yes|no|on|off|y|n|~)$/i;

// What YAML has no place for, ends a line, or turns the direction of what follows.
const UNSEEN = /[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff]/g;

function scalar(value) {
  if (typeof value !== "string") return JSON.stringify(value);
  if (/^[A-Za-z_][A-Za-z0-9_./-]*$/.test(value) && !RESERVED.test(value)) return value;
  return JSON.stringify(value).replace(UNSEEN, (part) => `\\u${part.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

const nested = (value) => typeof value === "object" && value !== null;
const size = (value) => (Array.isArray(value) ? value : Object.keys(value)).length;

/** A JSON value as YAML, the way specs are written. */
export function yaml(value, indent = "") {
  if (!nested(value)) return `${indent}${scalar(value)}\n`;
  if (size(value) === 0) return `${indent}${Array.isArray(value) ? "[]" : "{}"}\n`;
  if (Array.isArray(value)) return value.map((item) => `${indent}- ${yaml(item, `${indent}  `).trimStart()}`).join("");
  return Object.entries(value).map(([key, item]) => entry(key, item, indent)).join("");
}

function entry(key, value, indent) {
  const name = `${indent}${scalar(key)}:`;
  if (!nested(value) || size(value) === 0) return `${name} ${yaml(value)}`;
  const line = Array.isArray(value) && !value.some(nested) ? `${name} [${value.map(scalar).join(", ")}]\n` : "";
  return line && line.length <= 88 ? line : `${name}\n${yaml(value, `${indent}  `)}`;
}
