// Elements and texts. Everything from a run becomes a text node or an attribute's value, never markup.

/** An element with attributes, handlers (`onclick`) and children; null children are left out. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter(child => child != null && child !== false));
  return element;
}

/** A number with four significant digits; whole numbers in full. */
export function number(value) {
  if (value == null) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size >= 1e6 || size < 1e-4 ? value.toExponential(3) : String(Number(value.toPrecision(4)));
}

/** Seconds in suitable units. */
export function seconds(value) {
  if (value == null) return "–";
  if (value < 60) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
}

/** A value of a cell as a text. */
export function shown(value) {
  if (value == null) return "–";
  if (typeof value === "number") return number(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** A table in a box that scrolls sideways. Columns: `{ title, value, numeric, sort }`; `value(row, index)` gives a text or an element. */
export function table(caption, columns, rows, options = {}) {
  const head = columns.map(({ title, numeric, sort }) => {
    const sorted = sort && options.sort === sort;
    const inner = sort
      ? el("button", { type: "button", class: "sort", onclick: () => options.onsort(sort) }, title, sorted ? (options.descending ? " ▾" : " ▴") : "")
      : title;
    return el("th", { scope: "col", class: numeric ? "number" : null, "aria-sort": sorted ? (options.descending ? "descending" : "ascending") : null }, inner);
  });
  const body = rows.map((row, index) => el("tr", options.row?.(row, index) ?? {}, columns.map(({ value, numeric }) => {
    const cell = value(row, index);
    return el("td", { class: numeric ? "number" : null }, cell instanceof Node ? cell : shown(cell));
  })));
  const all = el("table", {}, el("caption", { class: options.hidden ? "hidden" : null }, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
  return el("div", { class: "box", tabindex: "0", role: "region", "aria-label": caption }, all);
}

/** A labelled field. */
export function field(label, input) {
  return el("label", { class: "field" }, el("span", {}, label), input);
}

/** A select with options: texts, or pairs of value and text. */
export function select(name, options, chosen, attributes = {}) {
  const item = option => {
    const [value, text] = Array.isArray(option) ? option : [option, option];
    return el("option", { value, selected: String(value) === String(chosen ?? "") }, text);
  };
  return el("select", { name, ...attributes }, options.map(item));
}

/** A text as it is, blanks and lines kept. */
export function text(value, attributes = {}) {
  return el("div", { class: "text", dir: "auto", ...attributes }, value ?? "");
}

/** The buttons to go through pages of rows. `go(offset)` opens one. */
export function pager(page, size, count, go) {
  const first = page.rows.length ? page.offset + 1 : page.offset;
  const of = el("span", { class: "count" }, count == null ? "" : ` of ${number(count)}`);
  const range = el("p", { class: "range", role: "status" }, page.rows.length ? `${number(first)} to ${number(page.offset + page.rows.length)}` : "none", of);
  const button = (label, offset, disabled) => el("button", { type: "button", disabled, onclick: () => go(offset) }, label);
  return el("div", { class: "pager" }, range,
    button("Previous", Math.max(0, page.offset - size), page.offset === 0),
    button("Next", page.offset + size, !page.more));
}
