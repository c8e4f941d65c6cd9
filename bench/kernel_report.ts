/**
 * The result of `kernels.ts` as text: tables of products, of their gradients, and of the other kernels of a layer.
 * @module
 */
import type { KernelRow } from "./kernel_round.ts";
import type { KernelBenchResult } from "./kernels.ts";
import { type TextColumn, textTable } from "../src/report/text_table.ts";

type Column = TextColumn<KernelRow>;

const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
const rate = (gigabytes: number) => `${gigabytes.toFixed(1)} GB/s`;

const kernel: Column = { heading: "kernel", cell: (row) => row.kernel, words: true };
const shape: Column = { heading: "shape", cell: (row) => row.shape, words: true };
const tokens: Column = { heading: "tokens", cell: (row) => `${row.tokens}` };
const zeros: Column = { heading: "zeros", cell: (row) => percent(row.sparsity) };
const time: Column = { heading: "time", cell: (row) => `${row.time_us.toFixed(1)} µs` };
const operations: Column = { heading: "GFLOP/s", cell: (row) => row.gflops.toFixed(1) };
const denseOperations: Column = {
  heading: "dense-eq.",
  cell: (row) => row.dense_equivalent_gflops.toFixed(0),
};
const ofPeak: Column = { heading: "of peak", cell: (row) => percent(row.share_of_peak) };
const speedup: Column = { heading: "× dense", cell: (row) => row.speedup_vs_dense.toFixed(2) };
const product: Column = { heading: "computes", cell: (row) => row.product, words: true };

const products: readonly Column[] = [
  ...[kernel, shape, tokens, zeros, time, operations, denseOperations, ofPeak],
  { heading: "weights", cell: (row) => rate(row.weight_gb_s) },
  { heading: "of L2", cell: (row) => percent(row.share_of_l2) },
  { heading: "of memory", cell: (row) => percent(row.share_of_memory) },
  speedup,
];

const gradients: readonly Column[] = [
  ...[product, kernel, shape, tokens, zeros, time, operations, denseOperations, ofPeak, speedup],
];

const others: readonly Column[] = [
  ...[kernel, tokens, time, operations, ofPeak],
  { heading: "moved", cell: (row) => rate(row.moved_gb_s) },
  { heading: "of memory", cell: (row) => percent(row.moved_share_of_memory) },
];

/** The result as text. */
export function formatKernels({ machine, bandwidth, rows, break_even }: KernelBenchResult): string {
  const isProduct = ({ kernel }: KernelRow) => ["dense", "unstructured", "4x1"].includes(kernel);
  const ofProduct = (wanted: KernelRow["product"]) =>
    rows.filter((row) => isProduct(row) && row.product === wanted);
  return [
    `${machine.cpu}; ${machine.isa}, one core: ${machine.peak_gflops.toFixed(0)} GFLOP/s fp32, reads ` +
    `${bandwidth.l2_gb_s.toFixed(0)} GB/s from L2, ${bandwidth.memory_gb_s.toFixed(0)} GB/s from beyond`,
    "",
    "Layers y = W·x; weights: as read, once for each tile of tokens; of memory: read once",
    textTable(products, ofProduct("forward")),
    "",
    "Gradients in training, from the gradient of y",
    textTable(gradients, [...ofProduct("gradient of x"), ...ofProduct("gradient of W")]),
    "",
    "Other kernels, at the sizes of BERT-base; moved: inputs and result, above 100 % of memory where caches hold them",
    textTable(others, rows.filter((row) => !isProduct(row))),
    "",
    ...break_even.map(({ pattern, always_faster_from, median_density, least_density }) =>
      `${pattern} beats dense ${
        always_faster_from === null
          ? "not everywhere"
          : `everywhere from ${percent(always_faster_from)} zeros`
      }; below a density of ${median_density.toFixed(2)} at half of the shapes, of ${
        least_density.toFixed(2)
      } at all`
    ),
  ].join("\n");
}
