// Betti curves of each layer, the network's beside the surrogate's with their bands; β0 by depth above.

import { axes, drawLines, legendItems, picture } from "./chart.js";
import { extent, number } from "./numbers.js";

const CURVE_WIDTH = 210;
const CURVE_HEIGHT = 160;
const SYSTEMS = ["network", "surrogate"];
const CURVE_MARGIN = { top: 8, right: 8, bottom: 36, left: 46 };

function dimensionsOf(series) {
  return Object.keys(series).filter((name) => /^betti\d+$/.test(name)).sort();
}

function curveOf(block, position, layer, system) {
  const [, systems, rows, scales] = block.shape;
  const at = (row, k) => block.cell(position, ((layer * systems + system) * rows + row) * scales + k);
  return Array.from({ length: scales }, (_, k) => [0, 1, 2, 3].map((row) => at(row, k))).filter(([scale]) => Number.isFinite(scale));
}

function drawBetti(box, scene) {
  const names = dimensionsOf(scene.own);
  const columns = Math.max(1, Math.floor(scene.width / CURVE_WIDTH));
  const width = scene.width / columns;
  const layers = names.length ? scene.own[names[0]].about.layers : scene.own.components.about.layers;
  const rows = Math.ceil(layers.length / columns);
  const upper = scene.own.components ? 230 : 0;
  const height = upper + names.length * rows * CURVE_HEIGHT + 22;
  const root = picture(scene.width, height, "Betti curves of layers, network beside surrogate");
  const move = (step) => {
    root.replaceChildren();
    if (scene.own.components) {
      const { block, about } = scene.own.components;
      const position = block.position(step);
      const counts = SYSTEMS.map((_, k) => about.layers.map((layer, row) => [row, block.cell(position, 2 * (row + 1) + k)]));
      const high = extent(counts.flat().map(([, value]) => value))[1];
      const every = Math.ceil(layers.length / Math.max(2, Math.floor(scene.width / 60)));
      const plane = axes(root, {
        width: scene.width,
        height: upper,
        x: { domain: [-0.3, layers.length - 0.7], ticks: layers.map((layer, k) => [k, layer]).filter(([k]) => k % every === 0), label: "layer" },
        y: { domain: [0, 1.05 * Math.max(1, high)], label: `β0 at ε = ${number(block.cell(position, 0))}` },
      });
      drawLines(plane, counts.map((points, k) => ({ points, tone: k, dashed: k > 0, dots: true })));
    }
    names.forEach((name, nth) => {
      const { block } = scene.own[name];
      const position = block.position(step);
      layers.forEach((layer, row) => {
        const curves = SYSTEMS.map((_, system) => curveOf(block, position, row, system));
        const plane = axes(root, {
          left: (row % columns) * width,
          top: upper + (nth * rows + Math.floor(row / columns)) * CURVE_HEIGHT,
          width,
          height: CURVE_HEIGHT,
          title: `layer ${layer}`,
          margin: CURVE_MARGIN,
          x: { domain: extent(curves.flat().map(([scale]) => scale)), label: "ε" },
          y: { domain: [0, 1.05 * Math.max(1, extent(curves.flat().map(([, , , high]) => high))[1])], label: `β${name.slice(5)}` },
        });
        drawLines(
          plane,
          curves.map((curve, k) => ({
            points: curve.map(([scale, value]) => [scale, value]),
            band: curve.map(([scale, , low, high]) => [scale, low, high]),
            tone: k,
            dashed: k > 0,
            stairs: true,
          })),
        );
      });
    });
    legendItems(root, SYSTEMS.map((system, k) => ({ name: system, tone: k, dashed: k > 0 })), { left: 46, top: height - 6, width: scene.width });
  };
  box.append(root);
  move(scene.step);
  return {
    picture: root,
    move,
    table: () => ({
      head: [scene.catalog.axis, "dimension", "layer", "system", "scale", "value", "low", "high"],
      rows: names.flatMap((name) => {
        const { block } = scene.own[name];
        return block.steps.flatMap((step, position) =>
          layers.flatMap((layer, row) =>
            SYSTEMS.flatMap((system, k) => curveOf(block, position, row, k).map((point) => [step, Number(name.slice(5)), layer, system, ...point])),
          ),
        );
      }),
    }),
  };
}

export const bettiPanel = {
  key: "betti",
  title: "Shape by layer",
  reads: (name) => name === "components" || name.startsWith("betti"),
  present: (series) => Boolean(series.components) || dimensionsOf(series).length > 0,
  draw: drawBetti,
};
