// Pictures: plots of numbers over time, and the lives of workers. Plain SVG, made of elements and attributes.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 90;

function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// A plot of one or two lines: `points` are [milliseconds, number or null]; a null leaves a gap.
class Plot {
  constructor(parent, name, lines, write) {
    this.write = write;
    this.lines = lines.map((label) => ({ label, points: [] }));
    const box = document.createElement("div");
    const title = document.createElement("h3");
    title.textContent = name;
    this.value = document.createElement("p");
    this.svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    box.append(title, this.value, this.svg);
    parent.append(box);
    this.name = name;
  }

  add(time, numbers, span) {
    this.lines.forEach((line, at) => {
      line.points.push([time, numbers[at]]);
      while (line.points[0][0] < time - span) line.points.shift();
    });
    const words = this.lines.map(({ label }, at) =>
      `${label}${numbers[at] === null ? "–" : this.write(numbers[at])}`);
    this.value.textContent = words.join(", ");
    this.svg.setAttribute("aria-label", `${this.name}: ${this.value.textContent}`);
    this.draw(time, Math.min(span, Math.max(60000, time - this.lines[0].points[0][0])));
  }

  draw(time, span) {
    const known = this.lines.flatMap(({ points }) => points.map(([, number]) => number ?? 0));
    const most = Math.max(...known) || 1;
    const across = (at) => (WIDTH * (1 - (time - at) / span)).toFixed(1);
    const up = (number) => (HEIGHT - 2 - (HEIGHT - 18) * number / most).toFixed(1);
    const shapes = [
      shape("line", { x1: 0, x2: WIDTH, y1: up(0), y2: up(0), class: "axis" }),
      shape("line", { x1: 0, x2: WIDTH, y1: up(most), y2: up(most), class: "axis" }),
      shape("text", { x: 0, y: 11 }, this.write(most)),
    ];
    this.lines.forEach(({ points }, at) => {
      let [path, pen] = ["", "M"];
      for (const [when, number] of points) {
        if (number === null) {
          pen = "M";
          continue;
        }
        // A point alone is a dot.
        path += `${pen}${across(when)} ${up(number)}${pen === "M" ? "h0.1" : ""}`;
        pen = "L";
      }
      shapes.push(shape("path", { d: path, class: at === 0 ? "first" : "second" }));
    });
    this.svg.replaceChildren(...shapes);
  }
}

// The lives of workers as bars, a line for each slot. A life has a slot, a pid, and spans of
// { from, to, state } in milliseconds.
function drawLives(parent, lives, now, span) {
  const slots = [...new Set(lives.map(({ slot }) => slot))].sort((a, b) => a - b);
  const [line, left] = [16, 28];
  const height = slots.length * line + 14;
  const svg = shape("svg", {
    viewBox: `0 0 600 ${height}`, role: "img",
    "aria-label": `The lives of ${lives.length} workers in ${slots.length} slots; the table has the living`,
  });
  const across = (at) => left + (600 - left) * Math.max(0, 1 - (now - at) / span);
  slots.forEach((slot, at) => {
    svg.append(shape("text", { x: 0, y: at * line + 11 }, String(slot)));
    for (const life of lives.filter((it) => it.slot === slot)) {
      for (const { from, to, state } of life.spans) {
        const [x, end] = [across(from), across(to)];
        const bar = shape("rect", {
          x: x.toFixed(1), width: Math.max(2, end - x).toFixed(1), y: at * line + 2, height: line - 5,
          class: state,
        });
        bar.append(shape("title", {}, `worker ${slot}, pid ${life.pid}: ${state}`));
        svg.append(bar);
      }
    }
  });
  svg.append(shape("text", { x: left, y: height - 1 }, `${(span / 60000).toFixed(span < 120000 ? 1 : 0)} min ago`));
  svg.append(shape("text", { x: 600, y: height - 1, "text-anchor": "end" }, "now"));
  parent.replaceChildren(svg);
}
