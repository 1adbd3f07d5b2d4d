// Attractors through the steps: how many, who converges, how far apart sets are, radii and norms.

import { axes, drawLines, legendItems, namedTicks, picture, stepCursor } from "./chart.js";
import { svg } from "./dom.js";
import { extent, number } from "./numbers.js";

const FLOW_HEIGHT = 220;
const FLOW_TONES = 6;
const ATTRACTOR_COLUMNS = 5;
const TRACK = 0;
const RADIUS = 1;
const NORM = 2;
const MOVED = 3;
const SHARE = 4;

/** One value of each step, such as the attractors from one set of starts, as [step, value]. */
function courseOf(block, index) {
  return [...block.course(index)].map((value, position) => [block.steps[position], value]);
}

/** The attractors of one step, as rows of the columns of schema.py. */
function attractorsAt({ block }, position) {
  const rows = Array.from({ length: block.shape[0] }, (_, row) =>
    Array.from({ length: ATTRACTOR_COLUMNS }, (_, column) => block.cell(position, row * ATTRACTOR_COLUMNS + column)),
  );
  return rows.filter((row) => Number.isFinite(row[TRACK]));
}

/** Pairs of sets, with the place of their distance in a row. */
function pairsOf(starts) {
  return starts.flatMap((name, row) =>
    starts.slice(row + 1).map((other, k) => [`${name} to ${other}`, row * (3 + starts.length) + 3 + row + 1 + k]),
  );
}

/** The charts there is something for: a label, lines with names, and the least and largest value. */
function chartsOf({ flow }) {
  const { starts } = flow.about;
  const columns = 3 + starts.length;
  const lines = (names, place, look = {}) =>
    names.map((name, k) => ({ name, points: courseOf(flow.block, place(k)), tone: k % FLOW_TONES, dots: true, ...look }));
  const pairs = pairsOf(starts);
  const found = [
    { label: "attractors", lines: lines(starts, (k) => k * columns), whole: true },
    {
      label: "share of starts",
      lines: [
        ...lines(starts.map((name) => `${name}, converged`), (k) => k * columns + 1),
        ...lines(starts.map((name) => `${name}, diverged`), (k) => k * columns + 2, { dashed: true, dots: false }),
      ],
      domain: [-0.02, 1.02],
    },
    { label: "Chamfer, spreads", lines: lines(pairs.map(([name]) => name), (k) => pairs[k][1]) },
  ];
  return found.filter((chart) => chart.lines.some(({ points }) => points.some(([, value]) => Number.isFinite(value))));
}

/** Radii of all attractors as dots, and their norms as paler ones, beside the line at 1. */
function drawRates(plane, series) {
  const y = plane.y(1);
  plane.plot.append(svg("line", { class: "k-circle", x1: plane.inner.left, x2: plane.inner.right, y1: y, y2: y }));
  for (const [column, tone] of [[NORM, 1], [RADIUS, 0]]) {
    const marks = series.block.steps.flatMap((step, position) =>
      attractorsAt(series, position).map((row) => [plane.x(step), plane.y(row[column])]),
    );
    const d = marks.filter(([x, at]) => Number.isFinite(x + at)).map(([x, at]) => `M${x.toFixed(1)} ${at.toFixed(1)}h0`).join("");
    if (d) plane.plot.append(svg("path", { class: `k-cloud k-tone-${tone}`, d, "data-column": column }));
  }
}

/** What has become of the attractors, in a sentence. */
function changesAt({ changes, attractors }, step) {
  if (!changes) return "";
  const { block } = changes;
  const [count, born, gone, moved] = block.array(block.position(step));
  const rows = attractors ? attractorsAt(attractors, attractors.block.position(step)) : [];
  const most = (column) => Math.max(...rows.map((row) => row[column]));
  const parts = [`${count} ${count === 1 ? "attractor" : "attractors"}, ${born} born since the look before, ${gone} gone`];
  if (Number.isFinite(moved)) parts.push(`the others moved by ${number(moved)} spreads in the median`);
  if (rows.length) parts.push(`largest radius ${number(most(RADIUS))}, largest norm ${number(most(NORM))}`);
  if (rows.length < count) parts.push(`the ${rows.length} that most starts lead to are drawn`);
  return `${parts.join("; ")}.`;
}

function drawFlow(box, scene) {
  const { flow, attractors } = scene.own;
  const root = picture(scene.width, 10, "Attractors through all steps");
  const { steps } = flow.block;
  const x = { domain: extent(steps), label: scene.catalog.axis, ticks: namedTicks(scene, steps) };
  const moves = [];
  let top = 0;
  const below = (plane, entries) => {
    const place = { left: plane.inner.left, top: top + FLOW_HEIGHT + 6, width: plane.inner.right - plane.inner.left };
    const bottom = legendItems(root, entries, place);
    moves.push(stepCursor(plane, scene, box));
    top = bottom + 14;
  };
  for (const { label, lines, domain, whole } of chartsOf(scene.own)) {
    const high = extent(lines.flatMap(({ points }) => points.map(([, value]) => value)))[1];
    const y = { domain: domain ?? [0, 1.05 * high || 1], label, whole };
    const plane = axes(root, { top, width: scene.width, height: FLOW_HEIGHT, x, y });
    drawLines(plane, lines);
    below(plane, lines.map(({ name, tone, dashed }) => ({ name, tone, dashed })));
  }
  if (attractors) {
    const all = attractors.block.steps.flatMap((_, position) => attractorsAt(attractors, position));
    const high = extent(all.flatMap((row) => [row[RADIUS], row[NORM]]))[1];
    const y = { domain: [0, Math.max(1.05, 1.05 * high)], label: "radius, norm" };
    const plane = axes(root, { top, width: scene.width, height: FLOW_HEIGHT, x, y });
    drawRates(plane, attractors);
    below(plane, [{ name: "radius of each attractor", tone: 0 }, { name: "spectral norm", tone: 1 }]);
  }
  root.setAttribute("height", top);
  root.setAttribute("viewBox", `0 0 ${scene.width} ${top}`);
  root.classList.add("k-layer");
  box.append(root);
  const move = (step) => {
    moves.forEach((each) => each(step));
    scene.note(changesAt(scene.own, step));
  };
  move(scene.step);
  return { picture: root, move, table: () => flowTable(scene) };
}

function flowTable(scene) {
  const rows = [];
  for (const [series, run] of [[scene.own, scene.choices.run], [scene.other, scene.choices.other]]) {
    if (!series?.flow) continue;
    const { block, about } = series.flow;
    const names = ["attractors", "converged", "diverged", ...about.starts.map((name) => `Chamfer to ${name}`)];
    block.steps.forEach((step, position) => {
      about.starts.forEach((start, k) => {
        names.forEach((name, column) => rows.push([run, step, `from ${start}`, name, block.cell(position, k * names.length + column)]));
      });
      for (const row of series.attractors ? attractorsAt(series.attractors, position) : []) {
        const told = [["radius", RADIUS], ["norm", NORM], ["moved", MOVED], ["share of starts", SHARE]];
        for (const [name, column] of told) rows.push([run, step, `attractor ${row[TRACK]}`, name, row[column]]);
      }
    });
  }
  return { head: ["run", scene.catalog.axis, "of", "quantity", "value"], rows };
}

export const flowPanel = {
  key: "flow",
  title: "Attractors",
  reads: (name) => ["flow", "changes", "attractors"].includes(name),
  cursor: true,
  present: (series) => Boolean(series.flow),
  draw: drawFlow,
};
