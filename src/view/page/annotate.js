// A flag and a note on a row.
import { annotate } from "./ask.js";
import { el, field } from "./dom.js";

/** The controls of a row. `key` names the row, `now` is its annotation, `options.prompt` marks the prompt's own, for the key f. */
export function annotation(run, key, now = {}, options = {}) {
  let flagged = Boolean(now.flagged);
  let note = now.note ?? "";
  const said = el("span", { class: "said", role: "status" });
  const flag = el("button", { type: "button", class: "flag", "aria-pressed": String(flagged), "data-flag": options.prompt ? "" : null });
  const area = el("textarea", { rows: "2", maxlength: "20000" });
  const summary = el("summary", {});
  const draw = () => {
    flag.setAttribute("aria-pressed", String(flagged));
    flag.textContent = flagged ? "⚑ Flagged" : "⚐ Flag";
    summary.textContent = note ? `Note: ${note.length > 60 ? `${note.slice(0, 60)}…` : note}` : "Add a note";
    area.value = note;
  };
  async function save(change) {
    const before = { flagged, note };
    ({ flagged, note } = { flagged, note, ...change });
    draw();
    try {
      const kept = await annotate(run, { ...key, flagged, note: note || null });
      note = kept.note ?? "";
      said.textContent = "saved";
      draw();
    } catch (error) {
      ({ flagged, note } = before);
      draw();
      said.textContent = error.message;
    }
  }
  flag.addEventListener("click", () => save({ flagged: !flagged }));
  const form = el("form", { onsubmit: event => { event.preventDefault(); save({ note: area.value.trim() }); } },
    field(`Note on ${options.label ?? "this row"}`, area), el("button", {}, "Save the note"));
  draw();
  return el("div", { class: "annotation" }, flag, el("details", { class: "note" }, summary, form), said);
}
