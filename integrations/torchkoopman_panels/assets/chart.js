// Axes, lines and a cursor: what most panels are made of.

import { html, pathThrough, stairCorners, svg } from "./dom.js";
import { distinct, linear, logarithmic } from "./numbers.js";

const CHART_MARGIN = { top: 10, right: 14, bottom: 40, left: 66 };
const EDGE = 4; // pixels; a dot on the edge of a chart is seen whole
let clips = 0;

/** A picture of a size, with a name that is read aloud. */
export function picture(width, height, name) {
  return svg(
    "svg",
    { class: "k-picture", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name },
  );
}

/** [value, name] of the ticks of an axis. */
function ticksOf({ ticks, whole }, places) {
  if (ticks) return ticks;
  const values = whole ? places.filter(Number.isInteger) : places;
  const names = distinct(values);
  return values.map((value, k) => [value, names[k]]);
}

/**
 * A rectangle with two axes inside a picture, at a place.
 *
 * x and y have a domain, a label, and may be logarithmic (log), have ticks at whole numbers only (whole), or
 * named ticks (ticks: [value, name]).
 */
export function axes(root, { left = 0, top = 0, width, height, x, y, title, margin = CHART_MARGIN }) {
  const inner = {
    left: left + margin.left,
    right: left + width - margin.right,
    top: top + margin.top + (title ? 16 : 0),
    bottom: top + height - margin.bottom,
  };
  const scaleOf = (axis, pixels) => (axis.log ? logarithmic : linear)(axis.domain, pixels);
  const scaleX = scaleOf(x, [inner.left, inner.right]);
  const scaleY = scaleOf(y, [inner.bottom, inner.top]);
  const frame = svg("g", {});
  const count = Math.max(2, Math.floor((inner.right - inner.left) / 70));
  const ticksX = ticksOf(x, scaleX.ticks(count));
  for (const [value, name] of ticksX) {
    const at = scaleX(value);
    frame.append(
      svg("line", { class: "k-grid", x1: at, x2: at, y1: inner.top, y2: inner.bottom }),
      svg("text", { class: "k-tick", x: at, y: inner.bottom + 15, "text-anchor": "middle" }, name),
    );
  }
  const countY = Math.max(2, Math.floor((inner.bottom - inner.top) / 40));
  const ticksY = ticksOf(y, scaleY.ticks(countY));
  for (const [value, name] of ticksY) {
    const at = scaleY(value);
    frame.append(
      svg("line", { class: "k-grid", x1: inner.left, x2: inner.right, y1: at, y2: at }),
      svg("text", { class: "k-tick", x: inner.left - 6, y: at + 4, "text-anchor": "end" }, name),
    );
  }
  const middle = (inner.left + inner.right) / 2;
  frame.append(
    svg("text", { class: "k-label", x: middle, y: inner.bottom + 32, "text-anchor": "middle" }, x.label ?? ""),
    svg(
      "text",
      {
        class: "k-label",
        "text-anchor": "middle",
        transform: `translate(${left + 11} ${(inner.top + inner.bottom) / 2}) rotate(-90)`,
      },
      y.label ?? "",
    ),
  );
  if (title) {
    frame.append(
      svg("text", { class: "k-subtitle", x: middle, y: top + margin.top + 6, "text-anchor": "middle" }, title),
    );
  }
  const clip = `k-clip-${(clips += 1)}`;
  const size = { width: inner.right - inner.left + 2 * EDGE, height: inner.bottom - inner.top + 2 * EDGE };
  const plot = svg("g", { "clip-path": `url(#${clip})` });
  root.append(
    svg("clipPath", { id: clip }, svg("rect", { x: inner.left - EDGE, y: inner.top - EDGE, ...size })),
    frame,
    plot,
  );
  return { root, plot, x: scaleX, y: scaleY, inner };
}

/** Ticks with the names of steps, where steps have names, such as those of layers; else none. */
export function namedTicks(scene, steps) {
  if (!steps.some((step) => scene.catalog.named(step) !== String(step))) return undefined;
  const every = Math.ceil(steps.length / Math.max(2, Math.floor(scene.width / 70)));
  return steps.filter((_, k) => k % every === 0).map((step) => [step, scene.catalog.named(step)]);
}

/** Lines, as {points, tone, dashed, faint, band, stairs, dots}, on axes. */
export function drawLines(plane, lines) {
  const placed = (points) => points.map(([x, y]) => [plane.x(x), plane.y(y)]);
  for (const line of lines) {
    const tone = `k-tone-${line.tone ?? 0}${line.dashed ? " k-dashed" : ""}${line.faint ? " k-faint" : ""}`;
    const through = line.stairs ? stairCorners : (points) => points;
    if (line.band) {
      const upper = line.band.map(([x, , high]) => [x, high]);
      const lower = line.band.map(([x, low]) => [x, low]);
      const back = pathThrough(through(placed(lower)).reverse()).replace("M", "L");
      const outline = `${pathThrough(through(placed(upper)))}${back}Z`;
      plane.plot.append(svg("path", { class: `k-band ${tone}`, d: outline }));
    }
    if (!line.bare) plane.plot.append(svg("path", { class: `k-line ${tone}`, d: pathThrough(through(placed(line.points))) }));
    if (line.dots) {
      const round = placed(line.points).filter(([x, y]) => Number.isFinite(x + y));
      for (const [cx, cy] of round) {
        plane.plot.append(svg("circle", { class: `k-dot ${tone}`, cx, cy, r: 3 }));
      }
    }
  }
}

/**
 * A vertical line at the current step, on a chart whose x axis are steps; a click chooses one.
 *
 * It lies over the picture, in a layer of its own: a picture of many lines is not painted anew when it moves.
 */
export function stepCursor(plane, scene, over) {
  const { top, bottom, left, right } = plane.inner;
  const line = html("div", { class: "k-cursor", style: `top: ${top}px; height: ${bottom - top}px` });
  over.append(line);
  const move = (step) => {
    const at = Math.min(right, Math.max(left, plane.x(step)));
    line.style.transform = `translateX(${at}px)`;
  };
  let held = false;
  const choose = (event) => {
    const box = plane.root.getBoundingClientRect();
    scene.choose(plane.x.invert(((event.clientX - box.left) * plane.root.viewBox.baseVal.width) / box.width));
  };
  const area = svg("rect", {
    class: "k-area",
    x: left,
    y: top,
    width: right - left,
    height: bottom - top,
    onpointerdown: (event) => {
      held = true;
      area.setPointerCapture(event.pointerId);
      choose(event);
    },
    onpointermove: (event) => held && choose(event),
    onpointerup: () => (held = false),
  });
  plane.root.append(area);
  move(scene.step);
  return move;
}

/** A legend beside the picture: [[class, name], …]; marks differ in shape or dashes, too. */
export function legendItems(root, entries, { left, top, width }) {
  let x = left;
  let y = top;
  for (const { tone = 0, dashed, name, mark } of entries) {
    const space = 30 + name.length * 6.4;
    if (x + space > left + width && x > left) {
      x = left;
      y += 16;
    }
    const classes = `k-tone-${tone}${dashed ? " k-dashed" : ""}`;
    root.append(
      mark ? mark(x + 9, y - 4) : svg("line", { class: `k-line ${classes}`, x1: x, x2: x + 18, y1: y - 4, y2: y - 4 }),
      svg("text", { class: "k-tick", x: x + 24, y }, name),
    );
    x += space;
  }
  return y;
}
