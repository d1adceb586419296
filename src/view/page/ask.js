// Questions to the server, and the address of the page: `#/page?parameters`.

/** The parameters that have a value. */
function given(parameters) {
  return new URLSearchParams(Object.entries(parameters).filter(([, value]) => value != null && value !== "" && value !== false));
}

async function answer(response) {
  const json = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(json.error ?? `the server answered ${response.status}`);
  return json;
}

/** The answer to a question. */
export async function ask(path, parameters, signal) {
  return answer(await fetch(`/api/${path}?${given(parameters)}`, { signal }));
}

/** Sets a flag and a note. */
export async function annotate(run, annotation) {
  const body = JSON.stringify(annotation);
  return answer(await fetch(`/api/annotations?${given({ run })}`, { method: "POST", headers: { "content-type": "application/json" }, body }));
}

/** The page and the parameters of the address. */
export function place() {
  const [page, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { page: page || "overview", parameters: Object.fromEntries(new URLSearchParams(query)) };
}

/** The address of a page. */
export function address(page, parameters) {
  return `#/${page}?${given(parameters)}`;
}

/** Opens a page. */
export function go(page, parameters) {
  location.hash = address(page, parameters);
}
