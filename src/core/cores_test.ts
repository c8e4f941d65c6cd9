import assert from "node:assert/strict";
import {
  cgroupQuota,
  chooseThreads,
  coresFrom,
  parseAffinity,
  parseCpuList,
  parseCpuMax,
  usableCores,
} from "./cores.ts";

const status = (list: string) =>
  `Name:\tdeno\nCpus_allowed:\tff\nCpus_allowed_list:\t${list}\nMems_allowed:\t1\n`;
const files = (tree: Record<string, string>) => (path: string): string | undefined => tree[path];

Deno.test("parseCpuList reads the kernel's lists, and nothing else", () => {
  assert.deepEqual(parseCpuList("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
  assert.deepEqual(parseCpuList("5"), [5]);
  for (const text of ["", "all", "0-", "1,,2", "-1"]) assert.deepEqual(parseCpuList(text), [], text);
});

Deno.test("parseAffinity finds the list in /proc/self/status", () => {
  assert.deepEqual(parseAffinity(status("1,3-4")), [1, 3, 4]);
  assert.deepEqual(parseAffinity("Name:\tdeno\n"), []);
});

Deno.test("parseCpuMax gives cores, or undefined for no limit", () => {
  assert.equal(parseCpuMax("150000 100000\n"), 1.5);
  assert.equal(parseCpuMax("400000 100000"), 4);
  assert.equal(parseCpuMax("50000"), 0.5);
  assert.equal(parseCpuMax("max 100000\n"), undefined);
  assert.equal(parseCpuMax(""), undefined);
});

Deno.test("cgroupQuota takes the least quota of a version 2 group and its parents", () => {
  const quota = cgroupQuota(files({
    "/proc/self/cgroup": "0::/kubepods/pod1/app\n",
    "/sys/fs/cgroup/kubepods/pod1/app/cpu.max": "max 100000\n",
    "/sys/fs/cgroup/kubepods/pod1/cpu.max": "350000 100000\n",
    "/sys/fs/cgroup/kubepods/cpu.max": "1600000 100000\n",
  }));
  assert.equal(quota, 3.5);
});

Deno.test("cgroupQuota reads version 1, under either name of the mount, seen from inside or outside", () => {
  const v1 = (mount: string, group: string, quota: string) =>
    cgroupQuota(files({
      "/proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n",
      [`/sys/fs/cgroup/${mount}${group}/cpu.cfs_quota_us`]: quota,
      [`/sys/fs/cgroup/${mount}${group}/cpu.cfs_period_us`]: "100000\n",
    }));
  assert.equal(v1("cpu,cpuacct", "/docker/abc", "250000\n"), 2.5);
  assert.equal(v1("cpu", "/docker/abc", "250000\n"), 2.5);
  assert.equal(v1("cpu", "", "100000\n"), 1); // A container sees its own group as the root.
  assert.equal(v1("cpu", "", "-1\n"), undefined);
});

Deno.test("coresFrom takes the least source and says which", () => {
  const at = (hardwareConcurrency: number, tree: Record<string, string>) =>
    coresFrom({ hardwareConcurrency, read: files(tree) });
  const machine = { "/sys/devices/system/cpu/online": "0-7\n", "/proc/self/status": status("0-7") };
  const v2 = (max: string) => ({ "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": max });
  assert.deepEqual(at(8, {}), { count: 8, reason: "every core this process may use" });
  assert.deepEqual(at(8, machine), { count: 8, reason: "every core of the machine" });
  assert.deepEqual(at(2, { ...machine, "/proc/self/status": status("2,6") }), {
    count: 2,
    reason: "the affinity mask allows 2",
  });
  assert.deepEqual(at(8, { ...machine, ...v2("250000 100000") }), {
    count: 2,
    reason: "the container's quota is 2.5 cores",
  });
  assert.equal(at(8, v2("20000 100000")).count, 1, "a part of a core is one thread");
  assert.equal(at(3, machine).count, 3, "the runtime may know of limits these files do not show");
  assert.equal(at(0, {}).count, 1);
});

Deno.test("usableCores is within what this machine has, and chooseThreads says when more is asked", () => {
  const usable = usableCores();
  assert.ok(Number.isInteger(usable.count) && usable.count >= 1, `${usable.count}`);
  assert.ok(usable.count <= navigator.hardwareConcurrency, usable.reason);
  assert.deepEqual(chooseThreads(), usable);
  assert.deepEqual(chooseThreads(1), { count: 1, reason: "as asked" });
  assert.match(chooseThreads(usable.count + 1).reason, /more than the \d+ usable cores/);
});
