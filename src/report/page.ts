/**
 * Pages of results: one HTML file that needs nothing. There is no script and no reference to anything outside; colours are
 * CSS variables, so that a page follows the reader's light or dark setting.
 * @module
 */
import type { TextColumn } from "./text_table.ts";

/** What a page shows. All of it is text but the sections, which are HTML. */
export interface Page {
  readonly title: string;
  /** A line below the title. */
  readonly subtitle: string;
  /** What the reader is to remember. */
  readonly headline?: string;
  /** From `section`. */
  readonly sections: readonly string[];
}

/** The whole file. */
export function htmlPage({ title, subtitle, headline, sections }: Page): string {
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
<p class="subtitle">${escapeHtml(subtitle)}</p>
${headline === undefined ? "" : `<p class="headline">${escapeHtml(headline)}</p>`}
${sections.join("\n")}
</main>
</body>
</html>
`;
}

/** A part of a page under its own heading. `content` is HTML, title and lead are text. */
export function section(title: string, lead: string, content: string): string {
  const text = lead && `<p class="lead">${escapeHtml(lead)}</p>\n`;
  return `<section>\n<h2>${escapeHtml(title)}</h2>\n${text}${content}\n</section>`;
}

/** A table of text cells. */
export function htmlTable<R>(columns: readonly TextColumn<R>[], rows: readonly R[]): string {
  const line = (tag: string, cells: readonly string[]) =>
    `<tr>${
      cells.map((cell, c) =>
        `<${tag}${columns[c].words ? "" : ' class="number"'}>${escapeHtml(cell)}</${tag}>`
      ).join("")
    }</tr>`;
  return `<div class="wide"><table>
<thead>${line("th", columns.map(({ heading }) => heading))}</thead>
<tbody>${rows.map((row) => line("td", columns.map(({ cell }) => cell(row)))).join("\n")}</tbody>
</table></div>`;
}

/** Text that may hold anything, as HTML. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]!);
}

const style = `
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --ink: #22252a; --faint: #6a7078; --line: #dddfe2; --accent: #0f7b6c; --bar: #a9b0b8;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181b; --ink: #e4e6e8; --faint: #969ca4; --line: #34383d; --accent: #3fb6a3; --bar: #5d646c; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 0.3rem; }
p { margin: 0.3rem 0 0.8rem; max-width: 46rem; }
.subtitle, .lead { color: var(--faint); }
.headline { font-size: 1.15rem; margin: 1.2rem 0; padding-left: 0.9rem; border-left: 3px solid var(--accent); }
figure { margin: 0; overflow-x: auto; }
figure svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.5rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { color: var(--faint); font-weight: 500; white-space: normal; vertical-align: bottom; }
.number { text-align: right; }
`;
