// What is typed, its link, and what is known of the form: the one place that all parts of the page share.

export const find = (id) => document.getElementById(id);
export const make = (tag, text = "", attributes = {}) => {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
export const button = (text, label, act) => {
  const made = make("button", text, { type: "button", "aria-label": label });
  made.addEventListener("click", act);
  return made;
};

export const form = await (await fetch("/api/fields")).json();
export const fields = new Map(form.fields.map((field) => [field.name, field]));
export const START = "flops=1e22&memory=80GB";

export const now = {
  state: new Map(),     // what is typed, by field: lists of texts
  pins: [],             // plans that stay: {query, answer}
  answer: null,         // the plan that is shown
  changed: () => {},    // called after the state was changed
};

// A link's query as a state and the queries of pinned plans.
export const read = (query) => {
  const found = new Map(), pinned = [];
  for (const [name, text] of new URLSearchParams(query)) {
    if (name === "pin") pinned.push(text);
    else if (fields.has(name)) found.set(name, [...(found.get(name) ?? []), text]);
  }
  return [found, pinned.slice(0, 2)];
};

// The state as a query: one field after the other, so that the same state is the same text.
export const query = () => {
  const said = new URLSearchParams();
  for (const name of fields.keys()) for (const text of now.state.get(name) ?? []) said.append(name, text.trim());
  return said.toString();
};

export const keepLink = () => {
  const said = new URLSearchParams(query());
  for (const pin of now.pins) said.append("pin", pin.query);
  history.replaceState(null, "", `?${said}`);
};

export const put = (name, texts, ask = true) => {
  const given = texts.filter((text) => text.trim());
  if (given.length) now.state.set(name, given); else now.state.delete(name);
  if (ask) now.changed();
};

// Fixed variables: what is fixed already stays, but for those named anew.
export const fixed = () => (now.state.get("fix") ?? []).map((text) => text.split("=").map((part) => part.trim()));
export const fix = (texts) => {
  const names = new Set(texts.map((text) => text.split("=")[0]));
  put("fix", [...(now.state.get("fix") ?? []).filter((text) => !names.has(text.split("=")[0].trim())), ...texts]);
};
export const free = (name) => put("fix", (now.state.get("fix") ?? []).filter((text) => text.split("=")[0].trim() !== name));

// The last question asked again after a moment where too many wait; raises what the server says is wrong.
export const post = async (path, body, signal, busy = () => {}) => {
  for (;;) {
    const got = await fetch(`/api/${path}`, { method: "POST", body, signal }).catch((error) => {
      throw error.name === "AbortError" ? error : new Error("The planner does not answer; is it still running?");
    });
    if (got.ok) return got;
    if (got.status !== 429) throw new Error((await got.json()).error);
    busy();
    await new Promise((done) => { setTimeout(done, 1000 * Number(got.headers.get("Retry-After") ?? 1)); });
    signal?.throwIfAborted();
  }
};
