/**
 * Shows a comparison: text for the terminal, Markdown to keep, a page to look at.
 * @module
 */
import { basename } from "node:path";
import { drawChart } from "../report/chart.ts";
import { escapeHtml, htmlPage, htmlTable, section } from "../report/page.ts";
import { textTable } from "../report/text_table.ts";
import { differenceChart, meanChart } from "./charts.ts";
import { flagArguments, type Flags } from "./flags.ts";
import type { ComparisonResult, VariantResult } from "./result.ts";
import {
  caveats,
  confidenceText,
  differenceColumns,
  differenceRows,
  failureLines,
  variantColumns,
} from "./tables.ts";

/** How a comparison was made. */
export interface Origin {
  /** The arguments of the command. */
  readonly args: readonly string[];
  /** The machine on one line. */
  readonly machine: string;
  /** Versions by name. */
  readonly versions: Readonly<Record<string, string>>;
}

/** Tables, failures and caveats as text. */
export function formatComparison(result: ComparisonResult): string {
  const differences = differenceRows(result);
  const parts = [
    textTable(variantColumns(result), result.variants),
    ...(differences.length === 0 ? [] : [textTable(differenceColumns, differences)]),
    failureLines(result).join("\n"),
    caveats(result).join("\n"),
  ];
  return parts.filter((part) => part !== "").join("\n\n");
}

/** The same as a Markdown file, with all that is needed to make it again. It holds no date and no path of this machine. */
export function markdownReport(result: ComparisonResult, { args, machine, versions }: Origin): string {
  const { name, description, base, variants } = result;
  return [
    `# ${name}`,
    ...(description === undefined ? [] : ["", description.trim()]),
    "",
    "Made by",
    "",
    "```sh",
    `deno task compare ${args.map(shownArgument).map(quoted).join(" ")}`,
    "```",
    "",
    `on ${machine}; ${versionText(versions)}; ${ranOnText(result)}. Flags of all runs:`,
    "",
    "```text",
    flagsText(base),
    "```",
    "",
    "and of each variant:",
    "",
    "```text",
    textTable(flagColumns, variants),
    "```",
    "",
    "Results:",
    "",
    "```text",
    formatComparison(result),
    "```",
    "",
  ].join("\n");
}

/** The same as one HTML page. */
export async function htmlComparison(result: ComparisonResult, origin: Origin): Promise<string> {
  const { name, description, metric, variants } = result;
  const differences = differenceRows(result);
  const list = (lines: readonly string[]) => lines.map((line) => `<p>${escapeHtml(line)}</p>`).join("\n");
  const failures = failureLines(result);
  const charts = metric === undefined ? [] : [
    section(
      `Mean ${metric.name}`,
      `Over seeds, with its ${confidenceText} interval; ${
        metric.higher_is_better ? "more" : "less"
      } is better.`,
      await drawChart(meanChart(result), `Mean ${metric.name} of each variant with its interval`),
    ),
    ...await Promise.all(
      Map.groupBy(differences, ({ against }) => against).entries().map(async ([against, rows]) =>
        section(
          `Against ${against}`,
          `Differences paired by seed, with ${confidenceText} intervals.`,
          await drawChart(differenceChart(rows, metric.name), `Differences of the variants from ${against}`),
        )
      ),
    ),
  ];
  return htmlPage({
    title: name,
    subtitle: description?.trim() ?? "",
    sections: [
      ...charts,
      section("Variants", "", htmlTable(variantColumns(result), variants)),
      ...(differences.length === 0
        ? []
        : [section("Differences", "", htmlTable(differenceColumns, differences))]),
      ...(failures.length === 0 ? [] : [section("Failed runs", "", list(failures))]),
      section("How to read this", "", list(caveats(result))),
      section("Flags", `All variants: ${flagsText(result.base)}`, htmlTable(flagColumns, variants)),
      section(
        "Machine",
        "",
        list([`${origin.machine}; ${versionText(origin.versions)}; ${ranOnText(result)}.`]),
      ),
    ],
  });
}

const flagColumns = [
  { heading: "variant", cell: ({ name }: VariantResult) => name, words: true as const },
  { heading: "flags", cell: ({ flags }: VariantResult) => flagsText(flags) || "–", words: true as const },
];

function flagsText(flags: Flags): string {
  return flagArguments(flags).map(shownArgument).join(" ");
}

function versionText(versions: Origin["versions"]): string {
  return Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", ");
}

function ranOnText({ ran_on }: ComparisonResult): string {
  const kinds = ran_on.map(({ threads, isa }) => `${threads} thread${threads === 1 ? "" : "s"} of ${isa}`);
  return kinds.length === 0 ? "no run succeeded" : `each run on ${kinds.join(" or ")}`;
}

/** An argument with the paths of this machine cut to their ends: `--set data=…/data`. */
function shownArgument(arg: string): string {
  return arg.replace(
    /(^|=)((?:\/|[A-Za-z]:[\\/]).*)$/,
    (_, before: string, path: string) => `${before}…/${basename(path)}`,
  );
}

function quoted(arg: string): string {
  return /^[\w@%+=:,./…-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", `'\\''`)}'`;
}
