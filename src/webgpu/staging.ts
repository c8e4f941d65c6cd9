/**
 * Buffers that what is read from the device passes through.
 * @module
 */

/** Losses and norms, which are read most often, fit into one buffer that is made once. */
const minimumStagingBytes = 4096;

/** One is kept: as a rule there is one read at a time. */
export class StagingBuffers {
  readonly #device: GPUDevice;
  #kept: GPUBuffer | undefined;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** A buffer of that many bytes or more, not mapped. */
  take(bytes: number): GPUBuffer {
    const kept = this.#kept;
    this.#kept = undefined;
    if (kept && kept.size >= bytes) return kept;
    kept?.destroy();
    const size = Math.max(minimumStagingBytes, bytes);
    return this.#device.createBuffer({
      label: "staging",
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
  }

  /** Takes back what was taken, not mapped any more. */
  giveBack(buffer: GPUBuffer): void {
    if (this.#kept && this.#kept.size >= buffer.size) return buffer.destroy();
    this.#kept?.destroy();
    this.#kept = buffer;
  }
}
