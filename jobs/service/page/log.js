// A job's log: its newest part, which grows while the job runs.

import { download, jobPath, logBytes } from "./api.js";
import { h } from "./dom.js";

const KEPT = 400_000;
// What terminals use for colours and cursors.
const CONTROL = /\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b\x0c\x0e-\x1f]/g;

export class Log {
  offset = 0;
  #id;
  #decoder = new TextDecoder();
  #characters = 0;

  constructor(id) {
    this.#id = id;
    this.link = h("a", { href: jobPath(id, "logs"), download: `${id}.log`, onclick: download }, "Download");
    this.follow = h("input", { type: "checkbox", checked: true, onchange: () => this.#bottom() });
    this.cut = h("p", { class: "hint", hidden: true }, "Only the end is shown.");
    this.empty = h("p", { class: "empty" }, "Nothing has been written.");
    this.text = h("pre", { class: "log", tabindex: "0", role: "log", "aria-live": "off", "aria-labelledby": "log-title", hidden: true });
    this.text.addEventListener("scroll", () => {
      const { scrollTop, scrollHeight, clientHeight } = this.text;
      this.follow.checked = scrollHeight - scrollTop - clientHeight < 24;
    });
    this.element = h("section", { "aria-labelledby": "log-title" },
      h("div", { class: "bar" },
        h("h2", { id: "log-title" }, "Log"),
        h("label", { class: "option" }, this.follow, " Follow"),
        this.link),
      this.cut, this.empty, this.text);
  }

  /** Whether nothing more is written. Only then is a log sent whole, however long it is; else its first part is. */
  set ended(value) {
    this.link.href = jobPath(this.#id, "logs") + (value ? "?follow=true" : "");
  }

  /** Reads from where it came to, until the log ends. */
  async read(signal, alive) {
    for await (const chunk of logBytes(this.#id, this.offset, signal)) {
      this.offset += chunk.length;
      alive();
      this.#add(this.#decoder.decode(chunk, { stream: true }).replace(/\r\n/g, "\n").replace(CONTROL, ""));
    }
  }

  #add(text) {
    if (text === "") return;
    this.text.append(document.createTextNode(text));
    this.#characters += text.length;
    while (this.#characters > KEPT && this.text.firstChild) this.#drop();
    this.text.hidden = false;
    this.empty.hidden = true;
    this.#bottom();
  }

  /** Drops the oldest part, up to the end of a line. */
  #drop() {
    const oldest = this.text.firstChild;
    const least = Math.min(this.#characters - KEPT, oldest.data.length);
    const line = oldest.data.indexOf("\n", least - 1);
    const dropped = line === -1 ? oldest.data.length : line + 1;
    oldest.deleteData(0, dropped);
    if (oldest.data === "") oldest.remove();
    this.#characters -= dropped;
    this.cut.hidden = false;
  }

  #bottom() {
    if (this.follow.checked) this.text.scrollTop = this.text.scrollHeight;
  }
}
