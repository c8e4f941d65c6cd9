import assert from "node:assert/strict";
import { availableMemoryBytes, cgroupMemory, formatBytes } from "./memory.ts";

Deno.test("cgroupMemory gives what the tightest group leaves, of either version", () => {
  const reader = (files: Record<string, string>) => (path: string) => files[path];
  const version2 = {
    "/proc/self/cgroup": "0::/a/b\n",
    "/sys/fs/cgroup/a/b/memory.max": "max\n",
    "/sys/fs/cgroup/a/b/memory.current": "700\n",
    "/sys/fs/cgroup/a/memory.max": "1000\n",
    "/sys/fs/cgroup/a/memory.current": "900\n",
  };
  assert.equal(cgroupMemory(reader(version2)), 100);
  assert.equal(cgroupMemory(reader({ ...version2, "/sys/fs/cgroup/a/memory.current": "1200" })), 0);
  assert.equal(cgroupMemory(reader({ ...version2, "/sys/fs/cgroup/a/memory.max": "max" })), undefined);
  const version1 = {
    "/proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/x\n",
    "/sys/fs/cgroup/memory/x/memory.limit_in_bytes": "5000",
    "/sys/fs/cgroup/memory/x/memory.usage_in_bytes": "2000",
  };
  assert.equal(cgroupMemory(reader(version1)), 3000);
  assert.equal(cgroupMemory(() => undefined), undefined);
});

Deno.test("availableMemoryBytes is at most what the system has", () => {
  const bytes = availableMemoryBytes();
  assert.ok(bytes !== undefined && bytes > 0 && bytes <= Deno.systemMemoryInfo().total);
  assert.deepEqual([3 * 2 ** 29, 5 * 2 ** 20, 1].map(formatBytes), ["1.5 GiB", "5 MiB", "1 MiB"]);
});
