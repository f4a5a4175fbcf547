// The form: a slider and a field for what matters most, a field for everything else, fixed variables, laws and weights.
// What is typed is read by the server alone; here a number is only told roughly, to put a slider's knob where it belongs.

import { button, fields, find, fix, fixed, form, free, make, now, put, read, START } from "/static/state.js";

const MAIN = ["flops", "gpus", "days", "memory", "context", "concurrency"];
const LABELS = { flops: "Compute [FLOPs]", gpus: "GPUs", days: "Days", memory: "Memory", context: "Context [tokens]",
  concurrency: "Sequences at a time" };
const UNITS = { k: 1e3, m: 1e6, g: 1e9, b: 1e9, t: 1e12, p: 1e15 };
const COUNT = /^\s*(\d+)\s*[x×*]\s*/;
const shows = [];     // each renews what one control shows
const kept = { flops: ["1e22"], gpus: ["256xH100"], days: ["30"] };

const amount = (text) => {
  const [, number, unit] = /([\d._]+(?:e[-+]?\d+)?)\s*([a-z]?)/i.exec(text) ?? [];
  return Number(number?.replaceAll("_", "")) * (UNITS[unit?.toLowerCase()] ?? 1) || 1e-9;
};
// Of "8x80GB" a slider moves the size, of "256xH100" the number.
const moves = {
  memory: { part: (text) => text.replace(COUNT, ""), whole: (stop, text) => (COUNT.exec(text)?.[0] ?? "") + stop },
  gpus: { part: (text) => COUNT.exec(text)?.[1] ?? "1", whole: (stop, text) => `${stop}x${text.replace(COUNT, "") || "H100"}` },
};
const plain = { part: (text) => text, whole: (stop) => stop };
export const withSize = (size) => moves.memory.whole(size, now.state.get("memory")?.[0] ?? "");

// A slider over the texts of `stops`, beside the field `input`: the slider and what puts its knob where the field says.
const slider = (name, label, stops, input, change) => {
  const { part, whole } = moves[name] ?? plain;
  const range = make("input", "", { type: "range", id: `slide-${name}`, min: 0, max: stops.length - 1, step: 1, "aria-label": `${label}, slider` });
  const values = stops.map((stop) => Math.log(amount(stop)));
  const place = () => {
    const text = input.value || input.placeholder;
    const value = Math.log(amount(part(text)));
    range.value = values.reduce((best, x, at) => (Math.abs(x - value) < Math.abs(values[best] - value) ? at : best), 0);
    range.setAttribute("aria-valuetext", text);
  };
  range.addEventListener("input", () => {
    input.value = whole(stops[range.value], input.value || input.placeholder);
    range.setAttribute("aria-valuetext", input.value);
    change(input.value);
  });
  input.addEventListener("input", place);
  return [range, place];
};

const row = (field, label = field.name.replaceAll("-", " ")) => {
  const made = make("div", "", { class: "field", id: `row-${field.name}` });
  const id = `field-${field.name}`;
  const given = () => now.state.get(field.name) ?? [];
  let input, show;
  if (field.choices.length) {
    input = make("select", "", { id });
    input.append(make("option", field.default || "default", { value: "" }), ...field.choices.map((x) => make("option", x, { value: x })));
    input.addEventListener("change", () => put(field.name, [input.value]));
    show = () => { input.value = given()[0] ?? ""; };
  } else {
    input = make("input", "", { id, type: "text", placeholder: field.default || field.example, title: field.help });
    const [between, join] = field.example.includes("=") ? [/[,;\s]+/, " "] : [/;/, "; "];
    input.addEventListener("input", () => put(field.name, field.several ? input.value.split(between) : [input.value]));
    show = () => { if (document.activeElement !== input) input.value = given().join(join); };
    if (field.name.endsWith("gpus")) input.setAttribute("list", "devices");
  }
  made.append(make("label", label, { for: id }), input);
  if (field.stops.length) {
    const [range, place] = slider(field.name, label, field.stops, input, (text) => put(field.name, [text]));
    made.append(range);
    shows.push(() => { show(); place(); });
  } else {
    made.append(make("p", field.help, { class: "hint" }));
    shows.push(show);
  }
  return made;
};

// Laws: ticked ones are maximised, each with its weight. The default set is said by its weights alone.
const lawTexts = () => {
  const usual = form.laws.every((law) => law.tick.checked === law.chosen);
  return form.laws.filter((law) => law.tick.checked && !(usual && !law.weight.value.trim()))
    .map((law) => law.name + (law.weight.value.trim() ? `=${law.weight.value.trim()}` : ""));
};
const lawRow = (law) => {
  const made = make("div", "", { class: "field law", title: law.title });
  const label = make("label");
  law.tick = make("input", "", { type: "checkbox", id: `law-${law.name}` });
  law.weight = make("input", "", { type: "text", id: `weight-${law.name}`, inputmode: "decimal", placeholder: "1", "aria-label": `Weight of ${law.name}` });
  label.append(law.tick, make("span", law.name));
  made.append(label, law.weight);
  law.tick.addEventListener("change", () => put("law", lawTexts()));
  law.weight.addEventListener("input", () => { law.tick.checked = true; put("law", lawTexts()); });
  shows.push(() => {
    const named = (now.state.get("law") ?? []).map((text) => text.split("="));
    const own = named.find(([name]) => name.split("/")[0] === law.name);
    law.tick.checked = own !== undefined || (law.chosen && named.every(([, weight]) => weight !== undefined));
    if (document.activeElement !== law.weight) law.weight.value = own?.[1] ?? "";
  });
  return made;
};

// Fixed variables: each with a slider around what is near-optimal.
const fixedRow = ([name]) => {
  const made = make("div", "", { class: "field fixed" });
  const input = make("input", "", { type: "text", id: `fixed-${name}` });
  const remove = button("×", `Do not fix ${name}`, () => { free(name); find("fix-another").focus(); });
  remove.className = "quiet";
  input.addEventListener("input", () => { if (input.value.trim()) fix([`${name}=${input.value.trim()}`]); });
  made.append(make("label", name, { for: input.id }), input, remove);
  const stops = now.answer?.variables.find((x) => x.name === name)?.stops ?? [];
  if (stops.length > 1) {
    const [range, place] = slider(name, name, stops, input, (text) => fix([`${name}=${text}`]));
    made.append(range);
    made.place = place;
  }
  return made;
};
export const showFixed = () => {
  const list = find("fixed"), given = fixed();
  find("nothing-fixed").hidden = given.length > 0;
  const names = [now.answer !== null, ...given.map(([name]) => name)].join();
  if (list.dataset.names !== names && !list.contains(document.activeElement)) {
    list.dataset.names = names;
    list.replaceChildren(...given.map(fixedRow));
  }
  for (const [name, value] of given) {
    const input = find(`fixed-${name}`);
    if (input && document.activeElement !== input) input.value = value;
    input?.parentElement.place?.();
  }
};
export const fixHere = (name) => {
  const known = now.answer?.variables.find((x) => x.name === name);
  if (!known) return;
  fix([`${name}=${known.value}`]);
  find(`fixed-${name}`)?.focus();
};

export const showForm = () => {
  const timed = now.state.has("days");
  find(timed ? "mode-days" : "mode-flops").checked = true;
  find("row-flops").hidden = timed;
  find("row-days").hidden = !timed;
  find("row-gpus").hidden = !timed && !now.state.has("gpus");
  for (const show of shows) show();
  showFixed();
};

export const build = () => {
  find("main-fields").append(...MAIN.map((name) => row(fields.get(name), LABELS[name])));
  for (const heading of new Set(form.fields.map((field) => field.heading))) {
    const rest = form.fields.filter(({ heading: own, name }) => own === heading && ![...MAIN, "law", "fix"].includes(name));
    if (!rest.length) continue;
    const more = make("details");
    more.append(make("summary", `More of ${heading.toLowerCase()}`), ...rest.map((field) => row(field)));
    find("more").append(more);
  }
  find("law-fields").append(...form.laws.map(lawRow));
  find("devices").append(...form.devices.flatMap((name) => [8, 256].map((count) => make("option", "", { value: `${count}x${name}` }))));
  find("fix-another").append(make("option", "fix a variable", { value: "" }),
    ...form.variables.map(({ name, meaning }) => make("option", `${name}: ${meaning}`, { value: name })));
  find("fix-another").addEventListener("change", ({ target }) => { fixHere(target.value); target.value = ""; });
  for (const mode of ["flops", "days"]) find(`mode-${mode}`).addEventListener("change", () => {
    for (const name of ["flops", "gpus", "days"]) if (now.state.has(name)) kept[name] = now.state.get(name);
    for (const name of ["flops", "gpus", "days"]) put(name, (name === "flops") === (mode === "flops") ? kept[name] : [], false);
    now.changed();
  });
  find("form").addEventListener("submit", (event) => event.preventDefault());
  find("reset").addEventListener("click", () => { [now.state] = read(START); now.changed(); });
};
