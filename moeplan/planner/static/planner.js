import { chart } from "/static/charts.js";

const find = (id) => document.getElementById(id);
const make = (tag, text = "", attributes = {}) => {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const MAIN = ["flops", "gpus", "days", "memory", "context", "concurrency"];
const LABELS = { flops: "Compute [FLOPs]", gpus: "GPUs", days: "Days", memory: "Memory", context: "Context [tokens]",
  concurrency: "Sequences at a time" };
const START = "flops=1e22&memory=80GB";
const SLOW = ["gpus", "days", "serve-gpus"];

const form = await (await fetch("/api/fields")).json();
const fields = new Map(form.fields.map((field) => [field.name, field]));
let state = new Map();     // what is typed, by field: lists of texts
let pins = [];             // {query, answer}
let answer = null;         // the plan that is shown
const kept = { flops: ["1e22"], gpus: ["256xH100"], days: ["30"] };

// ---- The state and its link.

const read = (query) => {
  const found = new Map(), pinned = [];
  for (const [name, text] of new URLSearchParams(query)) {
    if (name === "pin") pinned.push(text);
    else if (fields.has(name)) found.set(name, [...(found.get(name) ?? []), text]);
  }
  return [found, pinned.slice(0, 2)];
};

const query = (of = state) => {
  const said = new URLSearchParams();
  for (const name of fields.keys()) for (const text of of.get(name) ?? []) if (text.trim()) said.append(name, text.trim());
  return said.toString();
};

const link = () => {
  const said = new URLSearchParams(query());
  for (const pin of pins) said.append("pin", pin.query);
  return `?${said}`;
};

const put = (name, texts, now = true) => {
  const given = texts.filter((text) => text.trim());
  if (given.length) state.set(name, given); else state.delete(name);
  if (now) ask();
};

// ---- The form: a slider and a field for what matters most, a field for everything else.

const nearest = (stops, text) => {
  const value = amount(text);
  let best = 0;
  stops.forEach((stop, place) => {
    if (Math.abs(Math.log(amount(stop) / value)) < Math.abs(Math.log(amount(stops[best]) / value))) best = place;
  });
  return best;
};
// Only to put a slider's knob where it belongs; what is typed is read by the server.
const UNITS = { k: 1e3, m: 1e6, g: 1e9, b: 1e9, t: 1e12, p: 1e15 };
const amount = (text) => {
  const match = /^\s*(?:\d+\s*[x×*]\s*)?([\d._]+(?:e[-+]?\d+)?)\s*([a-z]?)/i.exec(text);
  return match ? Number(match[1].replaceAll("_", "")) * (UNITS[match[2].toLowerCase()] ?? 1) || 1e-9 : 1e-9;
};
// Of "8x80GB" the slider moves the size, of "256xH100" the number.
const typedBy = {
  memory: (stop, old) => (/^\s*\d+\s*[x×*]/.exec(old)?.[0] ?? "") + stop,
  gpus: (stop, old) => `${stop}x${/^\s*\d+\s*[x×*]\s*(.+)$/.exec(old)?.[1] ?? (old.trim() || "H100")}`,
};
const countOf = (name, text) => (name === "gpus" ? /^\s*\d+/.exec(text)?.[0] ?? "1" : text);

const controls = new Map();   // name -> () => renew what it shows

const slider = (name, label, stops, input, change) => {
  const range = make("input", "", { type: "range", min: 0, max: stops.length - 1, step: 1, "aria-label": `${label}, slider` });
  const show = () => {
    const text = input.value || input.placeholder;
    range.value = nearest(stops, countOf(name, text));
    range.setAttribute("aria-valuetext", text);
  };
  range.addEventListener("input", () => {
    input.value = (typedBy[name] ?? ((stop) => stop))(stops[range.value], input.value || input.placeholder);
    range.setAttribute("aria-valuetext", input.value);
    change(input.value);
  });
  return [range, show];
};

const fieldRow = (field, label) => {
  const row = make("div", "", { class: "field", id: `row-${field.name}` });
  const id = `field-${field.name}`;
  row.append(make("label", label ?? field.name.replaceAll("-", " "), { for: id }));
  let input, show;
  if (field.choices.length) {
    input = make("select", "", { id });
    input.append(make("option", field.default || "default", { value: "" }), ...field.choices.map((x) => make("option", x, { value: x })));
    input.addEventListener("change", () => put(field.name, [input.value]));
    show = () => { input.value = state.get(field.name)?.[0] ?? ""; };
  } else {
    input = make("input", "", { id, type: "text", placeholder: field.default || field.example, title: field.help });
    const change = () => put(field.name, field.several ? input.value.split(/[,;\s]+/) : [input.value]);
    input.addEventListener("input", change);
    show = () => { if (document.activeElement !== input) input.value = (state.get(field.name) ?? []).join(" "); };
  }
  row.append(input);
  if (field.stops.length) {
    const [range, place] = slider(field.name, label ?? field.name, field.stops, input, (text) => put(field.name, [text]));
    input.addEventListener("input", place);
    row.append(range);
    const before = show;
    show = () => { before(); place(); };
  } else row.append(make("p", field.help, { class: "hint" }));
  controls.set(field.name, show);
  return row;
};

const build = () => {
  find("main-fields").append(...MAIN.map((name) => fieldRow(fields.get(name), LABELS[name])));
  for (const heading of new Set(form.fields.map((field) => field.heading))) {
    const rest = form.fields.filter((x) => x.heading === heading && !MAIN.includes(x.name) && !["law", "fix"].includes(x.name));
    if (!rest.length) continue;
    const more = make("details");
    const list = make("div", "", { class: "fields" });
    list.append(...rest.map((field) => fieldRow(field)));
    more.append(make("summary", `More of ${heading.toLowerCase()}`), list);
    find("more").append(more);
  }
  find("law-fields").append(...form.laws.map(lawRow));
  find("fix-another").append(make("option", "fix a variable", { value: "" }),
    ...form.variables.map(({ name, meaning }) => make("option", `${name}: ${meaning}`, { value: name })));
  find("fix-another").addEventListener("change", (event) => {
    const known = answer?.variables.find((x) => x.name === event.target.value);
    if (known) { fix([`${known.name}=${known.value}`]); find(`fixed-${known.name}`)?.focus(); }
    event.target.value = "";
  });
  find("export").append(...Object.entries(form.exports).filter(([name]) => !["hf", "megatron"].includes(name))
    .map(([name, what]) => make("option", `${name}: ${what}`, { value: name })));
};

// Laws: ticked ones are maximised; a weight stands behind a name.
const lawRow = (law) => {
  const row = make("div", "", { class: "field law", title: law.title });
  const tick = make("input", "", { type: "checkbox", id: `law-${law.name}` });
  const label = make("label", "", { for: tick.id });
  label.append(tick, make("span", law.name));
  const weight = make("input", "", { type: "text", inputmode: "decimal", placeholder: "1", "aria-label": `Weight of ${law.name}` });
  row.append(label, weight);
  const change = () => put("law", lawTexts());
  tick.addEventListener("change", change);
  weight.addEventListener("input", () => { tick.checked = true; change(); });
  law.tick = tick;
  law.weight = weight;
  controls.set(`law ${law.name}`, () => {
    const given = state.get("law") ?? [];
    const named = given.map((text) => text.split("="));
    const mine = named.find(([name]) => name.split("/")[0] === law.name);
    const whole = named.some(([, weight]) => weight === undefined);
    tick.checked = mine !== undefined || (law.chosen && !whole);
    if (document.activeElement !== weight) weight.value = mine?.[1] ?? "";
  });
  return row;
};
// The default set with weights is said by the weights alone; any other set by naming each law.
const lawTexts = () => {
  const ticked = form.laws.filter((law) => law.tick.checked);
  const usual = form.laws.every((law) => law.tick.checked === law.chosen);
  const weighted = ticked.filter((law) => law.weight.value.trim());
  if (usual) return weighted.map((law) => `${law.name}=${law.weight.value.trim()}`);
  return ticked.map((law) => law.name + (law.weight.value.trim() ? `=${law.weight.value.trim()}` : ""));
};

// Fixed variables: each with a slider around what is near-optimal.
const fixes = () => (state.get("fix") ?? []).map((text) => text.split("=").map((x) => x.trim()));
const fix = (texts) => {
  const names = new Set(texts.map((text) => text.split("=")[0]));
  put("fix", [...(state.get("fix") ?? []).filter((text) => !names.has(text.split("=")[0].trim())), ...texts]);
};
const showFixed = () => {
  const list = find("fixed"), given = fixes();
  find("nothing-fixed").hidden = given.length > 0;
  const names = given.map(([name]) => name).join();
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(...given.map(([name]) => {
      const row = make("div", "", { class: "field fixed" });
      const input = make("input", "", { type: "text", id: `fixed-${name}` });
      const remove = make("button", "×", { type: "button", class: "quiet", "aria-label": `Do not fix ${name}` });
      remove.addEventListener("click", () => {
        put("fix", (state.get("fix") ?? []).filter((text) => text.split("=")[0].trim() !== name));
        find("fix-another").focus();
      });
      input.addEventListener("input", () => { if (input.value.trim()) fix([`${name}=${input.value.trim()}`]); });
      const stops = answer?.variables.find((x) => x.name === name)?.stops ?? [];
      row.append(make("label", name, { for: input.id }), input, remove);
      if (stops.length > 1) {
        const [range, place] = slider(name, name, stops, input, (text) => fix([`${name}=${text}`]));
        row.append(range);
        input.addEventListener("input", place);
        row.place = place;
      }
      return row;
    }));
  }
  for (const [name, value] of given) {
    const input = find(`fixed-${name}`);
    if (document.activeElement !== input) input.value = value;
    input.parentElement.place?.();
  }
};

const showForm = () => {
  const timed = state.has("days");
  document.querySelector(`[name=mode][value=${timed ? "days" : "flops"}]`).checked = true;
  find("row-flops").hidden = timed;
  find("row-days").hidden = !timed;
  find("row-gpus").hidden = !timed && !state.has("gpus");
  for (const show of controls.values()) show();
  showFixed();
};

document.querySelectorAll("[name=mode]").forEach((radio) => radio.addEventListener("change", () => {
  for (const name of ["flops", "gpus", "days"]) if (state.has(name)) kept[name] = state.get(name);
  const names = radio.value === "days" ? ["gpus", "days"] : ["flops"];
  for (const name of ["flops", "gpus", "days"]) put(name, names.includes(name) ? kept[name] : [], false);
  ask();
}));
find("form").addEventListener("submit", (event) => event.preventDefault());
find("reset").addEventListener("click", () => { [state] = read(START); ask(); });

// ---- Asking: one question at a time, the last one typed next; a slow one is left as soon as another is asked.

const post = async (path, body, signal) => {
  for (;;) {
    const got = await fetch(`/api/${path}`, { method: "POST", body, signal });
    if (got.ok) return got;
    if (got.status !== 429) throw new Error((await got.json()).error);
    say("Many searches wait; this one is tried again in a moment.");
    await new Promise((done) => { setTimeout(done, 1000 * Number(got.headers.get("Retry-After") ?? 1)); });
    signal?.throwIfAborted();
  }
};

const say = (text, wrong = false) => { find("status").textContent = text; find("status").classList.toggle("problem", wrong); };
let running = null, again = false, timer = 0;
const slow = () => SLOW.some((name) => state.has(name));

const ask = () => {
  showForm();
  history.replaceState(null, "", link());
  document.body.classList.add("stale");
  clearTimeout(timer);
  if (running && slow()) running.abort();
  timer = setTimeout(start, slow() ? 200 : 15);
};

const start = async () => {
  if (running) { again = true; return; }
  const controller = new AbortController();
  running = controller;
  again = false;
  const asked = query(), since = performance.now();
  say(answer ? "Planning; the answer before is still shown." : "Planning.");
  try {
    const found = await (await post("answer", asked, controller.signal)).json();
    answer = found;
    draw(since);
  } catch (error) {
    if (error.name !== "AbortError") {
      if (asked === query()) document.body.classList.remove("stale");
      say(error instanceof TypeError ? "The planner does not answer; is it still running?" : error.message, true);
      document.body.classList.toggle("failed", true);
    }
  }
  running = null;
  if (again || asked !== query()) { start(); return; }
  beside(asked);
};

// What stands beside the plan is asked for once nothing else is.
const beside = async (asked) => {
  const slots = [["designs", designs], ...(state.has("days") ? [] : [["curve", curve]])];
  find("curve-figure").hidden = state.has("days") || !state.has("memory");
  await Promise.all(slots.map(async ([what, to]) => {
    try {
      const found = await (await post(what, asked)).json();
      if (asked === query()) to.show(found);
    } catch (error) { /* the plan says what is wrong */ }
  }));
  if (asked === query()) document.body.dataset.drawn = asked;
};

// ---- Drawing.

const rows = (table, columns, body, right = []) => {
  const head = make("thead"), names = make("tr"), all = make("tbody");
  names.append(...columns.map((name, place) => make("th", name, { scope: "col", ...(right.includes(place) ? { class: "right" } : {}) })));
  head.append(names);
  all.append(...body.map((cells) => {
    const row = make("tr");
    row.append(...cells.map((cell, place) => {
      const made = make(place ? "td" : "th", typeof cell === "string" ? cell : "", { ...(place ? {} : { scope: "row" }),
        ...(right.includes(place) ? { class: "right" } : typeof cell === "string" && cell.length < 17 ? { class: "short" } : {}) });
      if (typeof cell !== "string") made.append(...[cell].flat());
      return made;
    }));
    return row;
  }));
  table.replaceChildren(head, all);
};

const button = (text, label, act) => {
  const made = make("button", text, { type: "button", "aria-label": label });
  made.addEventListener("click", act);
  return made;
};

const draw = (since) => {
  const seconds = (performance.now() - since) / 1000;
  document.body.classList.remove("stale", "failed");
  find("plan").hidden = false;
  find("title").textContent = answer.title;
  find("lead").textContent = answer.lead;
  find("card").replaceChildren(...answer.card.map(({ name, value, note, strong }) => {
    const tile = make("div", "", strong ? { class: "strong" } : {});
    tile.append(make("dt", name), make("dd", value), ...note.map((text) => make("dd", text, { class: "note" })));
    return tile;
  }));
  find("shape").textContent = answer.shape;
  find("command").textContent = answer.command;
  rows(find("choices"), ["choice", "params", "tokens", "experts", "quality", ""], answer.choices.map((choice) => [choice.rule,
    choice.size, choice.tokens, choice.experts, choice.share, button("Fix", `Fix ${choice.rule}, ${choice.size}`, () => fix(choice.fix))]), [4]);
  rows(find("variables"), ["variable", "plan", "within 5 % of V", "", "what it is"], answer.variables.map((x) => [x.name, x.text,
    x.band, button("Fix", `Fix ${x.name}`, () => { fix([`${x.name}=${x.value}`]); find(`fixed-${x.name}`)?.focus(); }), x.meaning]), [1, 2]);
  find("notes").replaceChildren(...answer.notes.map((text) => make("li", text)));
  designs.mark(answer.point);
  curve.mark(answer.memory_point);
  find("bar").textContent = answer.bar;
  find("bar").hidden = false;
  say(`Planned in ${seconds.toFixed(seconds < 10 ? 1 : 0)} s.`);
  showFixed();
  showPins();
};

const told = (point) => `${point.size}, ${point.experts} experts, ${point.tokens} tokens`;
const designs = chart(find("designs"), { say: (point) => `${told(point)}: quality ${point.share}.`, pick: (point) => fix(point.fix) });
const curve = chart(find("curve"), { line: true, say: (point) => `${point.memory}: ${told(point)}; quality ${point.share} of the budget.`,
  pick: (point) => put("memory", [typedBy.memory(point.memory, state.get("memory")?.[0] ?? "")]) });

// ---- Pins: up to two plans that stay beside the one that is shown.

const pinPlan = async (said) => {
  const pin = { query: said, answer: null };
  pins = [...pins, pin].slice(-2);
  pin.answer = said === query() && answer && !document.body.classList.contains("stale") ? answer : await (await post("answer", said)).json();
  showPins();
};
const showPins = () => {
  history.replaceState(null, "", link());
  const shown = pins.filter((pin) => pin.answer);
  find("pins").hidden = !shown.length || !answer;
  if (find("pins").hidden) return;
  const plans = [...shown.map((pin) => pin.answer), answer];
  const base = new Map(plans[0].rows.map((row) => [row.name, row]));
  const cells = plans.map((plan) => new Map(plan.rows.map((row) => [row.name, row])));
  rows(find("pinned"), ["", ...plans.map(() => "")], [...base.keys()].map((name) => [name, ...cells.map((row, place) => {
    const { text = "-", value = null } = row.get(name) ?? {};
    const first = base.get(name).value;
    const parts = [make("span", text)];
    if (place && value && first && value !== first) parts.push(make("span", `×${(value / first).toPrecision(3)}`, { class: "ratio" }));
    return parts;
  })]));
  const heads = find("pinned").tHead.rows[0].cells;
  plans.forEach((plan, place) => {
    const pin = shown[place];
    heads[place + 1].replaceChildren(make("span", pin ? `Pinned ${"AB"[place]}` : "Now"), make("small", plan.asked));
    if (pin) heads[place + 1].append(
      button("Open", `Plan again as pinned ${"AB"[place]}`, () => { [state] = read(pin.query); ask(); }),
      button("Remove", `Remove pinned ${"AB"[place]}`, () => { pins = pins.filter((x) => x !== pin); showPins(); find("pin").focus(); }));
  });
};
find("pin").addEventListener("click", () => pinPlan(query()));

// ---- Files, the command line, the link.

const download = async (path, name) => {
  const problem = find("download-error");
  problem.hidden = true;
  try {
    const got = await post(path, query());
    const target = make("a", "", { download: name, href: URL.createObjectURL(await got.blob()) });
    target.click();
    setTimeout(() => URL.revokeObjectURL(target.href), 1000);
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
  }
};
document.querySelectorAll("[data-download]").forEach((x) => x.addEventListener("click", () => download(x.dataset.download, x.dataset.name)));
find("export").addEventListener("change", ({ target }) => { if (target.value) download(`export/${target.value}`, `plan.${target.value}.txt`); target.value = ""; });

const copy = async (from, text) => {
  try {
    await navigator.clipboard.writeText(text);
    from.textContent = "Copied";
  } catch { from.textContent = "Not allowed"; }
  setTimeout(() => { from.textContent = from.id === "copy-link" ? "Copy link" : "Copy"; }, 1500);
};
find("copy-link").addEventListener("click", (event) => copy(event.currentTarget, location.href));
find("copy-command").addEventListener("click", (event) => copy(event.currentTarget, answer.command));

// ---- Light and dark, as on the pages.

const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)"), theme = find("theme");
const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
system.addEventListener("change", name);
theme.hidden = false;
name();

build();
const [first, pinned] = read(location.search);
state = first.size ? first : read(START)[0];
ask();
for (const said of pinned) pinPlan(said).catch(() => { pins = pins.filter((pin) => pin.query !== said); });
