// One sentence about a span at a step, which is what most people look for.

import { modesAt } from "./modes.js";
import { number } from "./numbers.js";

const ROUNDING = 1e-6; // of λ near 1, kept as float32

/** Such as "forgotten classes still right 90 % → 1 %", of the original network and the edited one. */
function afterEditing({ about, block }, position) {
  const { measures, networks } = about;
  const edited = networks.indexOf("edited");
  const parts = [
    ["forgotten classes still right", "forgotten, still right, test %"],
    ["retained classes right", "retained, test %"],
  ];
  return parts
    .map(([words, measure]) => [words, measures.indexOf(measure)])
    .filter(([, row]) => row >= 0 && edited > 0)
    .map(([words, row]) => {
      const [before, after] = [0, edited].map((column) => block.cell(position, row * networks.length + column));
      return `${words} ${number(before)} % → ${number(after)} %`;
    });
}

/** Modes without the constant function, whose λ is 1 whatever the network does; at most one is taken off. */
function changing(modes) {
  const constant = modes.find(({ real, imaginary }) => Math.hypot(real - 1, imaginary) < ROUNDING);
  return modes.filter((mode) => mode !== constant);
}

/** Such as "3 of 64 modes trusted, slowest |λ| 0.98, R² 0.99". */
export function sentenceOf(series, step) {
  const parts = [];
  if (series.spectrum) {
    const { block } = series.spectrum;
    const modes = modesAt(series.spectrum, block.position(step));
    const trusted = modes.filter((mode) => mode.trusted);
    if (!modes.length) parts.push("no mode was kept");
    else if (modes.every((mode) => mode.trusted === null)) {
      const largest = Math.max(...modes.map(({ modulus }) => modulus));
      parts.push(`${modes.length} modes, trust unknown without data`, `largest |λ| ${number(largest)}`);
    } else {
      parts.push(`${trusted.length} of ${modes.length} modes trusted`);
      const others = changing(trusted);
      const largest = Math.max(...others.map(({ modulus }) => modulus));
      if (others.length) parts.push(`${largest > 1 + ROUNDING ? "largest" : "slowest"} |λ| ${number(largest)}`);
      else if (trusted.length) parts.push("the constant one");
    }
  }
  if (series.r2) {
    const { block } = series.r2;
    const last = block.cell(block.position(step), block.size - 1);
    if (Number.isFinite(last)) parts.push(`R² ${number(last)}`);
  }
  if (series.changes) {
    const { block } = series.changes;
    const [count, born, gone] = block.array(block.position(step));
    parts.push(`${count} ${count === 1 ? "attractor" : "attractors"}`, `${born} born`, `${gone} gone`);
  }
  if (series.audit) parts.push(...afterEditing(series.audit, series.audit.block.position(step)));
  return parts.join(", ");
}
