/**
 * Tables for the terminal.
 * @module
 */

/** One column: its heading and the text of a row's cell. */
export interface TextColumn<R> {
  readonly heading: string;
  readonly cell: (row: R) => string;
  /** Words are set to the left, numbers to the right. */
  readonly words?: true;
}

/** The heading, a rule, and a line for each row. */
export function textTable<R>(columns: readonly TextColumn<R>[], rows: readonly R[]): string {
  const cells = [
    columns.map(({ heading }) => heading),
    ...rows.map((row) => columns.map(({ cell }) => cell(row))),
  ];
  const widths = columns.map((_, c) => Math.max(...cells.map((line) => line[c].length)));
  const [heading, ...lines] = cells.map((line) =>
    line.map((cell, c) => columns[c].words ? cell.padEnd(widths[c]) : cell.padStart(widths[c])).join("  ")
      .trimEnd()
  );
  return [heading, widths.map((width) => "─".repeat(width)).join("──"), ...lines].join("\n");
}

/** Three significant digits without an exponent, or all digits before the point. */
export function significant(value: number): string {
  if (!Number.isFinite(value)) return `${value}`;
  const digits = value === 0 ? 0 : 2 - Math.floor(Math.log10(Math.abs(value)));
  return value.toFixed(Math.max(0, Math.min(digits, 6)));
}

/** `90 %`, `0.5 %`. */
export function percent(share: number): string {
  return `${significant(100 * share)} %`;
}
