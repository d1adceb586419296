// One prompt: its text, responses by iteration, selection, pairs and flags; beside it another iteration or another run.
import { address, ask, go } from "./ask.js";
import { el, field, number, select, shown, table, text } from "./dom.js";
import { annotation } from "./annotate.js";
import { listed } from "./prompts.js";

let run;

const same = (one, other, names) => names.every(name => one[name] == other[name]);
const KEY = ["prompt_id", "sampled_iteration", "response_index"];

/** The iterations in which the prompt has responses or a selection. */
function iterations(detail) {
  const found = detail.tables.flatMap(({ rows }) => rows.flatMap(row => [row.iteration, row.sampled_iteration]));
  return [...new Set(found.filter(iteration => iteration != null))].sort((one, other) => one - other);
}

function said(row) {
  if (typeof row.prompt === "string") return [text(row.prompt)];
  if (Array.isArray(row.messages)) return row.messages.map(({ role, content }) => el("div", { class: "turn" }, el("b", { class: "role" }, shown(role)), text(typeof content === "string" ? content : shown(content))));
  return [text(shown(row.prompt ?? row.messages ?? row.prompt_id))];
}

function facts(pairs) {
  return el("dl", { class: "line" }, pairs.filter(([, value]) => value != null && value !== "").map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", { dir: "auto" }, value instanceof Node ? value : shown(value)))));
}

function tokens(run, node, row) {
  const inner = el("div", { class: "tokens" }, "loading");
  const load = async event => {
    if (!event.target.open || inner.dataset.loaded) return;
    inner.dataset.loaded = "yes";
    try {
      const found = await ask("tokens", { run, node, id: row.prompt_id, sampled_iteration: row.sampled_iteration, response_index: row.response_index });
      const count = found.tokens.length - found.prompt_token_count;
      const each = found.logprob == null || !count ? "no logprob is known" : `logprob of the response ${number(found.logprob)} nats, ${number(found.logprob / count)} a token`;
      const list = found.tokens.map(([id, token], index) => {
        const logprob = found.logprobs?.[index - found.prompt_token_count];
        const kind = index < found.prompt_token_count ? "asked" : logprob == null ? null : logprob < Math.log(0.01) ? "rare" : logprob < Math.log(0.1) ? "unlikely" : null;
        const known = logprob == null ? "" : `, logprob ${number(logprob)} nats, probability ${number(Math.exp(logprob))}`;
        return el("li", { class: kind, title: `id ${id}${known}` }, token ?? String(id), logprob == null ? null : el("small", {}, ` ${logprob.toFixed(2)}`));
      });
      inner.replaceChildren(el("p", {}, `${number(found.prompt_token_count)} of the prompt, ${number(count)} of the response; ${each}${found.logprobs ? "; beside each token its own; underlined below a probability of 0.1, twice below 0.01" : ""}${found.model ? `; vocabulary of ${found.model}` : ""}`), el("ol", { class: "token-list" }, list));
    } catch (error) {
      inner.replaceChildren(el("p", { class: "problem" }, error.message));
    }
  };
  return el("details", { ontoggle: load }, el("summary", {}, "Tokens"), inner);
}

/** A response with its rewards, and how pairs use it. */
function response(run, detail, table, row) {
  const rewards = detail.tables.filter(other => other.kind === "rewards" && other.responses.includes(table.node));
  const scored = rewards.flatMap(other => other.rows.filter(reward => same(reward, row, KEY)).map(reward => ({ node: other.node, reward })));
  const uses = detail.pairs.filter(pair => pair.row.iteration == null || pair.row.iteration >= row.sampled_iteration).flatMap(({ node, row: pair }) => {
    const of = pair.iteration == null ? node : `${node}[${pair.iteration}]`;
    const is = side => pair[`${side}_sampled_iteration`] === row.sampled_iteration && pair[`${side}_index`] === row.response_index;
    return [is("chosen") ? `chosen in ${of}` : null, is("rejected") ? `rejected in ${of}` : null];
  });
  const key = { node: table.node, prompt_id: row.prompt_id, sampled_iteration: row.sampled_iteration, response_index: row.response_index };
  const now = detail.annotations.find(other => other.node === table.node && same(other, row, KEY));
  const label = `response ${row.response_index} of iteration ${row.sampled_iteration}`;
  return el("article", { class: "response", tabindex: "-1", "data-row": "", "aria-label": label },
    el("h4", {}, `${table.node} ${row.response_index}`),
    facts([
      ...scored.flatMap(({ node, reward }) => [[`${node}`, reward.error ?? reward.reward], ...Object.entries(reward.components ?? {}).map(([name, value]) => [`${name}`, value])]),
      ["finish", row.finish_reason], ["logprob", row.logprob], ["tokens", Array.isArray(row.token_ids) ? row.token_ids.length - row.prompt_token_count : null], ["error", row.error], ["pairs", uses.filter(use => use).join(", ")],
    ]),
    text(row.text), tokens(run, table.node, row), annotation(run, key, now, { label }));
}

function responses(run, detail, iteration) {
  const tables = detail.tables.filter(table => table.kind === "responses");
  const wanted = [...new Set(tables.flatMap(table => table.rows.map(row => row.sampled_iteration)))].filter(found => iteration == null || found === iteration).sort((one, other) => other - one);
  if (!wanted.length) return [el("p", {}, iteration == null ? "There are no responses yet." : `No new responses in iteration ${iteration}.`)];
  return wanted.map(number => el("div", {}, el("h3", {}, `Iteration ${number}`),
    el("div", { class: "cards" }, tables.flatMap(table => table.rows.filter(row => row.sampled_iteration === number).map(row => response(run, detail, table, row))))));
}

function strategy(settings) {
  const found = settings.strategy;
  return typeof found === "string" ? found : found == null ? "" : Object.keys(found)[0] ?? shown(found);
}

/** Why the prompt was selected or not. */
function reason({ node, iteration, settings, counts, prompts, row }) {
  const place = iteration == null ? node : `${node}[${iteration}]`;
  const chosen = counts.selected == null ? "" : `, and ${number(counts.selected)} of them were selected`;
  const how = [strategy(settings), settings.rank_by ? `by the ${settings.rank_by} of its rewards` : ""].filter(part => part).join(", ");
  const score = row.score == null ? "it had no rewards yet" : `its score is ${number(row.score)}`;
  return el("li", {}, el("b", {}, `${place}: ${row.selected ? "selected" : "not selected"}.`), ` Rank ${number(row.rank)} of ${number(prompts)}${chosen}; ${score}${how ? ` (${how})` : ""}.`,
    facts([["expected gain", row.expected_gain], ["expected tokens", row.expected_tokens], ["belief", row.belief_mean], ["variance", row.belief_variance]]),
    el("details", {}, el("summary", {}, "Settings"), el("pre", {}, JSON.stringify(settings, null, 2))));
}

function pieces(list, side) {
  return el("div", { class: "text", dir: "auto" }, list.map(piece => (piece.same ? piece.text : el(side === "chosen" ? "ins" : "del", {}, piece.text))));
}

function pair({ node, row, chosen, rejected }) {
  const place = row.iteration == null ? node : `${node}[${row.iteration}]`;
  const side = (name, list) => el("div", { class: name }, el("b", { class: "role" }, `${name}: response ${row[`${name}_index`]} of iteration ${row[`${name}_sampled_iteration`]}`), pieces(list, name));
  return el("article", { class: "pair" }, el("h3", {}, place),
    facts([["gap", row.reward_gap], ["weight", row.weight], ["reference logprob, chosen", row.reference_logprob_chosen], ["reference logprob, rejected", row.reference_logprob_rejected]]),
    el("div", { class: "answers" }, side("chosen", chosen), side("rejected", rejected)));
}

/** Evaluations, verdicts of judges and the user's own tables: rows as they are. */
function others(detail, iteration) {
  const known = ["responses", "rewards", "selection", "pool", "pairs"];
  const list = detail.tables.filter(table => !known.includes(table.kind)).map(({ node, rows }) => {
    const wanted = rows.filter(row => iteration == null || row.iteration == null || row.iteration === iteration);
    const names = Object.keys(rows[0] ?? {}).filter(name => name !== "prompt_id");
    const long = row => names.map(name => el("div", {}, el("dt", {}, name), el("dd", {}, typeof row[name] === "string" ? text(row[name]) : shown(row[name]))));
    return el("div", {}, el("h3", {}, node), wanted.map(row => el("dl", { class: "rows" }, long(row))));
  });
  return list;
}

/** One side of a comparison. */
function side(run, detail, iteration, title) {
  return el("section", { class: "side", "aria-label": title }, el("h2", {}, title),
    ...responses(run, detail, iteration),
    ...detail.pairs.filter(({ row }) => iteration == null || row.iteration == null || row.iteration === iteration).map(pair),
    ...others(detail, iteration));
}

function comparison(parameters, detail, frame) {
  const places = ["", ...iterations(detail)].map(iteration => (iteration === "" ? ["", "all"] : [iteration, `iteration ${iteration}`]));
  const send = event => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(event.target));
    go("prompt", { ...parameters, with: given.with, left: given.left, right: given.right });
  };
  return el("form", { class: "filters", onsubmit: send, "aria-label": "Side by side" },
    field("This run at", select("left", places, parameters.left)),
    field("beside", select("with", [["", "nothing"], ...frame.runs()], parameters.with)),
    field("at", select("right", places, parameters.right)),
    el("div", { class: "buttons" }, el("button", {}, "Show side by side"), parameters.with ? el("button", { type: "button", onclick: () => go("prompt", { ...parameters, with: "", left: "", right: "" }) }, "Show one") : null));
}

export async function show(main, { parameters, frame, signal }) {
  run = parameters.run;
  const { prompts, id } = parameters;
  const [detail, other] = await Promise.all([
    ask("prompt", { run, prompts, id }, signal),
    parameters.with ? ask("prompt", { run: parameters.with, prompts, id }, signal) : null,
  ]);
  const key = { node: detail.prompts, prompt_id: detail.row.prompt_id };
  const now = detail.annotations.find(found => found.node === detail.prompts && found.response_index == null);
  const extra = Object.entries(detail.row).filter(([name]) => !["prompt", "messages", "prompt_id", "chosen", "rejected"].includes(name));
  const head = [
    el("p", { class: "back" }, el("a", { href: address("prompts", listed(run)) }, "← Prompts")),
    el("h1", {}, "Prompt ", el("code", {}, detail.row.prompt_id)),
    el("div", { class: "asked" }, said(detail.row)), facts(extra),
    annotation(run, key, now, { prompt: true, label: "this prompt" }),
    comparison(parameters, detail, frame),
  ];
  const number = value => (value ? Number(value) : null);
  if (other) {
    const title = (name, iteration) => `${name}${iteration ? `, iteration ${iteration}` : ""}`;
    main.replaceChildren(...head, el("div", { class: "sides" },
      side(run, detail, number(parameters.left), title(run, parameters.left)),
      side(parameters.with, other, number(parameters.right), title(parameters.with, parameters.right))));
    return;
  }
  const wanted = number(parameters.left);
  const pool = detail.tables.filter(table => table.kind === "pool").flatMap(table => table.rows.map(row => ({ node: table.node, ...row })));
  main.replaceChildren(...head,
    el("section", {}, el("h2", {}, "Responses"), ...responses(run, detail, wanted)),
    detail.selections.length ? el("section", {}, el("h2", {}, "Why it was selected"), el("ul", { class: "reasons" }, detail.selections.map(reason))) : "",
    detail.pairs.length ? el("section", {}, el("h2", {}, "Pairs"), detail.pairs.map(pair)) : "",
    pool.length ? el("section", {}, el("h2", {}, "Pool"), table("The prompt's responses in the pool", ["node", "iteration", "sampled_iteration", "response_index", "reward", "token_count", "finish_reason"].map(name => ({ title: name.replaceAll("_", " "), value: row => row[name], numeric: typeof pool[0][name] === "number" })), pool, { hidden: true })) : "",
    ...(others(detail, wanted).length ? [el("section", {}, el("h2", {}, "Evaluations and other tables"), ...others(detail, wanted))] : []));
}

export function back() {
  go("prompts", listed(run));
}
