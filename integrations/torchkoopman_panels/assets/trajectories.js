// Samples through depth: where they are at each layer, where the surrogate puts them, and an edit.

import { axes, legendItems, picture } from "./chart.js";
import { pathThrough, svg } from "./dom.js";
import { extent, number } from "./numbers.js";

const PLACE = 230;
const PLACE_MARGIN = { top: 8, right: 8, bottom: 14, left: 14 };
const SAMPLE_TONES = 6;

function sampleMark(x, y, system, tone, gone) {
  const look = { class: `${system ? "k-ring" : "k-dot"} k-tone-${tone}${gone ? " k-gone-mark" : ""}` };
  if (system === 2) return svg("path", { ...look, d: `M${x - 4} ${y - 4}L${x + 4} ${y + 4}M${x - 4} ${y + 4}L${x + 4} ${y - 4}` });
  return system === 1
    ? svg("rect", { ...look, x: x - 3, y: y - 3, width: 6, height: 6 })
    : svg("circle", { ...look, cx: x, cy: y, r: 3 });
}

function drawTrajectories(box, scene) {
  const { block, about } = scene.own.trajectories;
  const [rowsOfAll, layers, systems] = block.shape; // the first row: shares of variance
  const samples = rowsOfAll - 1;
  const columns = Math.max(1, Math.min(layers, Math.floor(scene.width / PLACE)));
  const width = scene.width / columns;
  const rows = Math.ceil(layers / columns);
  const height = rows * (PLACE + 16) + 40;
  const root = picture(scene.width, height, "Samples at each layer, of the network and predicted");
  const classes = [...new Set(about.labels ?? [])].sort((a, b) => a - b);
  const gone = new Set((about.forgotten ?? []).map(String));
  const toneOf = (sample) => Math.max(0, classes.indexOf(about.labels?.[sample])) % SAMPLE_TONES;
  const move = (step) => {
    const position = block.position(step);
    const at = (sample, layer, system) =>
      [0, 1].map((part) => block.cell(position, (((sample + 1) * layers + layer) * systems + system) * 2 + part));
    root.replaceChildren();
    for (let layer = 0; layer < layers; layer += 1) {
      const points = Array.from({ length: samples }, (_, sample) =>
        Array.from({ length: systems }, (_ignored, system) => at(sample, layer, system)),
      );
      const padded = (part) => {
        const [low, high] = extent(points.flat().map((point) => point[part]), [-1, 1]);
        const room = 0.05 * (high - low || 1);
        return [low - room, high + room];
      };
      const [first, second] = at(-1, layer, 0);
      const share = first + second;
      const plane = axes(root, {
        left: (layer % columns) * width,
        top: Math.floor(layer / columns) * (PLACE + 16),
        width,
        height: PLACE + 16,
        margin: PLACE_MARGIN,
        title: `${about.layers?.[layer] ?? layer}${Number.isFinite(share) ? `, ${number(100 * share, 2)} % of the variance` : ""}`,
        x: { domain: padded(0), ticks: [] },
        y: { domain: padded(1), ticks: [] },
      });
      const placed = ([x, y]) => [plane.x(x), plane.y(y)];
      points.forEach((own, sample) => {
        const tone = toneOf(sample);
        const forgotten = gone.has(String(about.labels?.[sample]));
        for (let system = 1; system < systems; system += 1) {
          plane.plot.append(svg("path", { class: `k-error k-tone-${tone}`, d: pathThrough([placed(own[0]), placed(own[system])]) }));
        }
        own.forEach((point, system) => {
          const [x, y] = placed(point);
          if (Number.isFinite(x + y)) plane.plot.append(sampleMark(x, y, system, tone, forgotten));
        });
      });
    }
    const names = (about.systems ?? ["network", "surrogate", "edited"]).slice(0, systems);
    legendItems(
      root,
      [
        ...names.map((name, system) => ({ name, mark: (x, y) => sampleMark(x, y, system, 0, false) })),
        ...classes.map((label, k) => ({
          name: `class ${label}${gone.has(String(label)) ? " (forgotten)" : ""}`,
          mark: (x, y) => sampleMark(x, y, 0, k % SAMPLE_TONES, gone.has(String(label))),
        })),
      ],
      { left: 14, top: height - 24, width: scene.width - 28 },
    );
  };
  box.append(root);
  move(scene.step);
  return {
    picture: root,
    move,
    table: () => ({
      head: [scene.catalog.axis, "sample", "class", "layer", "system", "first axis", "second axis"],
      rows: block.steps.flatMap((step, position) =>
        Array.from({ length: samples * layers * systems }, (_, k) => {
          const [sample, layer, system] = [Math.floor(k / (layers * systems)), Math.floor(k / systems) % layers, k % systems];
          const name = (about.systems ?? [])[system] ?? system;
          return [step, sample, about.labels?.[sample], about.layers?.[layer], name, ...[0, 1].map((part) => block.cell(position, 2 * (k + layers * systems) + part))];
        }),
      ),
    }),
  };
}

export const trajectoriesPanel = {
  key: "trajectories",
  title: "Samples through depth",
  reads: (name) => name === "trajectories",
  present: (series) => Boolean(series.trajectories),
  draw: drawTrajectories,
};
