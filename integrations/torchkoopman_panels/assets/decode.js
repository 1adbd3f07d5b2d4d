// Bytes of a series as numbers: gzip, a header in JSON, and planes of float32 bytes.

async function gunzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** A series through its steps; cells of one step's array are counted in row-major order. */
export class Block {
  constructor(header, values) {
    this.steps = header.steps;
    this.shape = header.shape;
    this.of = header.of;
    this.error = header.error;
    this.values = values;
    this.size = header.shape.reduce((product, each) => product * each, 1);
  }

  /** Position of the latest step that is not after this one; the first where all are after. */
  position(step) {
    let low = 0;
    let high = this.steps.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.steps[middle] <= step) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** One cell at a position. */
  cell(position, index) {
    return this.values[index * this.steps.length + position];
  }

  /** The whole array at a position. */
  array(position) {
    return Float32Array.from({ length: this.size }, (_, index) => this.cell(position, index));
  }

  /** One cell through all steps. */
  course(index) {
    const count = this.steps.length;
    return this.values.subarray(index * count, (index + 1) * count);
  }
}

/** What pack() of packing.py has written. */
export async function decode(packed) {
  const bytes = await gunzip(packed);
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const planes = bytes.subarray(4 + length);
  const count = planes.length / 4;
  const raw = new Uint32Array(count);
  for (let plane = 0; plane < 4; plane += 1) {
    const shift = 8 * (3 - plane);
    const start = plane * count;
    for (let k = 0; k < count; k += 1) raw[k] |= planes[start + k] << shift;
  }
  return new Block(header, new Float32Array(raw.buffer));
}
