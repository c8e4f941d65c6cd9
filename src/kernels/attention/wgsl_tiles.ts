/**
 * Tiles in workgroup memory and their products, in WGSL, for the shaders of attention and of its gradient.
 *
 * All products are one function, `left · right`: workgroup memory is these two tiles of 32 × 32, whatever the head size. A workgroup is
 * 8 × 8 invocations. Each has a 4 × 4 part of a product, its `Block`, in registers: rows row + 8·i for i < 4, and the columns
 * 4·column to 4·column + 3.
 * @module
 */

/** Columns of a block, and features of a chunk: sides of a tile. */
export const tileSide = 32;

/** Invocations of a workgroup. */
export const workgroupSize = 64;

/** Vectors from one row of a tile to the next: odd, so that a column of a tile lies in different memory banks. */
const stride = tileSide / 4 + 1;

/** What the code depends on. All else is in uniforms, so that few shaders serve all models. */
export interface TileShape {
  /** Parts of a head of up to 32 features: the sums over columns, which are in registers, are of one each. */
  readonly chunks: number;
  /** Whether features are read and written four at a time. */
  readonly vectors: boolean;
  /** Whether probabilities are dropped. */
  readonly dropout: boolean;
}

/** Text for each of the four rows, 8 apart, that an invocation has in a tile. */
export function eachRow(text: (row: number) => string): string {
  return [0, 1, 2, 3].map(text).join("\n    ");
}

/**
 * Text: `result` = Σ over features of left matrix · right matrix; a `Block` of owned columns × columns of the other block. The
 * names are those of functions that `loadTile` made.
 */
export function innerProduct(
  result: string,
  loadLeft: string,
  loadRight: string,
  otherFirst: string,
): string {
  return `
    // Said in full: naga forgets that a variable of a loop's body begins as zero each time.
    var ${result} = Block();
    for (var depth = 0u; depth < sizes.headSize; depth += ${tileSide}u) {
      workgroupBarrier();
      ${loadLeft}(ownFirst, end, depth);
      ${loadRight}(${otherFirst}, end, depth);
      workgroupBarrier();
      ${result} = product(${result}, min(${tileSide / 4}u, (sizes.headSize - depth + 3u) / 4u));
    }`;
}

/** Text: adds weights · other matrix to the sums `<sum>0`, `<sum>1`, … of each chunk of features. `weights` is a `Block`. */
export function addWeighted(
  sum: string,
  weights: string,
  loadRight: string,
  otherFirst: string,
  { chunks }: TileShape,
): string {
  return `
    workgroupBarrier();
    ${eachRow((i) => `left[${stride}u * (row + ${8 * i}u) + column] = ${weights}[${i}];`)}
    ${
    eachChunk(chunks, (chunk) => `
    ${chunk > 0 ? "workgroupBarrier();" : ""}
    ${loadRight}(${otherFirst}, end, ${chunk * tileSide}u);
    workgroupBarrier();
    ${sum}${chunk} = product(${sum}${chunk}, (min(${tileSide}u, end - ${otherFirst}) + 3u) / 4u);`)
  }`;
}

/** Text: declares the sums that `addWeighted` adds to. */
export function declareSums(sum: string, { chunks }: TileShape): string {
  return eachChunk(chunks, (chunk) => `var ${sum}${chunk}: Block;`);
}

/** Text: multiplies row `i` of the sums. */
export function scaleSums(sum: string, i: number, factor: string, { chunks }: TileShape): string {
  return eachChunk(chunks, (chunk) => `${sum}${chunk}[${i}] *= ${factor};`);
}

/** Text: stores the sums; `scaled` makes an expression of a row's vector and the row's number. */
export function storeSums(
  sum: string,
  matrix: string,
  { chunks }: TileShape,
  scaled: (vector: string, row: number) => string,
): string {
  return eachChunk(
    chunks,
    (chunk) =>
      eachRow((i) =>
        `${matrix}Store(ownFirst + row + ${8 * i}u, end, ${chunk * tileSide}u + 4u * column, ` +
        `${scaled(`${sum}${chunk}[${i}]`, i)});`
      ),
  );
}

function eachChunk(chunks: number, text: (chunk: number) => string): string {
  return Array.from({ length: chunks }, (_, chunk) => text(chunk)).join("\n    ");
}

/**
 * A function that brings 32 columns, from `first` on and before `end`, and 32 features into a tile: `<matrix>ToLeft` and
 * `<matrix>ToRight` with a row for each column, `<matrix>Across` into `right` with a row for each feature.
 */
export function loadTile(matrix: string, into: "left" | "right" | "across"): string {
  const four = (text: (i: number) => string) => [0, 1, 2, 3].map(text).join("\n  ");
  if (into === "across") {
    // Lanes that are neighbours read different columns, so that what they store does not meet in one memory bank.
    return `
fn ${matrix}Across(first: u32, end: u32, depth: u32) {
  let side = 4u * (ownLane % 8u);
  let vector = 4u * (ownLane / 8u);
  ${four((i) => `let vector${i} = ${matrix}At(first + side + ${i}u, end, depth + vector);`)}
  let block = transpose(mat4x4f(vector0, vector1, vector2, vector3));
  ${four((i) => `right[${stride}u * (vector + ${i}u) + side / 4u] = block[${i}];`)}
}`;
  }
  // First all loads, then all stores: a GPU waits once.
  return `
fn ${matrix}To${into === "left" ? "Left" : "Right"}(first: u32, end: u32, depth: u32) {
  let side = ownLane / 8u;
  let vector = ownLane % 8u;
  ${four((i) => `let vector${i} = ${matrix}At(first + side + ${8 * i}u, end, depth + 4u * vector);`)}
  ${four((i) => `${into}[${stride}u * (side + ${8 * i}u) + vector] = vector${i};`)}
}`;
}

/** What all shaders with tiles declare, besides `ownLane`, the number of the invocation: `product` gives sum + left · right, over `vectors` vectors of left's columns. */
export const tileDeclarations = `
alias Block = array<vec4f, 4>;
var<workgroup> left: array<vec4f, ${tileSide * stride}>;
var<workgroup> right: array<vec4f, ${tileSide * stride}>;
fn addProducts(sum: vec4f, a: vec4f, b: Block) -> vec4f {
  return fma(a.wwww, b[3], fma(a.zzzz, b[2], fma(a.yyyy, b[1], fma(a.xxxx, b[0], sum))));
}
fn product(sum: Block, vectors: u32) -> Block {
  let row = ${stride}u * (ownLane / 8u);
  var sum0 = sum[0];
  var sum1 = sum[1];
  var sum2 = sum[2];
  var sum3 = sum[3];
  for (var k = 0u; k < vectors; k++) {
    let at = ${4 * stride}u * k + ownLane % 8u;
    let b = Block(right[at], right[at + ${stride}u], right[at + ${2 * stride}u], right[at + ${3 * stride}u]);
    sum0 = addProducts(sum0, left[row + k], b);
    sum1 = addProducts(sum1, left[row + ${8 * stride}u + k], b);
    sum2 = addProducts(sum2, left[row + ${16 * stride}u + k], b);
    sum3 = addProducts(sum3, left[row + ${24 * stride}u + k], b);
  }
  return Block(sum0, sum1, sum2, sum3);
}`;
