// Two small charts in SVG. A chart is drawn anew from {points: [{x, y, ...}], x: axis, y: axis}; axes come with ticks and
// their texts from the server, so that numbers read as in all reports.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 46, right: 12, top: 10, bottom: 26 };

const shape = (tag, attributes, text) => {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
};

const scale = ({ low, high, log }, from, to) => {
  const place = log ? Math.log : (x) => x;
  const [a, b] = [place(low), place(high)];
  return (value) => from + ((place(value) - a) / (b - a || 1)) * (to - from);
};

// A chart in `box`: `say(point)` gives the words for a point, `pick(point)` is called when one is clicked or entered.
export const chart = (box, { line = false, say, pick }) => {
  const read = document.getElementById(`${box.id}-read`);
  let data = null, here = null, at = -1, places = [];

  const draw = () => {
    if (!data || !data.points.length) { box.replaceChildren(); read.textContent = ""; return; }
    const { width, height } = box.getBoundingClientRect();
    if (!width) return;
    const x = scale(data.x, MARGIN.left, width - MARGIN.right);
    const y = scale(data.y, height - MARGIN.bottom, MARGIN.top);
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    for (const [value, text] of data.y.ticks) {
      svg.append(shape("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }));
      svg.append(shape("text", { x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, text));
    }
    for (const [value, text] of data.x.ticks) {
      svg.append(shape("text", { x: x(value), y: height - 6, "text-anchor": "middle" }, text));
    }
    places = data.points.map((point) => [x(point.x), y(point.y)]);
    if (line) svg.append(shape("polyline", { class: "line", points: places.map((p) => p.join(",")).join(" ") }));
    else for (const [a, b] of places) svg.append(shape("circle", { class: "point", cx: a, cy: b, r: 3.5 }));
    if (here) svg.append(shape("circle", { class: "here", cx: x(here.x), cy: y(here.y), r: 6 }));
    svg.append(shape("line", { class: "cross", y1: MARGIN.top, y2: height - MARGIN.bottom, visibility: "hidden" }));
    svg.append(shape("circle", { class: "lit", r: 6, visibility: "hidden" }));
    box.replaceChildren(svg);
    light(-1);
  };

  const light = (place) => {
    at = place;
    const on = places[place];
    const [cross, ring] = box.querySelectorAll(".cross, .lit");
    if (!cross) return;
    for (const mark of [cross, ring]) mark.setAttribute("visibility", on ? "visible" : "hidden");
    if (on) {
      cross.setAttribute("x1", on[0]);
      cross.setAttribute("x2", on[0]);
      if (!line) cross.setAttribute("visibility", "hidden");
      ring.setAttribute("cx", on[0]);
      ring.setAttribute("cy", on[1]);
    }
    read.textContent = on ? say(data.points[place]) : here ? here.says : "";
  };

  const nearest = (event) => {
    const { left, top } = box.getBoundingClientRect();
    const [a, b] = [event.clientX - left, event.clientY - top];
    let best = -1, least = Infinity;
    places.forEach(([x, y], place) => {
      const far = Math.hypot(x - a, line ? 0 : y - b);
      if (far < least) [best, least] = [place, far];
    });
    return best;
  };

  box.addEventListener("pointermove", (event) => light(nearest(event)));
  box.addEventListener("pointerleave", () => light(-1));
  box.addEventListener("click", (event) => { const place = nearest(event); if (place >= 0) pick(data.points[place]); });
  box.addEventListener("keydown", (event) => {
    if (!places.length) return;
    const order = places.map((_, place) => place).sort((a, b) => places[a][0] - places[b][0]);
    const now = order.indexOf(at);
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };
    if (event.key in steps) {
      const start = now >= 0 ? now + steps[event.key] : steps[event.key] > 0 ? 0 : order.length - 1;
      light(order[Math.max(0, Math.min(order.length - 1, start))]);
    } else if ((event.key === "Enter" || event.key === " ") && at >= 0) pick(data.points[at]);
    else if (event.key === "Escape") light(-1);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(draw).observe(box);

  return {
    show: (found) => { data = found; draw(); },
    mark: (point) => { here = point; draw(); },
  };
};
