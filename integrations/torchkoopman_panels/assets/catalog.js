// What there is to see: runs, their spans, and the series of each; blocks are read once and kept.

import { decode } from "./decode.js";

const KNOWN_SCHEMA = 1;
const NATURAL = new Intl.Collator("en", { numeric: true });

const layersOf = (entry) => JSON.stringify(entry.about.layers ?? null);

/** The layers of a series after the first, if it is R². */
function belongs(entry, layers) {
  const own = entry.about.layers;
  if (!own || layers === "null") return true;
  if (layersOf(entry) === layers) return true;
  return entry.name === "r2" && JSON.stringify(JSON.parse(layers).slice(1)) === layersOf(entry);
}

/** Spans of one run: a span whose layers changed, as in a resumed run, is listed once for each. */
function spansOf(entries) {
  const spans = new Map();
  for (const span of new Set(entries.map((entry) => entry.span))) {
    const own = entries.filter((entry) => entry.span === span);
    const spectra = own.filter((entry) => entry.name === "spectrum");
    const variants = [...new Set(spectra.map(layersOf))].sort(NATURAL.compare);
    if (variants.length < 2) {
      spans.set(span, own);
      continue;
    }
    for (const layers of variants) {
      const name = `${span} (${JSON.parse(layers)?.length ?? "unknown"} layers)`;
      const taken = spans.has(name) ? `${name}, ${layers}` : name;
      spans.set(taken, own.filter((entry) => belongs(entry, layers)));
    }
  }
  return new Map([...spans].sort(([a], [b]) => NATURAL.compare(a, b)));
}

/** The index of a source, by run and span. */
export class Catalog {
  constructor(source) {
    this.source = source;
    this.runs = new Map();
    this.warnings = [];
    this.unread = new Map();
    this.blocks = new Map();
  }

  /** Read the index anew, and forget blocks that may have grown. */
  async refresh() {
    const index = await this.source.index();
    this.title = index.title ?? "";
    this.axis = index.axis ?? "step";
    this.labels = index.labels ?? {};
    this.warnings = index.warnings ?? [];
    const later = [index, ...index.series].filter((each) => (each.schema ?? 1) > KNOWN_SCHEMA);
    if (later.length) {
      this.warnings.push(
        `Some data were written by a later version of torchkoopman (schema ${later[0].schema}; ` +
          `this page knows ${KNOWN_SCHEMA}): they are left out. Update torchkoopman to see them.`,
      );
    }
    const known = index.series.filter((entry) => (entry.schema ?? 1) <= KNOWN_SCHEMA);
    const names = [...new Set(known.map((entry) => entry.run))].sort(NATURAL.compare);
    this.runs = new Map(
      names.map((run) => [run, spansOf(known.filter((entry) => entry.run === run))]),
    );
    this.blocks.clear();
    this.unread.clear();
  }

  /** Sentences on what cannot be shown. */
  told() {
    return [...this.warnings, ...this.unread.values()];
  }

  /** Names of all spans of a run. */
  spans(run) {
    return [...(this.runs.get(run)?.keys() ?? [])];
  }

  /** Series of a span; their names are unique in it but for tables. */
  entries(run, span) {
    return this.runs.get(run)?.get(span) ?? [];
  }

  /** The numbers of a series. */
  block(entry) {
    if (!this.blocks.has(entry.key)) {
      const reading = this.source.block(entry).then(decode);
      reading.catch(() => this.blocks.delete(entry.key));
      this.blocks.set(entry.key, reading);
    }
    return this.blocks.get(entry.key);
  }

  /** The numbers of a series, or null where they cannot be read, which is told. */
  async attempt(entry) {
    try {
      return await this.block(entry);
    } catch (error) {
      this.unread.set(entry.key, `${entry.name} of run ${entry.run} cannot be read: ${error.message}`);
      return null;
    }
  }

  /** Readable series of a span that have one of these names: name → {about, block}. */
  async read(run, span, names) {
    const wanted = this.entries(run, span).filter((entry) => names(entry.name));
    const blocks = await Promise.all(wanted.map((entry) => this.attempt(entry)));
    const found = wanted.map((entry, k) => [entry.name, { about: entry.about, block: blocks[k] }]);
    return Object.fromEntries(found.filter(([, { block }]) => block));
  }

  /** A step as people read it. */
  named(step) {
    return this.labels[String(step)] ?? String(step);
  }
}
