// The frame of the page: the chosen run, its live progress, the pages and the keys.
import { address, ask, go, place } from "./ask.js";
import { el, seconds } from "./dom.js";
import * as overview from "./overview.js";
import * as prompts from "./prompts.js";
import * as prompt from "./prompt.js";
import * as tables from "./tables.js";
import * as charts from "./charts-page.js";

const pages = { overview, prompts, prompt, tables, rows: tables, charts };
const main = document.querySelector("#main");
const message = document.querySelector("#message");
const runs = document.querySelector("#run");
const state = document.querySelector("#state");
const keys = document.querySelector("#keys");

let names = [];
let current;
let news;

/** What a page may use of the frame. */
const frame = { runs: () => names, say: words => { message.textContent = words; } };

function follow(run) {
  if (news?.run === run) return;
  news?.source.close();
  const source = new EventSource(`/api/events?${new URLSearchParams({ run })}`);
  news = { run, source, progress: undefined };
  source.addEventListener("progress", event => {
    news.progress = JSON.parse(event.data);
    const { done, of, seconds_left: left, at_least: more, state: word } = news.progress;
    state.className = `state ${word}`;
    state.textContent = word === "running" ? `running, ${done} of ${of}${left == null ? "" : `, ${more ? "at least " : "about "}${seconds(left)} left`}` : word;
    if (current?.page.progress) current.page.progress(main, news.progress);
    else if (current && current.version != null && current.version !== news.progress.version) {
      message.replaceChildren(el("button", { type: "button", onclick: open }, "The run went on: show the new rows"));
    }
    if (current) current.version ??= news.progress.version;
  });
  source.addEventListener("problem", event => { state.className = "state failed"; state.textContent = JSON.parse(event.data).error; });
  source.addEventListener("error", () => { state.className = "state"; state.textContent = "the server does not answer"; });
}

async function open() {
  const { page: name, parameters } = place();
  const page = pages[name];
  if (!page || !names.includes(parameters.run)) {
    location.replace(address(page ? name : "overview", { ...parameters, run: names.includes(parameters.run) ? parameters.run : names[0] }));
    return;
  }
  runs.value = parameters.run;
  follow(parameters.run);
  for (const link of document.querySelectorAll("nav a")) {
    link.href = address(link.dataset.page, { run: parameters.run });
    const own = link.dataset.page === name || (name === "prompt" && link.dataset.page === "prompts") || (name === "rows" && link.dataset.page === "tables");
    if (own) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  current?.stop.abort();
  const stop = new AbortController();
  const before = current?.name;
  current = { name, page, parameters, stop, version: news?.progress?.version };
  main.setAttribute("aria-busy", "true");
  document.title = `${name} · ${parameters.run} · optune view`;
  frame.say("loading");
  try {
    await page.show(main, { name, parameters, frame, signal: stop.signal, progress: news?.progress });
    frame.say("");
    if (before && before !== name) main.focus({ preventScroll: true });
  } catch (error) {
    if (stop.signal.aborted) return;
    frame.say("");
    told(before === name ? main.querySelector("form.filters") : null, name, parameters, error);
  } finally {
    if (!stop.signal.aborted) main.removeAttribute("aria-busy");
  }
}

/** Shows an error: below the filters that caused it, or alone with a way out. */
function told(filters, name, parameters, error) {
  const problem = el("p", { class: "problem", role: "alert" }, error.message);
  if (filters) {
    while (filters.nextSibling) filters.nextSibling.remove();
    filters.after(problem);
  } else {
    const { run, table, prompts } = parameters;
    main.replaceChildren(el("h1", {}, "This cannot be shown"), problem, el("p", {}, el("a", { href: address(name === "prompt" ? "prompts" : name, { run, table, prompts }) }, "Show it without filters")));
  }
}

/** Moves the focus to the next or the previous row. */
function step(by) {
  const rows = [...main.querySelectorAll("[data-row]")];
  if (!rows.length) return;
  const now = rows.indexOf(document.activeElement);
  const next = now < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, now + by));
  rows[next].focus();
  rows[next].scrollIntoView({ block: "nearest" });
}

const isField = element => element instanceof HTMLInputElement || element instanceof HTMLTextAreaElement || element instanceof HTMLSelectElement;

addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
  if (isField(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const actions = {
    j: () => step(1),
    k: () => step(-1),
    "/": () => main.querySelector("[data-search]")?.focus(),
    "?": () => keys.showModal(),
    f: () => main.querySelector("[data-flag]")?.click(),
    n: () => prompts.neighbour(1),
    p: () => prompts.neighbour(-1),
    Escape: () => current?.page.back?.(),
  };
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

document.querySelector("#help").addEventListener("click", () => keys.showModal());
document.querySelector("#skip").addEventListener("click", event => { event.preventDefault(); main.focus(); });
runs.addEventListener("change", () => go(current?.name === "prompt" || current?.name === "rows" ? "overview" : current?.name ?? "overview", { run: runs.value }));
addEventListener("hashchange", open);

try {
  names = (await ask("runs", {})).map(run => run.name);
  runs.replaceChildren(...names.map(name => el("option", { value: name }, name)));
  if (names.length) open();
  else main.replaceChildren(el("p", {}, "There is no run in this folder yet. Start one, then load this page again."));
} catch (error) {
  main.replaceChildren(el("p", { class: "problem", role: "alert" }, error.message));
}
