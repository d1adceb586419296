// All tables of a run, and the rows of one: verdicts of judges, items of benchmarks, and any other.
import { address, ask, go } from "./ask.js";
import { el, field, number, pager, select, shown, table, text } from "./dom.js";
import { annotation } from "./annotate.js";

const SIZE = 50;
const KEYS = ["prompt_id", "sampled_iteration", "response_index", "task", "item"];

let run;
let shownTable;

async function all(main, parameters, signal) {
  const tables = await ask("tables", { run: parameters.run }, signal);
  const open = row => el("a", { href: address("rows", { run: parameters.run, table: row.name }), "data-row": "" }, row.name);
  main.replaceChildren(el("h1", {}, "Tables"), table("Tables and views of the run", [
    { title: "Table", value: open },
    { title: "Kind", value: row => row.kind ?? (row.view ? "view" : "own columns") },
    { title: "Rows", numeric: true, value: row => number(row.rows) },
    { title: "Iterations", value: row => (row.iterations.length ? `${row.iterations[0]} to ${row.iterations.at(-1)}` : "–") },
    { title: "Columns", value: row => row.columns.map(([name]) => name).join(", ") },
  ], tables));
}

function form(parameters, { table }) {
  const send = event => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(event.target));
    go("rows", { run: parameters.run, table: table.name, sort: parameters.sort, descending: parameters.descending, ...given });
  };
  const input = (name, label, attributes = {}) => field(label, el("input", { name, value: parameters[name] ?? "", autocomplete: "off", ...attributes }));
  const columns = [["", "no column"], ...table.columns.map(([name]) => name)];
  return el("form", { class: "filters", onsubmit: send, role: "search", "aria-label": "Filter rows" },
    table.iterations.length > 1 ? field("Iteration", select("iteration", [["", "all"], ...table.iterations], parameters.iteration)) : null,
    input("text", "Text in any column", { type: "search", "data-search": "" }),
    field("Column", select("column", columns, parameters.column)), input("value", "has the value"),
    el("div", { class: "wide" }, input("where", "SQL WHERE", { spellcheck: "false" })),
    el("div", { class: "buttons" }, el("button", { class: "main" }, "Filter"), el("button", { type: "button", onclick: () => go("rows", { run: parameters.run, table: table.name }) }, "Clear")));
}

/** A value in full: lists of plain values on few lines, others laid out. */
function whole(value) {
  if (value === null || typeof value !== "object") return shown(value);
  const plain = Array.isArray(value) && value.every(item => item === null || typeof item !== "object");
  return el("pre", { class: plain ? "plain" : null }, plain ? JSON.stringify(value).replaceAll(",", ", ") : JSON.stringify(value, null, 1));
}

/** A row in full, with a flag and a note where it has a key. */
async function row(main, parameters, signal) {
  const [page, notes] = await Promise.all([
    ask("rows", { ...parameters, one: "yes" }, signal),
    ask("rows", { run: parameters.run, table: "annotations", column: "node", value: parameters.table }, signal),
  ]);
  const found = page.rows[0];
  const back = el("p", { class: "back" }, el("a", { href: address("rows", { ...parameters, one: "", offset: Math.floor(Number(parameters.offset ?? 0) / SIZE) * SIZE }) }, `← ${page.table.name}`));
  if (!found) {
    main.replaceChildren(back, el("p", {}, "There is no such row."));
    return;
  }
  const names = KEYS.filter(name => page.table.key.includes(name));
  const key = { node: page.table.name, ...Object.fromEntries(names.map(name => [name, found[name]])), ...(names.includes("sampled_iteration") ? {} : { row_iteration: found.iteration ?? null }) };
  const now = notes.rows.find(note => Object.entries(key).every(([name, value]) => (note[name] ?? null) == (value ?? null)));
  const step = (label, by, disabled) => el("button", { type: "button", disabled, onclick: () => go("rows", { ...parameters, offset: Number(parameters.offset ?? 0) + by }) }, label);
  const prompt = page.table.prompts && found.prompt_id ? el("p", {}, el("a", { href: address("prompt", { run: parameters.run, prompts: page.table.prompts, id: found.prompt_id }) }, "Open the prompt")) : "";
  main.replaceChildren(back, el("h1", {}, `${page.table.name}, row ${number(page.offset + 1)}`),
    el("div", { class: "pager" }, step("Previous", -1, page.offset === 0), step("Next", 1, !page.more)), prompt,
    names.some(name => ["prompt_id", "item"].includes(name)) ? annotation(parameters.run, key, now, { prompt: true }) : "",
    el("dl", { class: "rows" }, Object.entries(found).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, typeof value === "string" ? text(value) : whole(value))))));
}

async function rows(main, parameters, signal) {
  const page = await ask("rows", parameters, signal);
  const open = index => address("rows", { ...parameters, one: "yes", offset: page.offset + index });
  const sorting = column => {
    const again = parameters.sort === column;
    go("rows", { ...parameters, offset: "", sort: column, descending: again && parameters.descending !== "yes" ? "yes" : "" });
  };
  const isNumber = type => /^(Int|UInt|Float|Decimal)/.test(type);
  const columns = [
    { title: "Row", value: (_, index) => el("a", { href: open(index), "data-row": "" }, number(page.offset + index + 1)) },
    ...page.table.columns.map(([name, type]) => ({ title: name, sort: name, numeric: isNumber(type), value: found => el("span", { class: "cell", dir: "auto" }, shown(found[name])) })),
  ];
  const turn = offset => go("rows", { ...parameters, offset });
  const pages = el("div", {}, pager(page, SIZE, null, turn));
  main.replaceChildren(el("p", { class: "back" }, el("a", { href: address("tables", { run: parameters.run }) }, "← Tables")),
    el("h1", {}, page.table.name), form(parameters, page), pages,
    page.rows.length ? table(`Rows of ${page.table.name}`, columns, page.rows, { sort: parameters.sort, descending: parameters.descending === "yes", onsort: sorting, hidden: true }) : el("p", {}, "No row passes these filters."));
  ask("rows/count", parameters, signal).then(({ count }) => pages.replaceChildren(pager(page, SIZE, count, turn))).catch(() => {});
}

export async function show(main, { name, parameters, signal }) {
  run = parameters.run;
  shownTable = name === "rows" ? parameters : undefined;
  if (name === "tables" || !parameters.table) await all(main, parameters, signal);
  else if (parameters.one) await row(main, parameters, signal);
  else await rows(main, parameters, signal);
}

export function back() {
  if (shownTable?.one) go("rows", { ...shownTable, one: "", offset: "" });
  else if (shownTable) go("tables", { run });
}
