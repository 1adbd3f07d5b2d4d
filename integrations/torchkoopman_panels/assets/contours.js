// Contours of values on a grid: marching squares, with the crossing on each edge interpolated.

const EDGES = {
  1: [["left", "bottom"]],
  2: [["bottom", "right"]],
  3: [["left", "right"]],
  4: [["top", "right"]],
  5: [["left", "top"], ["bottom", "right"]],
  6: [["bottom", "top"]],
  7: [["left", "top"]],
  8: [["left", "top"]],
  9: [["bottom", "top"]],
  10: [["left", "bottom"], ["top", "right"]],
  11: [["top", "right"]],
  12: [["left", "right"]],
  13: [["bottom", "right"]],
  14: [["left", "bottom"]],
};

/** Segments [[x, y], [x, y]] on which values(row, column) crosses a level. */
export function contour(columns, rows, values, level) {
  const found = [];
  const share = (a, b) => (level - a) / (b - a);
  for (let row = 0; row + 1 < rows.length; row += 1) {
    for (let column = 0; column + 1 < columns.length; column += 1) {
      const bottomLeft = values(row, column);
      const bottomRight = values(row, column + 1);
      const topLeft = values(row + 1, column);
      const topRight = values(row + 1, column + 1);
      const corners = [bottomLeft, bottomRight, topRight, topLeft];
      if (!corners.every(Number.isFinite)) continue;
      const kind = corners.reduce((sum, value, k) => sum + (value > level ? 1 << k : 0), 0);
      const [x0, x1, y0, y1] = [columns[column], columns[column + 1], rows[row], rows[row + 1]];
      const point = {
        bottom: () => [x0 + share(bottomLeft, bottomRight) * (x1 - x0), y0],
        top: () => [x0 + share(topLeft, topRight) * (x1 - x0), y1],
        left: () => [x0, y0 + share(bottomLeft, topLeft) * (y1 - y0)],
        right: () => [x1, y0 + share(bottomRight, topRight) * (y1 - y0)],
      };
      for (const [from, to] of EDGES[kind] ?? []) found.push([point[from](), point[to]()]);
    }
  }
  return found;
}
