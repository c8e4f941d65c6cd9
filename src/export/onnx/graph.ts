/**
 * Builds an ONNX graph node by node and writes it without ever holding its weights together in memory.
 *
 * A protobuf message is preceded by its length, so a file can be streamed only when every length is known before
 * the first byte. Weights therefore state their shape when they are added and their values when they are written:
 * protobufjs encodes everything but the raw tensor data, which is spliced in between, one tensor at a time.
 * @module
 */
import protobuf from "protobufjs";
import { UnsupportedError } from "../../core/errors.ts";
import {
  elementBytes,
  type ElementType,
  elementTypes,
  GraphProto,
  ModelProto,
  TensorProto,
} from "./schema.ts";

/** A protobuf message must be smaller than 2 GiB: the limit of every parser. */
const largestModelBytes = 2 ** 31 - 1;
/** Length-delimited fields on the wire carry this type beside their field number. */
const lengthDelimited = 2;

/** The name of a value in the graph: an input, a weight or the result of a node. */
export type Value = string;

/** A node attribute. ONNX tells integers from floats by declaration, so the caller has to. */
export type Attribute = { readonly int: number } | { readonly float: number } | {
  readonly ints: readonly number[];
};

/** A named input or output; a string is the name of a dimension that may differ from call to call. */
export interface Port {
  /** Name in the graph. */
  readonly name: string;
  /** Type of the elements. */
  readonly type: ElementType;
  /** Sizes, outermost first. */
  readonly shape: readonly (number | string)[];
}

/** A weight. `data` is called once each time the graph is written, and may allocate. */
export interface Initializer {
  /** Name in the graph. */
  readonly name: string;
  /** Type of the elements. */
  readonly type: ElementType;
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** The elements, row-major and little-endian. */
  readonly data: () => ArrayBufferView;
}

interface Node {
  readonly op_type: string;
  readonly domain: string;
  /** Name in the graph. */
  readonly name: string;
  readonly input: readonly Value[];
  readonly output: readonly Value[];
  readonly attribute: readonly Record<string, unknown>[];
}

/** The domain of the operators ONNX Runtime adds to the standard ones. */
export const microsoft = "com.microsoft";

/** A graph under construction. Nodes must be added after the nodes whose results they read. */
export class OnnxGraph {
  readonly #name: string;
  readonly #nodes: Node[] = [];
  readonly #initializers = new Map<string, Initializer>();
  readonly #inputs: Port[] = [];
  readonly #outputs: Port[] = [];

  /** `name` is what viewers show as the title. */
  constructor(name: string) {
    this.#name = name;
  }

  /** Declares an input of the model. */
  input(port: Port): Value {
    this.#inputs.push(port);
    return port.name;
  }

  /** Declares that the value of this name is an output of the model. */
  output(port: Port): void {
    this.#outputs.push(port);
  }

  /** Adds a weight under its name. Adding the same name again refers to the first. */
  weight(initializer: Initializer): Value {
    if (!this.#initializers.has(initializer.name)) this.#initializers.set(initializer.name, initializer);
    return initializer.name;
  }

  /** A constant scalar or list of 64-bit integers, as shapes and indices are given. */
  integers(name: string, values: number | readonly number[]): Value {
    const list = typeof values === "number" ? [values] : values;
    return this.weight({
      name,
      type: "int64",
      shape: typeof values === "number" ? [] : [list.length],
      data: () => BigInt64Array.from(list, BigInt),
    });
  }

  /** A constant f32 scalar. */
  scalar(name: string, value: number): Value {
    return this.weight({ name, type: "float32", shape: [], data: () => Float32Array.of(value) });
  }

  /**
   * Adds a node that computes `output` and returns that name. An empty input name leaves an optional input out.
   * `results` names the node's results when it has more than the first.
   */
  node(
    operator: string,
    output: Value,
    input: readonly Value[],
    options: {
      domain?: string;
      attributes?: Readonly<Record<string, Attribute>>;
      results?: readonly Value[];
    } = {},
  ): Value {
    const { domain = "", attributes = {}, results = [output] } = options;
    this.#nodes.push({
      op_type: operator,
      domain,
      name: output,
      input,
      output: results,
      attribute: Object.entries(attributes).map(([name, value]) => attributeMessage(name, value)),
    });
    return output;
  }

  /** Lays the file out. Throws `UnsupportedError` at 2 GiB. */
  layout(): OnnxLayout {
    const domains = new Set(this.#nodes.map((node) => node.domain));
    const model = ModelProto.encode({
      ir_version: 8,
      producer_name: "lacuna",
      opset_import: [
        { domain: "", version: 17 },
        ...(domains.has(microsoft) ? [{ domain: microsoft, version: 1 }] : []),
      ],
    }).finish();
    const graph = GraphProto.encode({
      name: this.#name,
      node: this.#nodes,
      input: this.#inputs.map(portMessage),
      output: this.#outputs.map(portMessage),
    }).finish();
    const tensors = [...this.#initializers.values()].map(layoutTensor);
    const graphBytes = tensors.reduce(
      (sum, tensor) => sum + tensor.header.length + tensor.dataBytes,
      graph.length,
    );
    const head = [model, fieldHeader(ModelProto, "graph", graphBytes), graph];
    const byteLength = head[0].length + head[1].length + graphBytes;
    if (byteLength > largestModelBytes) {
      throw new UnsupportedError(
        `Cannot write ${this.#name} as one ONNX file: it would take ${byteLength} bytes, the format allows ${largestModelBytes}`,
      );
    }
    return new OnnxLayout(byteLength, head, tensors);
  }
}

interface TensorLayout {
  readonly header: Uint8Array;
  readonly dataBytes: number;
  readonly initializer: Initializer;
}

/** A graph whose file size and every length in it are known. */
export class OnnxLayout {
  /** Size of the file. */
  readonly byteLength: number;
  readonly #head: readonly Uint8Array[];
  readonly #tensors: readonly TensorLayout[];

  /** Made by `OnnxGraph.layout`. */
  constructor(byteLength: number, head: readonly Uint8Array[], tensors: readonly TensorLayout[]) {
    this.byteLength = byteLength;
    this.#head = head;
    this.#tensors = tensors;
  }

  /** The file in pieces, in order. A piece of tensor data is the caller's own memory: do not change it. */
  *pieces(): Generator<Uint8Array> {
    yield* this.#head;
    for (const { header, dataBytes, initializer } of this.#tensors) {
      yield header;
      const data = initializer.data();
      if (data.byteLength !== dataBytes) {
        throw new RangeError(
          `Cannot write ${initializer.name}: ${data.byteLength} bytes of data, wanted ${dataBytes} for shape [${initializer.shape}]`,
        );
      }
      yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    }
  }
}

/** Tag and length of a length-delimited field, as they stand before its content. */
function fieldHeader(type: protobuf.Type, field: string, contentBytes: number): Uint8Array {
  return protobuf.Writer.create().uint32(type.fields[field].id << 3 | lengthDelimited).uint32(contentBytes)
    .finish();
}

/** Everything of `graph.initializer` that comes before its raw data, which is its last field. */
function layoutTensor(initializer: Initializer): TensorLayout {
  const { name, type, shape } = initializer;
  const dataBytes = shape.reduce((product, size) => product * size, elementBytes[type]);
  const description = TensorProto.encode({ dims: shape, data_type: elementTypes[type], name }).finish();
  const dataHeader = fieldHeader(TensorProto, "raw_data", dataBytes);
  const tensorBytes = description.length + dataHeader.length + dataBytes;
  const header = concatenate([fieldHeader(GraphProto, "initializer", tensorBytes), description, dataHeader]);
  return { header, dataBytes, initializer };
}

/** The pieces one after the other in one array. */
function concatenate(pieces: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let offset = 0;
  for (const piece of pieces) {
    bytes.set(piece, offset);
    offset += piece.length;
  }
  return bytes;
}

function attributeMessage(name: string, value: Attribute): Record<string, unknown> {
  if ("int" in value) return { name, i: value.int, type: 2 };
  if ("float" in value) return { name, f: value.float, type: 1 };
  return { name, ints: value.ints, type: 7 };
}

function portMessage({ name, type, shape }: Port): Record<string, unknown> {
  const dim = shape.map((size) => typeof size === "number" ? { dim_value: size } : { dim_param: size });
  return { name, type: { tensor_type: { elem_type: elementTypes[type], shape: { dim } } } };
}
