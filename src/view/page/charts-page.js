// The sections of the report: charts, tables and facts, drawn by the report's own script.
import { ask } from "./ask.js";
import { el, shown, table, text } from "./dom.js";

const SCRIPTS = ["/d3.min.js", "/plot.min.js", "/dagre.min.js", "/charts.js"];
let loaded;

/** Loads the libraries one after the other, once: together they are half a megabyte. */
function libraries() {
  loaded ??= SCRIPTS.reduce((before, source) => before.then(() => new Promise((resolve, reject) => {
    document.head.append(el("script", { src: source, onload: resolve, onerror: () => reject(new Error(`${source} cannot be loaded`)) }));
  })), Promise.resolve());
  return loaded;
}

function cells({ title, columns, rows, folded }) {
  const name = column => column.replace(/^#/, "");
  const all = table(title || "Table", columns.map((column, index) => ({ title: name(column), numeric: column.startsWith("#"), value: row => row[index] })), rows, { hidden: folded });
  return folded ? el("details", {}, el("summary", {}, `${title || "Table"} (${rows.length})`), all) : all;
}

function pairText(pair) {
  const whole = part => text(part.shown + part.folded + (part.left_out ? `… ${part.left_out} more characters` : ""));
  return el("article", { class: "pair" },
    el("p", { class: "line" }, el("code", {}, pair.prompt_id), ` gap ${pair.gap}, weight ${pair.weight}`),
    el("div", { class: "asked" }, pair.asked.map(([role, part]) => el("div", {}, role ? el("b", { class: "role" }, role) : "", whole(part)))),
    el("div", { class: "answers" }, el("div", { class: "chosen" }, el("b", { class: "role" }, "chosen"), whole(pair.chosen)), el("div", { class: "rejected" }, el("b", { class: "role" }, "rejected"), whole(pair.rejected))));
}

/** The elements of a section's blocks, and its charts with their places. */
export function blocks(list) {
  const charts = [];
  const elements = list.map(block => {
    if (block.kind === "facts") {
      return el("dl", { class: "facts" }, block.facts.map(([name, value, detail]) => el("div", {}, el("dt", {}, name), el("dd", {}, value), detail ? el("dd", { class: "detail" }, detail) : "")));
    }
    if (block.kind === "charts") {
      return el("div", { class: "charts" }, block.charts.map(chart => {
        const place = el("div", { class: "chart", role: "img", "aria-label": chart.title, tabindex: chart.marks === "graph" ? "0" : null });
        charts.push([place, chart]);
        return el("figure", {}, el("figcaption", {}, el("b", {}, chart.title), chart.note ? ` ${chart.note}` : ""), place);
      }));
    }
    if (block.kind === "table") return cells(block);
    if (block.kind === "pairs") return el("div", {}, el("h3", {}, block.title), block.pairs.map(pairText));
    if (block.kind === "code") return el("details", {}, el("summary", {}, block.title), el("pre", {}, block.text));
    if (block.kind === "alarm") return el("p", { class: "problem", role: "alert" }, el("b", {}, `${block.place}: ${block.text}.`), ` What to do: ${block.advice}.`);
    return el("p", { class: "dim" }, shown(block.text));
  });
  return { elements, charts };
}

export async function show(main, { parameters, signal }) {
  const [sections] = await Promise.all([ask("report", { run: parameters.run }, signal), libraries()]);
  const charts = [];
  const shownSections = sections.map(section => {
    const drawn = blocks(section.blocks);
    charts.push(...drawn.charts);
    return el("section", { id: `section-${section.id}` }, el("h2", {}, section.title), section.lead ? el("p", { class: "dim" }, section.lead) : "", ...drawn.elements);
  });
  const jump = section => el("li", {}, el("button", { type: "button", onclick: () => document.getElementById(`section-${section.id}`).scrollIntoView() }, section.title));
  main.replaceChildren(el("h1", {}, `Charts of ${parameters.run}`), el("ul", { class: "jumps" }, sections.map(jump)), ...shownSections);
  globalThis.drawCharts(charts);
}
