// Numbers as people read them, and scales from values to pixels with ticks at round places.

/** Three significant digits, or as many as asked; "unknown" where there is no number. */
export function number(value, digits = 3) {
  if (value === Infinity) return "∞";
  if (value === -Infinity) return "−∞";
  if (!Number.isFinite(value)) return "unknown";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text =
    size >= 1e6 || size < 1e-4
      ? value.toExponential(digits - 1)
      : String(Number(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size + 1))))));
  return text.replaceAll("-", "−");
}

/** Numbers beside one another, with as many digits as tell them apart. */
export function distinct(values) {
  for (let digits = 3; ; digits += 1) {
    const texts = values.map((value) => number(value, digits));
    if (digits === 9 || new Set(texts).size === values.length) return texts;
  }
}

/** A complex number, such as "0.9 + 0.1i". */
export function complexNumber(real, imaginary) {
  const sign = imaginary < 0 ? "−" : "+";
  return `${number(real)} ${sign} ${number(Math.abs(imaginary))}i`;
}

/** The least and the largest of the finite values, or the fallback where there are none. */
export function extent(values, fallback = [0, 1]) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : fallback;
}

function roundStep(width, count) {
  const raw = width / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * ([1, 2, 5].find((each) => each * power >= raw * 0.999) ?? 10);
}

/** A linear scale from [low, high] to pixels; a single value gets room around it. */
export function linear([low, high], [from, to]) {
  const pad = low === high ? Math.abs(low) * 0.1 || 1 : 0;
  const [a, b] = [low - pad, high + pad];
  const scale = (value) => from + ((value - a) / (b - a)) * (to - from);
  scale.domain = [a, b];
  scale.invert = (pixel) => a + ((pixel - from) / (to - from)) * (b - a);
  scale.ticks = (count = 5) => {
    const step = roundStep(b - a, count);
    const found = [];
    for (let k = Math.ceil(a / step - 1e-9); k * step <= b + step * 1e-9; k += 1) {
      found.push(Number((k * step).toPrecision(12)));
    }
    return found;
  };
  return scale;
}

/** A logarithmic scale; values that are not positive have no place on it. */
export function logarithmic([low, high], pixels) {
  const top = high > 0 ? high : 1;
  const inner = linear(
    [Math.log10(low > 0 ? low : top * 1e-12), Math.log10(top)],
    pixels,
  );
  const scale = (value) => (value > 0 ? inner(Math.log10(value)) : NaN);
  scale.domain = inner.domain.map((each) => 10 ** each);
  scale.invert = (pixel) => 10 ** inner.invert(pixel);
  scale.ticks = (count = 5) => {
    const whole = inner.ticks(count).filter((each) => Number.isInteger(each));
    return (whole.length > 1 ? whole : inner.ticks(count)).map((each) => 10 ** each);
  };
  return scale;
}
