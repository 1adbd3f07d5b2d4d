// |λ| and arg λ through all steps: a line for each mode that was followed, or a dot for each mode.

import { axes, drawLines, namedTicks, picture, stepCursor } from "./chart.js";
import { svg } from "./dom.js";
import { MODE_HEAD, modeRow, modesAt } from "./modes.js";
import { extent } from "./numbers.js";

const COURSE_HEIGHT = 250;
const USUAL = 0.9;
const BEYOND = 4;

/** Modes of all steps: track → points where there are tracks, and a cloud of the others. */
function gathered(series) {
  const { block } = series.spectrum;
  const tracks = new Map();
  const loose = [];
  block.steps.forEach((step, position) => {
    for (const mode of modesAt(series.spectrum, position, series.tracks)) {
      const point = { step, modulus: mode.modulus, turns: mode.angle / (2 * Math.PI), trusted: mode.trusted };
      if (!Number.isFinite(mode.track)) {
        loose.push(point);
        continue;
      }
      if (!tracks.has(mode.track)) tracks.set(mode.track, []);
      tracks.get(mode.track).push(point);
    }
  });
  return { tracks, loose };
}

/** Turns through the steps, with a gap where half a turn becomes minus half a turn. */
function unwound(course) {
  return course.flatMap(({ step, turns }, k) => {
    const apart = k > 0 && Math.abs(turns - course[k - 1].turns) > 0.5;
    return apart ? [[step, NaN], [step, turns]] : [[step, turns]];
  });
}

function cloud(points, plane, part, look) {
  const d = points
    .map((point) => [plane.x(point.step), plane.y(point[part])])
    .filter(([x, y]) => Number.isFinite(x + y))
    .map(([x, y]) => `M${x.toFixed(1)} ${y.toFixed(1)}h0`)
    .join("");
  if (d) plane.plot.append(svg("path", { class: `k-cloud ${look}`, d }));
}

function drawTraining(box, scene) {
  const root = picture(scene.width, 2 * COURSE_HEIGHT, "Moduli and angles of eigenvalues through all steps");
  const runs = [[scene.other, 1], [scene.own, 0]].filter(([series]) => series?.spectrum);
  const all = runs.map(([series, tone]) => ({ ...gathered(series), tone }));
  const points = all.flatMap(({ tracks, loose }) => [...loose, ...[...tracks.values()].flat()]);
  const believed = points.filter(({ trusted }) => trusted !== false);
  const named = scene.own.spectrum.block.steps;
  const steps = extent(points.map(({ step }) => step));
  const moduli = (believed.length ? believed : points).map(({ modulus }) => modulus).sort((a, b) => a - b);
  // A few modes that are very large would hide how the others move.
  const usual = moduli[Math.floor(USUAL * (moduli.length - 1))] ?? 1;
  const top = Math.min(moduli.at(-1) ?? 1, Math.max(1, BEYOND * usual));
  const above = believed.filter(({ modulus }) => modulus > Math.max(1.05, 1.05 * top)).length;
  const parts = [
    ["modulus", "|λ|", [0, Math.max(1.05, 1.05 * top)]],
    ["turns", "arg λ, turns", [-0.52, 0.52]],
  ];
  const moves = parts.map(([part, label, domain], k) => {
    const plane = axes(root, {
      top: k * COURSE_HEIGHT,
      width: scene.width,
      height: COURSE_HEIGHT,
      x: { domain: steps, label: k ? scene.catalog.axis : "", ticks: namedTicks(scene, named) },
      y: { domain, label },
    });
    if (part === "modulus") {
      const y = plane.y(1);
      plane.plot.append(svg("line", { class: "k-circle", x1: plane.inner.left, x2: plane.inner.right, y1: y, y2: y }));
    }
    for (const { tracks, loose, tone } of all) {
      cloud(loose.filter(({ trusted }) => trusted === false), plane, part, `k-tone-${tone} k-faint`);
      cloud(loose.filter(({ trusted }) => trusted !== false), plane, part, `k-tone-${tone}`);
      for (const course of tracks.values()) {
        const line = part === "turns" ? unwound(course) : course.map((point) => [point.step, point[part]]);
        const faint = !course.some(({ trusted }) => trusted !== false);
        drawLines(plane, [{ points: line, tone, faint }]);
        cloud(course.filter(({ trusted }) => trusted === true), plane, part, `k-tone-${tone}`);
      }
    }
    return stepCursor(plane, scene, box);
  });
  root.classList.add("k-layer");
  box.append(root);
  const untold = points.length - believed.length;
  const notes = [
    untold ? "Modes that are not trusted are pale; of these, larger ones are left out." : "",
    above ? `Of the trusted modes of all ${scene.catalog.axis}s, ${above} are above the picture.` : "",
  ];
  scene.note(notes.filter(Boolean).join(" "));
  return {
    picture: root,
    move: (step) => moves.forEach((move) => move(step)),
    table: () => ({
      head: ["run", scene.catalog.axis, ...MODE_HEAD],
      rows: [[scene.own, scene.choices.run], [scene.other, scene.choices.other]].flatMap(([series, run]) =>
        !series?.spectrum
          ? []
          : series.spectrum.block.steps.flatMap((step, position) =>
              modesAt(series.spectrum, position, series.tracks).map((mode) => [run, step, ...modeRow(mode)]),
            ),
      ),
    }),
  };
}

export const trainingPanel = {
  key: "training",
  title: "Through the steps",
  entitled: (series, catalog) => `Through the ${catalog.axis}s`,
  reads: (name) => ["spectrum", "tracks"].includes(name),
  cursor: true,
  present: (series) => Boolean(series.spectrum) && series.spectrum.block.steps.length > 1,
  draw: drawTraining,
};
