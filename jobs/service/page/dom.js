// Making and changing elements. What comes from the server goes in as text nodes and attributes' values only.

/** An element; attributes whose name begins with `on` are listeners, and null or false ones are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets an element's text; one that has it already is not touched, so that a selection stays. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Shows `children` instead of what is there. */
export function show(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

/**
 * Makes the children of `parent` be those of `items`, in order. Elements of items that stay are kept, so that
 * focus and selection stay, too.
 */
export function arrange(parent, items, keyOf, make, update) {
  const old = new Map([...parent.children].map((element) => [element.dataset.key, element]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let element = old.get(key);
    old.delete(key);
    if (!element) {
      element = make(item);
      element.dataset.key = key;
    }
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
    update(element, item);
  }
  for (const element of old.values()) element.remove();
}

/** A table's head. Roles are said aloud because a narrow screen's layout takes them from the elements. */
export function head(columns) {
  const cells = columns.map(({ name, kind }) => h("th", { scope: "col", role: "columnheader", class: kind }, name));
  return h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...cells));
}

/** A table that scrolls sideways where it is too wide; `rows` hold texts or elements, one a column. */
export function table(caption, columns, rows) {
  const body = rows.map((row) =>
    h("tr", { role: "row", class: row.kind }, ...row.cells.map((cell, i) =>
      h("td", { role: "cell", class: columns[i].kind }, cell))));
  return h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { role: "table", "aria-label": caption }, head(columns), h("tbody", { role: "rowgroup" }, ...body)));
}

/** A link that leaves the page, or its text alone when it is not an address of the web. */
export function outward(address, text) {
  if (!/^https?:\/\//i.test(String(address))) return document.createTextNode(text);
  return h("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, text);
}

/** A moment, with the whole of it to be seen on hovering. */
export function moment(iso, text) {
  return h("time", { datetime: iso, title: iso }, text);
}

/** The mark and the word of a state. */
export function stateMark(state) {
  const element = h("span", {});
  setState(element, state);
  return element;
}

export function setState(element, state) {
  const kind = `state state-${/^[a-z_]+$/.test(state) ? state : "unknown"}`;
  if (element.className !== kind) element.className = kind;
  say(element, state.replaceAll("_", " "));
}

/** Asks before something is done. Resolves to null when it is not wanted, else to whether the option was ticked. */
export function confirmed({ title, text, action, keep, option }) {
  return new Promise((resolve) => {
    const box = option ? h("input", { type: "checkbox" }) : null;
    const close = (answer) => { dialog.close(); dialog.remove(); resolve(answer); };
    const dialog = h("dialog", { "aria-labelledby": "dialog-title", oncancel: () => close(null) },
      h("h2", { id: "dialog-title" }, title),
      h("p", {}, text),
      option ? h("label", { class: "option" }, box, ` ${option}`) : null,
      h("div", { class: "buttons" },
        h("button", { type: "button", class: "quiet", autofocus: true, onclick: () => close(null) }, keep),
        h("button", { type: "button", class: "strong", onclick: () => close(box ? box.checked : false) }, action)));
    document.body.append(dialog);
    dialog.showModal();
  });
}
