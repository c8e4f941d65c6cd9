/**
 * The threshold of a selection: a histogram of each digit of |w|, and the bin that holds the place that is looked for.
 * @module
 */
import type { Shader } from "../shader.ts";
import { chunkElements, type Digit, digits, header, type WeightGroup, workgroupSize } from "./layout.ts";
import { competingFunction, listText, mainText, scanFunction } from "./wgsl_text.ts";

/** Zeros in the scratch, and 2³² − 1 in the report. */
export const clearShader: Shader = {
  key: "magnitude_clear",
  bindings: ["write", "write", "uniform"],
  code: `
struct Sizes { zeros: u32, reports: u32, groupsX: u32, reportWord: u32 }
@group(0) @binding(0) var<storage, read_write> scratch: array<u32>;
@group(0) @binding(1) var<storage, read_write> report: array<u32>;
@group(0) @binding(2) var<uniform> sizes: Sizes;
${mainText} {
  let i = (group.y * sizes.groupsX + group.x) * ${workgroupSize}u + lane;
  if (i < sizes.zeros) { scratch[i] = 0u; }
  if (i < sizes.reports) { report[sizes.reportWord + i] = 0xffffffffu; }
}`,
};

/**
 * Marks the weights that N:M spares: of each group the largest that are left, of equal ones the later, as `sparedWeights` in
 * src/pruning. An invocation has a group.
 */
export function spareShader({ kept, size }: WeightGroup): Shader {
  return {
    key: `magnitude_spare_${kept}_${size}`,
    bindings: ["write", "read", "read", "uniform"],
    code: `
struct Groups { columns: u32, perRow: u32, count: u32, groupsX: u32, firstWord: u32, spared: u32 }
@group(0) @binding(0) var<storage, read_write> scratch: array<atomic<u32>>;
@group(0) @binding(1) var<storage, read> weights: array<u32>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;
@group(0) @binding(3) var<uniform> groups: Groups;
${mainText} {
  let index = (group.y * groups.groupsX + group.x) * ${workgroupSize}u + lane;
  if (index >= groups.count) { return; }
  let column = index % groups.perRow * ${size}u;
  let first = index / groups.perRow * groups.columns + column;
  let length = min(${size}u, groups.columns - column);
  var left = 0u;
  for (var i = 0u; i < length; i++) {
    let at = first + i;
    left |= ((mask[groups.firstWord + (at >> 5u)] >> (at & 31u)) & 1u) << i;
  }
  for (var count = countOneBits(left); count > ${kept}u; count--) {
    var smallest = 0u;
    var least = 0xffffffffu;
    for (var i = 0u; i < length; i++) {
      let magnitude = weights[first + i] & 0x7fffffffu;
      if (((left >> i) & 1u) == 1u && magnitude < least) {
        smallest = i;
        least = magnitude;
      }
    }
    left &= ~(1u << smallest);
  }
  let word = groups.spared + (first >> 5u);
  let shift = first & 31u;
  atomicOr(&scratch[word], left << shift);
  // A group may go on in the next word. (Shifts are by less than 32.)
  let next = (left >> 1u) >> (31u - shift);
  if (next != 0u) { atomicOr(&scratch[word + 1u], next); }
}`,
  };
}

/**
 * Adds the weights that share the known digits of the threshold to the histogram of the next one. The first pass counts what
 * is pruned already, and finds NaNs.
 */
export function histogramShader(digit: Digit, grouped: boolean): Shader {
  const { shift, bins, histogram } = digit;
  const known = digits[digits.indexOf(digit) - 1];
  const isFirst = known === undefined;
  return {
    key: `magnitude_histogram_${shift}${grouped ? "_grouped" : ""}`,
    bindings: ["write", "read", "read", ...(isFirst ? ["write" as const] : []), "uniform"],
    code: `
${listText}
@group(0) @binding(1) var<storage, read> weights: array<u32>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;
${isFirst ? "@group(0) @binding(3) var<storage, read_write> report: array<atomic<u32>>;" : ""}
@group(0) @binding(${isFirst ? 4 : 3}) var<uniform> list: List;
${competingFunction(grouped)}
var<workgroup> bins: array<atomic<u32>, ${bins}>;
${mainText} {
  let chunk = group.y * list.groupsX + group.x;
  if (chunk >= list.chunks) { return; }
  ${isFirst ? "var prunedBefore = 0u;" : `let known = scratchAt(${header.threshold}u) >> ${known.shift}u;`}
  let end = min(list.count, (chunk + 1u) * ${chunkElements}u);
  for (var i = chunk * ${chunkElements}u + lane; i < end; i += ${workgroupSize}u) {
    let magnitude = weights[i] & 0x7fffffffu;
    let bit = 1u << (i & 31u);
    ${
      isFirst
        ? `
    if (magnitude > 0x7f800000u) {
      atomicMin(&report[list.reportWord], i);
      atomicAdd(&scratch[${header.nans}], 1u);
    }
    if ((mask[list.firstWord + (i >> 5u)] & bit) == 0u) { prunedBefore++; }`
        : `if (magnitude >> ${known.shift}u != known) { continue; }`
    }
    if ((competing(i >> 5u) & bit) == 0u) { continue; }
    atomicAdd(&bins[(magnitude >> ${shift}u) & ${bins - 1}u], 1u);
  }
  ${isFirst ? `if (prunedBefore > 0u) { atomicAdd(&scratch[${header.prunedBefore}], prunedBefore); }` : ""}
  workgroupBarrier();
  for (var bin = lane; bin < ${bins}u; bin += ${workgroupSize}u) {
    let count = atomicLoad(&bins[bin]);
    if (count > 0u) { atomicAdd(&scratch[${histogram}u + bin], count); }
  }
}`,
  };
}

/**
 * Appends a digit to the threshold: the bin that holds the place looked for. The first pass makes that place from the count
 * to prune: what is pruned already counts, and what N:M spares cannot be. One workgroup.
 */
export function digitShader(digit: Digit): Shader {
  const { shift, bins, histogram } = digit;
  const perInvocation = bins / workgroupSize;
  const isFirst = digit === digits[0];
  return {
    key: `magnitude_digit_${shift}`,
    bindings: ["write", "uniform"],
    code: `
struct Wanted { prunedCount: u32 }
@group(0) @binding(0) var<storage, read_write> scratch: array<u32>;
@group(0) @binding(1) var<uniform> wanted: Wanted;
${scanFunction}
${mainText} {
  let first = ${histogram}u + lane * ${perInvocation}u;
  var own = 0u;
  for (var i = 0u; i < ${perInvocation}u; i++) { own += scratch[first + i]; }
  let threshold = ${isFirst ? "0u" : `scratch[${header.threshold}]`};
  let place = scratch[${isFirst ? header.prunedBefore : header.rest}];
  var before = sumBefore(own, lane);
  let total = workgroupTotal();
  let rest = ${isFirst ? "max(min(wanted.prunedCount, total + place), place) - place" : "place"};
  if (rest >= total) {
    // All that may be pruned is.
    if (lane == 0u) {
      scratch[${header.threshold}] = 0xffffffffu;
      scratch[${header.rest}] = 0u;
    }
    return;
  }
  if (rest < before || rest >= before + own) { return; }
  var bin = 0u;
  while (rest >= before + scratch[first + bin]) {
    before += scratch[first + bin];
    bin++;
  }
  scratch[${header.threshold}] = threshold | ((lane * ${perInvocation}u + bin) << ${shift}u);
  scratch[${header.rest}] = rest - before;
}`,
  };
}
