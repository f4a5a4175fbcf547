// The planner's page: asks what the form holds, one question at a time, and draws the answer.

import { curve, designs, draw, pin } from "/static/answer.js";
import { build, showForm } from "/static/form.js";
import { find, form, keepLink, make, now, post, query, read, START } from "/static/state.js";

// ---- Asking. The last thing typed is asked next; a slow question is left as soon as another is there.

const SLOW = ["gpus", "days", "serve-gpus"];
const slow = () => SLOW.some((name) => now.state.has(name));
let running = null, again = false, timer = 0;

const say = (text, wrong = false) => {
  find("status").textContent = text;
  find("status").classList.toggle("problem", wrong);
};

// What is typed now is what is wrong, if anything is.
const blame = (wrong) => {
  for (const field of document.querySelectorAll("#form [aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  }
  const typing = document.activeElement;
  if (!wrong || !find("form").contains(typing) || typing.type !== "text") return;
  typing.setAttribute("aria-invalid", "true");
  typing.setAttribute("aria-describedby", "status");
};

const changed = () => {
  showForm();
  document.body.classList.add("stale");
  clearTimeout(timer);
  if (running && slow()) running.abort();
  timer = setTimeout(start, slow() ? 200 : 10);
};

const start = async () => {
  if (running) { again = true; return; }
  running = new AbortController();
  again = false;
  const asked = query(), since = performance.now();
  keepLink();
  say(now.answer ? "Planning; the answer before is still shown." : "Planning.");
  try {
    const busy = () => say("Many searches wait; this one is tried again in a moment.");
    now.answer = await (await post("answer", asked, running.signal, busy)).json();
    now.answer.of = asked;
    const seconds = (performance.now() - since) / 1000;
    say(`Planned in ${seconds.toFixed(seconds < 10 ? 1 : 0)} s.`);
    document.body.classList.remove("failed");
    blame(false);
    if (asked === query()) document.body.classList.remove("stale");
    draw();
    document.body.dataset.planned = asked;
  } catch (error) {
    if (error.name !== "AbortError") {
      say(error.message, true);
      document.body.classList.remove("stale");
      document.body.classList.add("failed");
      blame(true);
    }
  }
  running = null;
  if (again || asked !== query()) start();
  else if (now.answer?.of === asked) beside(asked);
};

// What stands beside the plan is asked for once nothing else is.
const beside = async (asked) => {
  const timed = now.state.has("days");
  find("curve-figure").hidden = timed || !now.state.has("memory");
  find("no-curve").hidden = !timed || !now.state.has("memory");
  const wanted = [["designs", designs], ...(find("curve-figure").hidden ? [] : [["curve", curve]])];
  await Promise.allSettled(wanted.map(async ([what, to]) => {
    const found = await (await post(what, asked)).json();
    if (asked === query()) to.show(found);
  }));
  if (asked === query()) document.body.dataset.drawn = asked;
};

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
for (const x of document.querySelectorAll("[data-download]")) {
  x.addEventListener("click", () => download(x.dataset.download, x.dataset.name));
}
find("export").append(...Object.entries(form.exports).filter(([name]) => !["hf", "megatron"].includes(name))
  .map(([name, what]) => make("option", `${name}: ${what}`, { value: name })));
find("export").addEventListener("change", ({ target }) => {
  if (target.value) download(`export/${target.value}`, `plan.${target.value}.txt`);
  target.value = "";
});

const copy = async ({ currentTarget: from }, text) => {
  const before = from.dataset.says ??= from.textContent;
  try {
    await navigator.clipboard.writeText(text);
    from.textContent = "Copied";
  } catch { from.textContent = "Not allowed"; }
  setTimeout(() => { from.textContent = before; }, 1500);
};
find("copy-link").addEventListener("click", (event) => copy(event, location.href));
find("copy-command").addEventListener("click", (event) => copy(event, now.answer.command));

// ---- Light and dark, as on the pages.

const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)"), theme = find("theme");
const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
system.addEventListener("change", name);
theme.hidden = false;
name();

build();
now.changed = changed;
const [state, pinned] = read(location.search);
now.state = state.size ? state : read(START)[0];
pinned.forEach(pin);
changed();
