// A picture as an SVG file that looks the same elsewhere, and its numbers as CSV.

import { html } from "./dom.js";

const LOOKS = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "stroke-opacity",
  "stroke-linecap",
  "opacity",
  "font-family",
  "font-size",
  "font-weight",
  "text-anchor",
];

/** An SVG element as the text of a file, with the colours that it has on the page. */
export function svgText(picture) {
  const copy = picture.cloneNode(true);
  const originals = [picture, ...picture.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((node, k) => {
    const style = getComputedStyle(originals[k]);
    for (const name of LOOKS) {
      const value = style.getPropertyValue(name);
      if (value && value !== "auto") node.setAttribute(name, value);
    }
    for (const name of ["class", "tabindex", "role"]) node.removeAttribute(name);
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  paper.setAttribute("width", "100%");
  paper.setAttribute("height", "100%");
  const panel = picture.closest(".k-panel") ?? document.body;
  paper.setAttribute("fill", getComputedStyle(panel).backgroundColor);
  copy.prepend(paper);
  return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(copy)}`;
}

function csvCell(value) {
  const text = typeof value === "number" && !Number.isFinite(value) ? "" : String(value ?? "");
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Rows as CSV (RFC 4180); what is not finite is an empty cell. */
export function csvText({ head, rows }) {
  return [head, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

/** Save a file. Where the page may not, as in a sandboxed frame, its text can be opened instead. */
export function save(name, text, type, told) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const anchor = html("a", { href: address, download: name });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  const area = html("textarea", { readonly: true, rows: 6, "aria-label": `text of ${name}` });
  area.value = text;
  told.replaceChildren(
    html(
      "details",
      {},
      html("summary", {}, `${name} was given to the browser; open its text here`),
      area,
    ),
  );
}
