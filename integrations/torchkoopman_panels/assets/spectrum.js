// Eigenvalues at one step on the unit circle, or as rates: what people come to see.

import { axes, legendItems, picture } from "./chart.js";
import { contour } from "./contours.js";
import { pathThrough, svg } from "./dom.js";
import { MODE_HEAD, byTrust, described, modeRow, modesAt } from "./modes.js";
import { number } from "./numbers.js";

const TAIL = 40;
const SLOWEST = -6;
const CIRCLE_MARGIN = { top: 10, right: 14, bottom: 40, left: 56 };

const VIEWS = {
  lambda: { place: (mode) => [mode.real, mode.imaginary], x: "Re λ", y: "Im λ" },
  omega: {
    place: (mode) => [Math.max(Math.log(mode.modulus), SLOWEST), mode.angle],
    x: "Re ω = log |λ|, growth per span",
    y: "Im ω = arg λ, radians per span",
  },
};

/** Half the width of the plane, in rounds: a frame stays while modes move, and changes when it must. */
const REACHES = [1.12, 1.6, 2.2, 3.2, 4.5, 6.5, 9, 13];

/** The part of the plane that holds the circle and all that is trusted at a step. */
function frameAt(scene, view, step) {
  const believed = [scene.own, scene.other]
    .filter((shown) => shown?.spectrum)
    .flatMap(({ spectrum }) => modesAt(spectrum, spectrum.block.position(step)))
    .filter((mode) => mode.trusted !== false);
  if (view === "omega") {
    const reals = believed.map((mode) => VIEWS.omega.place(mode)[0]);
    const low = Math.floor(Math.min(-1.5, ...reals)) - 0.1;
    return { x: [low, Math.ceil(2 * Math.max(0.3, ...reals)) / 2 + 0.1], y: [-3.3, 3.3] };
  }
  const most = 1.04 * Math.max(0, ...believed.map((mode) => Math.max(Math.abs(mode.real), Math.abs(mode.imaginary))));
  const power = 10 ** Math.max(0, Math.floor(Math.log10(Math.max(1, most / 1.12))));
  const reach = REACHES.map((each) => each * power).find((each) => each >= most);
  return { x: [-reach, reach], y: [-reach, reach] };
}

/** A mark: round in one run and square in the other; filled where trusted, small and hollow if not. */
function mark(x, y, mode, tone) {
  const known = Number.isFinite(mode.energy);
  const size = mode.trusted === false ? 3.2 : known ? 3.5 + 6 * Math.sqrt(Math.min(1, mode.energy)) : 4.5;
  const trust = { true: "k-trusted", false: "k-doubted", null: "k-unknown" }[mode.trusted];
  const look = { class: `k-mode k-tone-${tone} ${trust}` };
  if (mode.trusted === false) {
    const d = `M${x - size} ${y}L${x} ${y - size}L${x + size} ${y}L${x} ${y + size}Z`;
    return svg("path", { ...look, d });
  }
  return tone
    ? svg("rect", { ...look, x: x - size, y: y - size, width: 2 * size, height: 2 * size })
    : svg("circle", { ...look, cx: x, cy: y, r: size });
}

/** Contours at powers of ten of the pseudospectrum at a step, drawn once for each of its steps. */
function contoursAt(kept, plane, { block }, step) {
  const position = block.position(step);
  if (kept.position === position) return kept.group;
  const group = svg("g", {});
  const [rows, columns] = block.shape;
  const cell = (row, column) => block.cell(position, row * columns + column);
  const x = Array.from({ length: columns - 1 }, (_, k) => cell(0, k + 1));
  const y = Array.from({ length: rows - 1 }, (_, k) => cell(k + 1, 0));
  for (const power of [-3, -2, -1.5, -1, -0.5]) {
    const segments = contour(x, y, (row, column) => cell(row + 1, column + 1), 10 ** power);
    const d = segments.map(([a, b]) => pathThrough([a, b].map(([u, v]) => [plane.x(u), plane.y(v)]))).join("");
    if (!d) continue;
    const [[[u, v]]] = [segments[Math.floor(segments.length / 2)]];
    group.append(
      svg("path", { class: "k-contour", d }),
      svg("text", { class: "k-contour-name", x: plane.x(u), y: plane.y(v) }, number(10 ** power, 2)),
    );
  }
  Object.assign(kept, { position, group });
  return group;
}

/** Where modes were in the steps before, by their tracks. */
function drawTails(group, plane, view, scene) {
  const { spectrum, tracks } = scene.own;
  if (!tracks) return;
  const last = spectrum.block.position(scene.step);
  const paths = new Map();
  for (let position = Math.max(0, last - TAIL); position <= last; position += 1) {
    for (const mode of modesAt(spectrum, position, tracks)) {
      if (!Number.isFinite(mode.track)) continue;
      if (!paths.has(mode.track)) paths.set(mode.track, []);
      const [u, v] = VIEWS[view].place(mode);
      paths.get(mode.track).push([plane.x(u), plane.y(v)]);
    }
  }
  for (const points of paths.values()) {
    if (points.length > 1) group.append(svg("path", { class: "k-tail", d: pathThrough(points) }));
  }
}

/** The plane with its axes, the circle or the line of no growth, and the legend. */
function layPlane(root, scene, frame, inner, side) {
  const { view, other } = scene.choices;
  const { width } = scene;
  root.replaceChildren();
  const round = view === "lambda";
  const plane = axes(root, {
    left: round ? (width - side) / 2 : 0,
    width: round ? side : width,
    height: inner,
    x: { domain: frame.x, label: VIEWS[view].x },
    y: { domain: frame.y, label: VIEWS[view].y },
    margin: CIRCLE_MARGIN,
  });
  if (round) {
    const r = plane.x(1) - plane.x(0);
    plane.plot.append(svg("circle", { class: "k-circle", cx: plane.x(0), cy: plane.y(0), r }));
  } else {
    const at = plane.x(0);
    plane.plot.append(
      svg("line", { class: "k-circle", x1: at, x2: at, y1: plane.inner.top, y2: plane.inner.bottom }),
    );
  }
  const moving = svg("g", {});
  plane.plot.append(moving);
  const sample = (trusted, tone) => (x, y) => mark(x, y, { trusted, energy: 0.2 }, tone);
  legendItems(
    root,
    [
      { name: "trusted, area by energy", mark: sample(true, 0) },
      { name: "not trusted", mark: sample(false, 0) },
      ...(scene.other ? [{ name: other, mark: sample(true, 1) }] : []),
    ],
    { left: plane.inner.left, top: inner + 14, width: plane.inner.right - plane.inner.left },
  );
  return { plane, moving, frame, contours: {} };
}

function drawSpectrum(box, scene) {
  const { view } = scene.choices;
  const { width } = scene;
  const side = Math.min(width, 560);
  // Both axes of the circle have one scale.
  const spare = CIRCLE_MARGIN.left + CIRCLE_MARGIN.right - CIRCLE_MARGIN.top - CIRCLE_MARGIN.bottom;
  const inner = view === "lambda" ? side - spare : Math.min(side, 420);
  const root = picture(width, inner + 22, "Eigenvalues");
  root.setAttribute("tabindex", "0");
  let laid = null;
  let shown = [];
  let chosen = -1;
  const pick = (index) => {
    chosen = index;
    root.querySelectorAll(".k-chosen").forEach((node) => node.classList.remove("k-chosen"));
    const found = shown[index];
    if (!found) return scene.tip.hide();
    found.node.classList.add("k-chosen");
    const lines = [...(scene.other ? [found.run] : []), ...described(found.mode)];
    scene.tip.show(root, found.x, found.y, lines);
    return undefined;
  };
  const move = (step) => {
    scene.step = step;
    const frame = frameAt(scene, view, step);
    if (JSON.stringify(frame) !== JSON.stringify(laid?.frame)) laid = layPlane(root, scene, frame, inner, side);
    const { plane, moving, contours } = laid;
    const held = chosen >= 0 ? shown[chosen] : null;
    moving.replaceChildren();
    shown = [];
    const pseudo = scene.own.pseudospectrum;
    if (pseudo && view === "lambda") moving.append(contoursAt(contours, plane, pseudo, step));
    drawTails(moving, plane, view, scene);
    let beyond = 0;
    const runs = [[scene.other, 1, scene.choices.other], [scene.own, 0, scene.choices.run]];
    for (const [series, tone, run] of runs) {
      if (!series?.spectrum) continue;
      const position = series.spectrum.block.position(step);
      for (const mode of byTrust(modesAt(series.spectrum, position, series.tracks)).reverse()) {
        const [u, v] = VIEWS[view].place(mode);
        const inside = u >= frame.x[0] && u <= frame.x[1] && v >= frame.y[0] && v <= frame.y[1];
        if (!inside) {
          beyond += 1;
          continue;
        }
        const node = mark(plane.x(u), plane.y(v), mode, tone);
        node.dataset.mode = mode.index;
        moving.append(node);
        shown.push({ mode, node, x: plane.x(u), y: plane.y(v), run });
      }
    }
    shown.reverse();
    const count = shown.length + beyond;
    root.setAttribute(
      "aria-label",
      `Eigenvalues at ${scene.catalog.axis} ${scene.catalog.named(step)}: ` +
        `${shown.filter(({ mode }) => mode.trusted).length} trusted of ${count}. Up and down keys go from mode to mode.`,
    );
    scene.note(beyond ? `${beyond} of ${count} modes, none of them trusted, lie outside the picture.` : "");
    const again = held ? shown.findIndex(({ mode, run }) => mode.index === held.mode.index && run === held.run) : -1;
    pick(again);
  };
  root.addEventListener("pointermove", (event) => {
    const bounds = root.getBoundingClientRect();
    const factor = width / bounds.width;
    const [x, y] = [(event.clientX - bounds.left) * factor, (event.clientY - bounds.top) * factor];
    let best = -1;
    let least = 18;
    shown.forEach((each, k) => {
      const distance = Math.hypot(each.x - x, each.y - y);
      if (distance < least) [best, least] = [k, distance];
    });
    if (best !== chosen) pick(best);
  });
  root.addEventListener("pointerleave", () => pick(-1));
  root.addEventListener("blur", () => pick(-1));
  root.addEventListener("keydown", (event) => {
    if (!["ArrowUp", "ArrowDown"].includes(event.key) || !shown.length) return;
    event.preventDefault();
    const next = chosen + (event.key === "ArrowDown" ? 1 : -1);
    pick((next + shown.length) % shown.length);
    scene.say(described(shown[chosen].mode).join(". "));
  });
  box.append(root);
  move(scene.step);
  return {
    picture: root,
    move,
    table: () => {
      const rows = [];
      for (const [series, run] of [[scene.own, scene.choices.run], [scene.other, scene.choices.other]]) {
        if (!series?.spectrum) continue;
        const position = series.spectrum.block.position(scene.step);
        const at = series.spectrum.block.steps[position];
        for (const mode of modesAt(series.spectrum, position, series.tracks)) rows.push([run, at, ...modeRow(mode)]);
      }
      return { head: ["run", scene.catalog.axis, ...MODE_HEAD], rows };
    },
  };
}

export const spectrumPanel = {
  key: "spectrum",
  title: "Spectrum",
  reads: (name) => ["spectrum", "tracks", "pseudospectrum"].includes(name),
  present: (series) => Boolean(series.spectrum),
  draw: drawSpectrum,
};
