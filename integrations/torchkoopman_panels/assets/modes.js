// The modes of one step: eigenvalues with what the data say of each, as the spectrum's columns have it.
// Older files have no condition.

import { complexNumber, number } from "./numbers.js";

const COLUMN = { real: 0, imaginary: 1, residual: 2, energy: 3, error: 4, closure: 5, trusted: 6, condition: 7 };

/** All modes at a position of a spectrum's block, those of the tracks' block beside them. */
export function modesAt(series, position, tracks) {
  const { block } = series;
  const [count, columns] = block.shape;
  const track = tracks?.block;
  const same = track && track.position(block.steps[position]);
  const aligned = track && track.steps[same] === block.steps[position];
  const modes = [];
  for (let k = 0; k < count; k += 1) {
    const at = (name) => (COLUMN[name] < columns ? block.cell(position, k * columns + COLUMN[name]) : NaN);
    const [real, imaginary] = [at("real"), at("imaginary")];
    if (!Number.isFinite(real) || !Number.isFinite(imaginary)) continue;
    modes.push({
      index: k,
      real,
      imaginary,
      modulus: Math.hypot(real, imaginary),
      angle: Math.atan2(imaginary, real),
      residual: at("residual"),
      energy: at("energy"),
      error: at("error"),
      closure: at("closure"),
      condition: at("condition"),
      trusted: Number.isNaN(at("trusted")) ? null : at("trusted") > 0.5,
      track: aligned && k < track.shape[0] ? track.cell(same, k) : NaN,
    });
  }
  return modes;
}

/** Trusted modes first, then by energy, then by modulus. */
export function byTrust(modes) {
  const size = (value) => (Number.isFinite(value) ? value : -1);
  return [...modes].sort(
    (a, b) =>
      Number(b.trusted === true) - Number(a.trusted === true) ||
      size(b.energy) - size(a.energy) ||
      b.modulus - a.modulus,
  );
}

/** What a mode is, as lines of text; rates are per span, frequencies in turns per span. */
export function described(mode) {
  const decay = -Math.log(mode.modulus);
  const trust = { true: "trusted", false: "not trusted", null: "trust unknown" }[mode.trusted];
  return [
    `λ = ${complexNumber(mode.real, mode.imaginary)}${Number.isFinite(mode.error) ? ` ± ${number(mode.error, 2)}` : ""}`,
    `|λ| = ${number(mode.modulus)}, decay ${number(decay)} a span`,
    `frequency ${number(mode.angle / (2 * Math.PI))} turns a span`,
    `residual ${number(mode.residual, 2)}, closure ${number(mode.closure, 2)}`,
    ...(Number.isFinite(mode.condition) ? [`condition of λ ${number(mode.condition, 2)}`] : []),
    `energy ${number(mode.energy, 2)}, ${trust}`,
    ...(Number.isFinite(mode.track) ? [`track ${mode.track}`] : []),
  ];
}

/** The head and the cells of modes as a table. */
export const MODE_HEAD = [
  "mode",
  "real",
  "imaginary",
  "modulus",
  "decay per span",
  "turns per span",
  "residual",
  "closure",
  "condition",
  "energy",
  "standard error",
  "trusted",
  "track",
];

export function modeRow(mode) {
  const { index, real, imaginary, modulus, angle, residual, closure, condition, energy, error, trusted, track } = mode;
  const decay = -Math.log(modulus);
  const turns = angle / (2 * Math.PI);
  const trust = trusted === null ? "" : Number(trusted);
  return [index, real, imaginary, modulus, decay, turns, residual, closure, condition, energy, error, trust, track];
}
