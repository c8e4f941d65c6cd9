/**
 * A short look at the data before time is spent on it: sizes, label balance, lengths, and what is wrong with the
 * rows: empty, repeated, contradictory, cut off, or in both sets.
 * @module
 */
import { type CorpusReport, formatCorpusReport } from "./corpus.ts";
import type { Example } from "./table.ts";

/** One set of examples with their token counts before truncation (`Encoding.fullLength`). */
export interface ReportInput {
  readonly examples: readonly Example[];
  readonly lengths: ArrayLike<number>;
  /** Whether labels are scores and not classes. */
  readonly hasScores?: boolean;
}

/** What is known of one set. Texts are compared after folding case and white space. */
export interface SplitReport {
  readonly rows: number;
  /** Rows of each label, the largest first; empty where no row has one, or a score. */
  readonly labels: readonly { readonly label: string; readonly rows: number }[];
  /** What the scores are like, where rows have one. */
  readonly scores?: { readonly minimum: number; readonly mean: number; readonly maximum: number };
  /** Percentiles of the token counts before truncation (nearest rank). */
  readonly tokens: {
    readonly p5: number;
    readonly p50: number;
    readonly p95: number;
    readonly maximum: number;
  };
  /** Rows with more tokens than the maximum length. */
  readonly truncatedRows: number;
  /** Rows whose text, or whose pair, is blank. */
  readonly emptyRows: number;
  /** Rows that repeat an earlier row with the same label. */
  readonly duplicateRows: number;
  /** Rows whose text occurs with another label too. */
  readonly conflictingRows: number;
}

/** What is known of the data of a run. */
export interface DataReport {
  readonly maximumTokens: number;
  readonly train: SplitReport;
  readonly evaluation?: SplitReport;
  /** Evaluation rows whose text is in the training set as well. */
  readonly contaminatedRows: number;
}

/** Examines the data. `maximumTokens` is the length at which texts are cut. */
export function dataReport(
  train: ReportInput,
  evaluation: ReportInput | undefined,
  maximumTokens: number,
): DataReport {
  const trainKeys = train.examples.map(textKey);
  const evaluationKeys = evaluation?.examples.map(textKey) ?? [];
  const trained = new Set(trainKeys);
  return {
    maximumTokens,
    train: splitReport(train, trainKeys, maximumTokens),
    ...(evaluation && { evaluation: splitReport(evaluation, evaluationKeys, maximumTokens) }),
    contaminatedRows: evaluationKeys.filter((key) => trained.has(key)).length,
  };
}

/** The report in lines of text, at most nine. */
export function formatDataReport(report: DataReport | CorpusReport): string {
  if (!("contaminatedRows" in report)) return formatCorpusReport(report);
  const { train, evaluation, maximumTokens, contaminatedRows } = report;
  const lines = formatSplit("train", train, maximumTokens);
  if (evaluation) {
    lines.push(...formatSplit("evaluation", evaluation, maximumTokens));
    lines.push(`both        ${share(contaminatedRows, evaluation.rows)} evaluation rows are in train too`);
  }
  return lines.join("\n");
}

function splitReport(
  { examples, lengths, hasScores = false }: ReportInput,
  keys: readonly string[],
  maximumTokens: number,
): SplitReport {
  const rowsOfLabel = new Map<string, number>();
  const labelsOfText = new Map<string, Set<string | undefined>>();
  let duplicateRows = 0;
  for (const [index, { label }] of examples.entries()) {
    if (label !== undefined && !hasScores) rowsOfLabel.set(label, (rowsOfLabel.get(label) ?? 0) + 1);
    const key = keys[index];
    const seen = labelsOfText.get(key);
    if (!seen) labelsOfText.set(key, new Set([label]));
    else if (seen.has(label)) duplicateRows++;
    else seen.add(label);
  }
  const sorted = Float64Array.from(lengths).sort();
  const percentile = (percent: number) =>
    sorted[Math.max(0, Math.ceil(percent / 100 * sorted.length) - 1)] ?? 0;
  return {
    rows: examples.length,
    labels: Array.from(rowsOfLabel, ([label, rows]) => ({ label, rows })).sort((a, b) => b.rows - a.rows),
    ...(hasScores && { scores: spreadOf(examples.map(({ label }) => Number(label))) }),
    tokens: { p5: percentile(5), p50: percentile(50), p95: percentile(95), maximum: percentile(100) },
    truncatedRows: sorted.filter((length) => length > maximumTokens).length,
    emptyRows: examples.filter(({ text, pair }) => text.trim() === "" || pair?.trim() === "").length,
    duplicateRows,
    conflictingRows: keys.filter((key) => labelsOfText.get(key)!.size > 1).length,
  };
}

function spreadOf(scores: readonly number[]): SplitReport["scores"] {
  return {
    minimum: scores.reduce((least, score) => Math.min(least, score), Infinity),
    mean: scores.reduce((sum, score) => sum + score, 0) / scores.length,
    maximum: scores.reduce((most, score) => Math.max(most, score), -Infinity),
  };
}

/** Equal for texts that differ in case and white space only. */
function textKey({ text, pair }: Example): string {
  const fold = (part: string) => part.trim().replace(/\s+/g, " ").toLowerCase();
  return pair === undefined ? fold(text) : `${fold(text)}\t${fold(pair)}`;
}

/** Labels that get a figure each; the others are summed up. */
const shownLabels = 6;

function formatSplit(name: string, split: SplitReport, maximumTokens: number): string[] {
  const { rows, labels, scores, tokens } = split;
  const shown = labels.slice(0, shownLabels).map((entry) => `${entry.label}: ${share(entry.rows, rows)}`);
  if (labels.length > shownLabels) shown.push(`${labels.length - shownLabels} more`);
  const answers = scores
    ? `scores ${scores.minimum} to ${scores.maximum}, mean ${scores.mean.toFixed(2)}`
    : labels.length > 0
    ? shown.join(", ")
    : "no labels";
  const indent = " ".repeat(12);
  return [
    `${name.padEnd(11)} ${count(rows)} rows; ${answers}`,
    `${indent}tokens p5 ${tokens.p5}, p50 ${tokens.p50}, p95 ${tokens.p95}, max ${tokens.maximum}; ` +
    `${share(split.truncatedRows, rows)} cut at ${maximumTokens}`,
    `${indent}${count(split.emptyRows)} empty, ${count(split.duplicateRows)} repeated, ` +
    `${count(split.conflictingRows)} with contradicting labels`,
  ];
}

function share(rows: number, of: number): string {
  return `${count(rows)} (${(100 * rows / Math.max(1, of)).toFixed(1)} %)`;
}

function count(rows: number): string {
  return rows.toLocaleString("en-US");
}
