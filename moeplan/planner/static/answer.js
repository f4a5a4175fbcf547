// The plan as it is drawn: tiles, tables, two charts, and up to two pinned plans beside it.

import { chart } from "/static/charts.js";
import { fixHere, showFixed, withSize } from "/static/form.js";
import { button, find, fix, keepLink, make, now, post, put, query, read } from "/static/state.js";

const told = (point) => `${point.size}, ${point.experts} experts, ${point.tokens} tokens`;
export const designs = chart(find("designs"), {
  say: (point) => `${told(point)}: quality ${point.share}.`,
  pick: (point) => fix(point.fix),
});
export const curve = chart(find("curve"), {
  line: true,
  say: (point) => `${point.memory}: ${told(point)}; quality ${point.share} of the budget.`,
  pick: (point) => put("memory", [withSize(point.memory)]),
});

// A table of rows of cells, which are texts or elements; `right` are the columns of numbers.
const fill = (table, columns, body, right = []) => {
  const style = (place, cell) => right.includes(place) ? { class: "right" }
    : typeof cell === "string" && cell.length < 17 ? { class: "short" } : {};
  const line = (cells, cell) => {
    const made = make("tr");
    made.append(...cells.map(cell));
    return made;
  };
  const head = make("thead"), all = make("tbody");
  head.append(line(columns, (name, place) => make("th", name, { scope: "col", ...style(place, name) })));
  all.append(...body.map((cells) => line(cells, (cell, place) => {
    const made = make(place ? "td" : "th", "", { ...(place ? {} : { scope: "row" }), ...style(place, cell) });
    made.append(...[cell].flat());
    return made;
  })));
  table.replaceChildren(head, all);
};

const tile = ({ name, value, note, strong }) => {
  const made = make("div", "", strong ? { class: "strong" } : {});
  const [first, ...rest] = value.split(" (");     // an interval stands smaller behind its number
  const said = make("dd", first);
  if (rest.length) said.append(make("small", ` (${rest.join(" (")}`));
  made.append(make("dt", name), said, ...note.map((text) => make("dd", text, { class: "note" })));
  return made;
};

export const draw = () => {
  const { answer } = now;
  document.title = `${answer.bar.split(" ")[0]}: moeplan planner`;
  find("plan").hidden = false;
  for (const name of ["title", "lead", "shape", "bar"]) find(name).textContent = answer[name];
  // A line ends between words, not after the hyphens of an option.
  find("command").replaceChildren(...answer.command.split(" ").flatMap((word, place) =>
    [...(place ? [" "] : []), make("span", word, { class: word.length < 30 ? "word" : "" })]));
  find("bar").hidden = false;
  find("card").replaceChildren(...answer.card.map(tile));
  fill(find("choices"), ["choice", "params", "tokens", "experts", "quality", ""], answer.choices.map((choice) => [choice.rule,
    choice.size, choice.tokens, choice.experts, choice.share,
    button("Fix", `Fix ${choice.rule}, ${choice.size}`, () => fix(choice.fix))]), [4]);
  fill(find("variables"), ["variable", "plan", "within 5 % of V", "", "what it is"], answer.variables.map((x) => [x.name,
    x.text, x.band, button("Fix", `Fix ${x.name}`, () => fixHere(x.name)), x.meaning]), [1, 2]);
  for (const name of ["limits", "notes"]) find(name).replaceChildren(...answer[name].map((text) => make("li", text)));
  designs.mark(answer.point);
  curve.mark(answer.memory_point);
  showFixed();
  showPins();
};

// ---- Pins.

export const pin = async (said) => {
  const made = { query: said, answer: said === now.answer?.of ? now.answer : null };
  now.pins = [...now.pins, made].slice(-2);
  try {
    made.answer ??= await (await post("answer", said)).json();
  } catch {
    now.pins = now.pins.filter((x) => x !== made);
  }
  showPins();
};

const showPins = () => {
  keepLink();
  const shown = now.pins.filter((x) => x.answer);
  find("pins").hidden = !shown.length || !now.answer;
  if (find("pins").hidden) return;
  const plans = [...shown.map((x) => x.answer), now.answer];
  const columns = plans.map((plan) => new Map(plan.rows.map((row) => [row.name, row])));
  fill(find("pinned"), ["", ...plans.map(() => "")], [...columns[0].keys()].map((name) => [name, ...columns.map((rows, place) => {
    const { text, value } = rows.get(name) ?? { text: "-", value: null };
    const first = columns[0].get(name).value;
    const differs = place && value && first && value !== first;
    return [make("span", text), ...(differs ? [make("span", `×${(value / first).toPrecision(3)}`, { class: "ratio" })] : [])];
  })]));
  plans.forEach((plan, place) => {
    const own = shown[place], head = find("pinned").tHead.rows[0].cells[place + 1], name = `pinned ${"AB"[place]}`;
    head.append(make("span", own ? `Pinned ${"AB"[place]}` : "Now"), make("small", plan.asked));
    if (own) head.append(
      button("Open", `Plan again as ${name}`, () => { [now.state] = read(own.query); now.changed(); }),
      button("Remove", `Remove ${name}`, () => { now.pins = now.pins.filter((x) => x !== own); showPins(); find("pin").focus(); }));
  });
};
find("pin").addEventListener("click", () => pin(query()));
