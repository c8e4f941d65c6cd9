/**
 * Where the zeros of a model are.
 * @module
 */
import type { TopLevelSpec } from "./chart.ts";

/** A heat map from the share of zeros of each weight: layers down, the matrices of a layer across. A name without a layer number gets a line of its own. */
export function sparsityChart(layerSparsity: Readonly<Record<string, number>>): TopLevelSpec {
  const values = Object.entries(layerSparsity).map(([name, sparsity]) => {
    const [, layer, matrix] = name.match(/\.layer\.(\d+)\.(.*?)(?:\.weight)?$/) ?? [];
    return {
      layer: layer === undefined ? "other" : `layer ${layer}`,
      matrix: matrix ?? name,
      percent: 100 * sparsity,
      text: (100 * sparsity).toFixed(sparsity >= 0.9995 ? 0 : 1),
    };
  });
  return {
    width: { step: 92 },
    height: { step: 26 },
    data: { values },
    encoding: {
      x: {
        field: "matrix",
        type: "nominal",
        sort: null,
        title: null,
        axis: { labelAngle: -25, orient: "top" },
      },
      y: { field: "layer", type: "nominal", sort: null, title: null },
    },
    layer: [
      {
        mark: { type: "rect", color: "var(--accent)" },
        encoding: {
          opacity: {
            field: "percent",
            type: "quantitative",
            scale: { domain: [0, 100], range: [0.05, 0.6] },
            legend: null,
          },
        },
      },
      { mark: "text", encoding: { text: { field: "text" } } },
    ],
  };
}
