// Prompts as a table: filters, sorting, a page at a time.
import { address, ask, go, place } from "./ask.js";
import { el, field, number, pager, select, shown, table } from "./dom.js";

const SIZE = 50;
const FILTERS = ["text", "response", "column", "value", "reward_from", "reward_to", "selected", "flagged", "where", "iteration", "prompts"];

/** The prompts of the last list, for the keys n and p. */
let list = { ids: [], parameters: {} };

/** Opens the prompt before or after the one that is shown. */
export function neighbour(by) {
  const { page, parameters } = place();
  const next = list.ids[list.ids.indexOf(parameters.id) + by];
  if (page === "prompt" && list.ids.includes(parameters.id) && next != null) go("prompt", { ...parameters, id: next });
}

/** The address of the last list. */
export function listed(run) {
  return list.parameters.run === run ? list.parameters : { run };
}

/** Further filters; on a narrow screen they are folded until one is used. */
function more(parameters, ...fields) {
  const used = FILTERS.some(name => parameters[name] && !["text", "iteration", "prompts"].includes(name));
  const open = used || matchMedia("(min-width: 40rem)").matches;
  return el("details", { class: "wide", open }, el("summary", {}, "More filters"), el("div", { class: "fields" }, fields));
}

function form(parameters, page) {
  const input = (name, label, attributes = {}) => field(label, el("input", { name, value: parameters[name] ?? "", autocomplete: "off", ...attributes }));
  const yesOrNo = (name, label) => field(label, select(name, [["", "any"], ["yes", "yes"], ["no", "no"]], parameters[name]));
  const chosen = ["", ...page.columns].map(column => (column ? column : ["", "no column"]));
  const send = event => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(event.target));
    go("prompts", { run: parameters.run, sort: parameters.sort, descending: parameters.descending, ...given });
  };
  return el("form", { class: "filters", onsubmit: send, role: "search", "aria-label": "Filter prompts" },
    page.tables.length > 1 ? field("Prompts", select("prompts", page.tables, page.prompts)) : null,
    page.iterations.length > 1 ? field("Iteration", select("iteration", page.iterations, page.iteration)) : null,
    input("text", "Text in the prompt", { type: "search", "data-search": "" }),
    more(parameters, input("response", "Text in a response", { type: "search" }),
    field("Column", select("column", chosen, parameters.column)),
    input("value", "has the value"),
    input("reward_from", "Reward from", { inputmode: "decimal" }),
    input("reward_to", "to", { inputmode: "decimal" }),
    yesOrNo("selected", "Selected"),
    yesOrNo("flagged", "Flagged"),
    el("div", { class: "wide" }, input("where", "SQL WHERE", { spellcheck: "false", placeholder: "best - worst > 0.5 AND weight IS NOT NULL" }))),
    el("div", { class: "buttons" }, el("button", { class: "main" }, "Filter"),
      el("button", { type: "button", onclick: () => go("prompts", { run: parameters.run }) }, "Clear")));
}

function rows(parameters, page) {
  const open = row => address("prompt", { run: parameters.run, prompts: page.prompts, id: row.prompt_id });
  const link = row => el("a", { href: open(row), class: "prompt", "data-row": "", dir: "auto" }, row.text || row.prompt_id);
  const numeric = (title, column) => ({ title, numeric: true, sort: column, value: row => number(row[column]) });
  const mark = row => (row.flagged ? el("span", { class: "mark", title: "flagged" }, "⚑", el("span", { class: "hidden" }, " flagged")) : row.note ? "✎" : "");
  const columns = [
    { title: "Flag", value: mark },
    { title: "Prompt", value: link },
    ...page.shown.map(column => ({ title: column, sort: column, value: row => el("span", { dir: "auto" }, shown(row[column])) })),
    numeric("Reward", "reward"), numeric("Best", "best"), numeric("Worst", "worst"), numeric("Responses", "responses"),
    { title: "Selected", sort: "selected", value: row => row.selected }, numeric("Rank", "rank"), numeric("Score", "score"),
    numeric("Gap", "reward_gap"), numeric("Weight", "weight"),
    { title: "Note", value: row => row.note ?? "" },
    { title: "Id", sort: "prompt_id", value: row => el("code", {}, row.prompt_id) },
  ];
  const sorting = column => {
    const again = parameters.sort === column;
    go("prompts", { ...parameters, offset: "", sort: column, descending: again && parameters.descending !== "yes" ? "yes" : "" });
  };
  const options = { sort: parameters.sort, descending: parameters.descending === "yes", onsort: sorting, row: row => ({ class: row.flagged ? "flagged" : null }) };
  return table(`Prompts of ${page.prompts}${page.iteration == null ? "" : `, iteration ${page.iteration}`}`, columns, page.rows, options);
}

export async function show(main, { parameters, signal }) {
  const page = await ask("prompts", parameters, signal);
  list = { ids: page.rows.map(row => row.prompt_id), parameters };
  const turn = offset => go("prompts", { ...parameters, offset });
  const pages = el("div", {}, pager(page, SIZE, null, turn));
  const filtered = FILTERS.some(name => parameters[name] && !["iteration", "prompts"].includes(name));
  const hint = page.rows.length ? null : el("p", {}, filtered ? "No prompt passes these filters." : "There are no prompts yet.");
  main.replaceChildren(el("h1", {}, "Prompts"), form(parameters, page), pages, ...[hint].filter(part => part), page.rows.length ? rows(parameters, page) : "");
  ask("prompts/count", parameters, signal).then(({ count }) => pages.replaceChildren(pager(page, SIZE, count, turn))).catch(() => {});
}
