
(() => {
  "use strict";
  const find = (id) => document.getElementById(id);
  const make = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
  const root = document.documentElement;

  // Light and dark: what the system says, until the button is pressed.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const theme = find("theme");
  const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  system.addEventListener("change", name);
  theme.hidden = false;
  name();

  // On a phone the table of contents starts closed.
  if (matchMedia("(max-width: 60rem)").matches) find("contents").open = false;

  // The panel that says where a number comes from.
  const panel = find("panel");
  let opener = null;

  const title = (element) => element.closest("section, .hero").querySelector("h1, h2, h3")?.textContent ?? "";

  // What a number is: its row and column, its name on the card, or the section it stands in.
  const what = (number) => {
    const card = number.closest(".card > div");
    if (card) return card.querySelector("dt").textContent;
    const cell = number.closest("td, th");
    if (!cell) return title(number);
    const row = [...cell.parentElement.cells];
    const header = cell.closest("table").tHead?.rows[0].cells[cell.cellIndex]?.textContent;
    const words = row.slice(0, 2).filter((x) => x !== cell && !x.classList.contains("right")).map((x) => x.textContent);
    return [...words, header].filter(Boolean).join(" · ") || title(number);
  };

  const close = () => {
    panel.hidden = true;
    if (opener) {
      opener.removeAttribute("aria-expanded");
      opener.focus?.({ preventScroll: true });
    }
    opener = null;
  };

  const open = (from, value, says, source, record) => {
    if (opener && opener !== from) opener.removeAttribute("aria-expanded");
    opener = from;
    find("panel-value").textContent = value;
    find("panel-what").textContent = says;
    const parts = [];
    if (value.includes("*")) {
      parts.push(make("p", "Marked *: extrapolated, outside the range that the law was measured on."));
    }
    const item = find(`source-${source}`);
    if (item) {
      const words = document.createElement("div");
      words.append(...[...item.childNodes].map((x) => x.cloneNode(true)));
      parts.push(words);
      words.querySelectorAll(".laws a").forEach((link) => link.replaceWith(link.textContent));
      for (const link of item.querySelectorAll(".laws a")) {
        const law = document.createElement("div");
        law.append(...[...find(link.hash.slice(1)).childNodes].map((x) => x.cloneNode(true)));
        parts.push(law);
      }
    }
    find("panel-says").replaceChildren(...parts);
    find("panel-record").replaceChildren(...record.flatMap(([key, text]) => [make("dt", key), make("dd", text)]));
    panel.hidden = false;
    panel.scrollTop = 0;
    from.setAttribute?.("aria-expanded", "true");
    find("close").focus({ preventScroll: true });
  };

  document.addEventListener("click", (event) => {
    const number = event.target.closest?.(".n");
    if (number) {
      const { source, path, value } = number.dataset;
      const record = path ? [["JSON", path], ["", value]] : [];
      open(number, number.textContent, what(number), source, record);
      return;
    }
    const point = event.target.closest?.(".plot .p[data-source]");
    if (point) open(point, point.dataset.says, point.dataset.name, point.dataset.source, []);
    else if (!panel.hidden && !panel.contains(event.target)) close();
  });
  find("close").addEventListener("click", close);

  // Enter and Space ask, Escape closes; arrow keys go from number to number, up and down within a table's column.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !panel.hidden) { close(); return; }
    const number = event.target.closest?.(".n");
    if (!number || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      number.click();
      return;
    }
    const cell = number.closest("td, th");
    let next = null;
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && cell) {
      const rows = [...cell.closest("table").rows];
      const step = event.key === "ArrowDown" ? 1 : -1;
      for (let at = cell.parentElement.rowIndex + step; rows[at] && !next; at += step) {
        next = rows[at].cells[cell.cellIndex]?.querySelector(".n");
      }
    } else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const all = [...document.querySelectorAll(".n")].filter((x) => x.checkVisibility());
      next = all[all.indexOf(number) + (event.key === "ArrowRight" ? 1 : -1)];
    } else return;
    event.preventDefault();
    next?.focus();
  });

  // Charts: the pointer is told what a point says, in a box that follows it; the legend hides and shows series.
  const tip = find("tip");
  for (const point of document.querySelectorAll(".plot .p")) {
    const title = point.querySelector("title");
    point.dataset.says = title.textContent;
    title.remove();
  }
  document.addEventListener("pointermove", (event) => {
    const point = event.target.closest?.(".plot .p");
    tip.hidden = !point;
    if (!point) return;
    tip.textContent = point.dataset.says;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${event.clientY > height + 24 ? event.clientY - height - 14 : event.clientY + 18}px`;
  });
  const toggle = (key) => {
    const off = key.getAttribute("aria-pressed") === "true";
    key.setAttribute("aria-pressed", String(!off));
    key.closest("svg").querySelector(`.series[data-look="${key.dataset.look}"]`).classList.toggle("off", off);
  };
  for (const key of document.querySelectorAll(".plot .key[data-look]")) {
    for (const [name, value] of [["role", "button"], ["tabindex", "0"], ["aria-pressed", "true"]]) {
      key.setAttribute(name, value);
    }
    key.addEventListener("click", () => toggle(key));
    key.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      toggle(key);
    });
  }

  // Underlines, where somebody wants to see which numbers can be asked.
  const marks = find("marks");
  marks.hidden = false;
  marks.addEventListener("click", () => {
    const on = root.toggleAttribute("data-marks");
    marks.setAttribute("aria-pressed", String(on));
  });

  // The record.
  const download = find("download");
  download.hidden = false;
  download.addEventListener("click", () => {
    const blob = new Blob([find("record").textContent, "\n"], { type: "application/json" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = download.dataset.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
})();
