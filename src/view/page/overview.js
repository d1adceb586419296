// Overview: the progress of each node, with the time left, and the run's most telling numbers.
import { ask } from "./ask.js";
import { el, number, seconds, table } from "./dom.js";
import { blocks } from "./charts-page.js";

function bar(done, of, label) {
  return el("progress", { max: Math.max(1, of), value: done, "aria-label": label });
}

function rows(progress) {
  const place = row => (row.iteration == null ? row.node : `${row.node}[${row.iteration}]`);
  const columns = [
    { title: "Node", value: place },
    { title: "Operator", value: row => row.operator },
    { title: "State", value: row => el("span", { class: `word ${row.state}` }, row.state) },
    { title: "Parts", value: row => (row.part_count ? el("span", { class: "parts" }, bar(row.parts, row.part_count, `${place(row)}: parts`), ` ${number(row.parts)} of ${number(row.part_count)}`) : "–") },
    { title: "Rows", numeric: true, value: row => (row.rows ? number(row.rows) : "–") },
    { title: "Time", numeric: true, value: row => (row.seconds ? seconds(row.seconds) : "–") },
    { title: "Left", numeric: true, value: row => (row.state !== "done" && progress.state === "running" ? seconds(row.seconds_left) : "–") },
  ];
  return table("Progress by node", columns, progress.nodes);
}

function draw(place, progress) {
  const left = progress.seconds_left == null ? (progress.state === "running" ? "not known yet" : "–") : `${progress.at_least ? "at least " : "about "}${seconds(progress.seconds_left)}`;
  const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  const problems = progress.nodes.filter(row => row.message).map(row => el("p", { class: "problem" }, `${row.node}: ${row.message}`));
  place.replaceChildren(
    el("dl", { class: "facts" }, fact("State", progress.state), fact("Outputs", `${number(progress.done)} of ${number(progress.of)}`), fact("Time left", left), fact("Iterations", number(progress.iterations))),
    el("p", {}, bar(progress.done, progress.of, "Finished outputs")),
    ...problems,
    rows(progress));
}

export async function show(main, { parameters, signal, progress }) {
  const live = el("section", { class: "live", "aria-label": "Progress" });
  const facts = el("section", { "aria-label": "Results" });
  main.replaceChildren(el("h1", {}, parameters.run), live, facts);
  draw(live, progress?.name ? progress : await ask("progress", { run: parameters.run }, signal));
  // Results take longer, and a run that has just begun has none.
  ask("report", { run: parameters.run }, signal).then(sections => {
    const own = sections.filter(section => section.id === "overview").flatMap(section => section.blocks);
    facts.replaceChildren(el("h2", {}, "Results so far"), ...blocks(own).elements);
  }).catch(error => {
    if (!signal.aborted) facts.replaceChildren(el("p", { class: "problem" }, error.message));
  });
}

export function progress(main, progress) {
  const live = main.querySelector(".live");
  if (live) draw(live, progress);
}
