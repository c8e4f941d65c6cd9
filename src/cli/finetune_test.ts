/** `deno task finetune` as a user meets it: exit codes, the one line of an error, JSON, Ctrl-C, models of the hub. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { pipeline } from "../../mod.ts";
import { TinyFolder } from "../finetune/tiny_run.ts";
import { runTask, startTask } from "./start_task.ts";

const run = ["--init", "config.json", "--train", "train.tsv", "--eval", "eval.tsv", "--max-length", "24"];
const fast = ["--batch-size", "16", "--learning-rate", "1e-2", "--threads", "2", "--device", "cpu"];

Deno.test("finetune answers bad usage and bad input with exit code 2 and one line, and writes nothing", async () => {
  await using folder = await TinyFolder.create();
  const cases: [string[], string | RegExp][] = [
    [["--sparsty", "1"], "unknown option '--sparsty' (Did you mean --sparsity?) (--help lists the flags)"],
    [["--sparsity", "most"], /^option '--sparsity <x>' argument 'most' is invalid. wanted a number/],
    [["--epochs"], /^option '--epochs <n>' argument missing/],
    [["here"], /^too many arguments/],
    [["--sparsity", "-0.1"], "--sparsity is -0.1: wanted a number in [0, 1)"],
    [
      ["--batch_size", "32", "--tokens_per_batch", "1024"],
      "--batch-size 32 and --tokens-per-batch 1024 exclude each other: wanted one of them",
    ],
    [["--tokens-per-batch", "few"], /^option '--tokens-per-batch <n>' argument 'few' is invalid/],
    [["--tokens-per-batch", "0"], "--tokens-per-batch is 0: wanted a whole number of at least 1"],
    [["--group-by-length", "yes"], /^too many arguments/],
    [
      ["--task", "translation"],
      "--task is translation: wanted one of text-classification, regression, masked-lm, forecasting",
    ],
    [
      [...run, "--task", "regression"],
      'train.tsv line 2 has the label "negative" in "label", wanted a number',
    ],
    [["--device", "tpu"], "--device is tpu: wanted auto, cpu, webgpu or dawn"],
    [
      [...run, "--device", "webgpu", "--pruning-method", "movement"],
      "--device webgpu cannot train this run: movement pruning trains its scores on the CPU",
    ],
    [[...run, "--text-column", "review"], 'train.tsv has no column "review"; it has sentence, label'],
    [[...run, "--max-length", "128"], "--max-length is 128: wanted at most 24, the positions the model has"],
    [[...run, "--out", "train.tsv/out"], /^Cannot make train.tsv.out.*: a part of the path is not a folder$/],
    [
      [...run, "--json", "none/result.json"],
      "--json is none/result.json: wanted a file in a folder that exists",
    ],
    [[...run, "--resume", "--out", "none"], "Cannot resume none: it holds no training state"],
  ];
  const before = folder.snapshot();
  for (let begin = 0; begin < cases.length; begin += 3) {
    await Promise.all(
      cases.slice(begin, begin + 3).map(async ([args, message]) => {
        const { code, stdout, errors } = await runTask("finetune", args, { cwd: folder.path });
        assert.equal(code, 2, `${args.join(" ")}: ${errors.join("\n")}`);
        assert.equal(errors.length, 1, errors.join("\n"));
        assert.equal(stdout, "");
        const [, text] = /^lacuna finetune: (.*)$/.exec(errors[0])!;
        if (typeof message === "string") assert.equal(text, message);
        else assert.match(text, message);
      }),
    );
  }
  assert.deepEqual(folder.snapshot(), before);
});

Deno.test({
  name:
    "finetune --device webgpu without an adapter is one line and exit code 2; auto trains on the CPU and says why",
  ignore: Deno.build.os !== "linux",
  async fn() {
    await using folder = await TinyFolder.create();
    const { path: cwd } = folder;
    // The loader of Vulkan's drivers finds none.
    const env = { VK_DRIVER_FILES: "none", VK_ICD_FILENAMES: "none", DENO_WEBGPU_BACKEND: "vulkan" };
    const before = folder.snapshot();
    const refused = await runTask("finetune", [...run, "--device", "webgpu"], { cwd, env });
    assert.deepEqual([refused.code, refused.stdout], [2, ""]);
    assert.deepEqual(refused.errors, [
      "lacuna finetune: --device webgpu cannot train this run: WebGPU finds no adapter",
    ]);
    assert.deepEqual(folder.snapshot(), before);
    const args = [...run, ...fast, "--epochs", "1", "--device", "auto"];
    const { code, errors } = await runTask("finetune", args, { cwd, env });
    assert.equal(code, 0, errors.join("\n"));
    assert.match(errors[0], /^device: cpu \(auto: WebGPU finds no adapter\), /);
  },
});

Deno.test("finetune --help names every flag and exits with 0", async () => {
  await using folder = await TinyFolder.create();
  const { code, stdout, errors } = await runTask("finetune", ["--help"], { cwd: folder.path });
  assert.deepEqual([code, errors], [0, []]);
  for (const flag of ["--model", "--init", "--sparsity", "--json", "--resume", "--threads"]) {
    assert.ok(stdout.includes(flag), flag);
  }
});

Deno.test("finetune --json has the fields of the contract; infer then knows the model, and nothing overwrites it", async () => {
  await using folder = await TinyFolder.create();
  const { path: cwd } = folder;
  const args = [...run, ...fast, "--epochs", "2", "--out", "out"];
  const { code, stdout, errors } = await runTask("finetune", [...args, "--json", "-"], { cwd });
  assert.equal(code, 0, errors.join("\n"));
  assert.match(errors[0], /^device: cpu \(as asked\), \S+, 2 threads \(as asked.*\)$/);
  const result = JSON.parse(stdout);
  assert.deepEqual([result.device, result.threads, result.steps, result.out], ["cpu", 2, 12, "out"]);
  assert.ok(result.seconds > 0 && result.tokens_per_second > 0);
  assert.ok(result.data_wait >= 0 && result.data_wait < 1, `${result.data_wait}`);
  for (const evaluation of [result.eval, result.dense_eval]) {
    assert.equal(evaluation.examples, 48);
    assert.ok(evaluation.loss > 0);
    for (const name of ["accuracy", "macro_f1"]) {
      assert.ok(evaluation[name] >= 0 && evaluation[name] <= 1, name);
    }
  }
  assert.equal(result.dense_eval.sparsity, 0);
  assert.ok(Math.abs(result.sparsity.overall - 0.9) < 0.002);
  assert.equal(Object.keys(result.sparsity.layers).length, 12);

  const answers = await runTask("infer", ["the film was great"], { cwd });
  assert.equal(answers.code, 0, answers.errors.join("\n"));
  assert.match(answers.stdout, /^(negative|positive)\t[01]\.\d{4}\tthe film was great\n$/);

  const before = folder.snapshot();
  const again = await runTask("finetune", args, { cwd });
  assert.equal(again.code, 2);
  assert.deepEqual(again.errors, [
    "lacuna finetune: out already holds a model (config.json): pass --overwrite or another --out",
  ]);
  assert.deepEqual(folder.snapshot(), before);

  const replaced = await runTask(
    "finetune",
    [...args, "--overwrite", "--seed", "7", "--json", "result.json"],
    { cwd },
  );
  assert.equal(replaced.code, 0, replaced.errors.join("\n"));
  assert.match(
    replaced.stdout,
    /^12 steps in .* tokens\/s on 2 threads \(\w+\), \d+\.\d\d % of it waiting for data$/m,
  );
  assert.match(replaced.stdout, /^written:$/m);
  assert.equal(JSON.parse(await Deno.readTextFile(folder.at("result.json"))).steps, 12);
  assert.notEqual(folder.snapshot().get("out/model.safetensors"), before.get("out/model.safetensors"));
});

Deno.test("finetune succeeds where its note of the last model cannot be written, and says so", async () => {
  await using folder = await TinyFolder.create();
  await folder.write("runs", "a file");
  const args = [...run, ...fast, "--epochs", "1", "--out", "out", "--json", "-"];
  const { code, stdout, errors } = await runTask("finetune", args, { cwd: folder.path });
  assert.equal(code, 0, errors.join("\n"));
  assert.equal(JSON.parse(stdout).out, "out");
  assert.match(errors.at(-1)!, /^Cannot make runs: .*; infer and bench will need --model$/);
});

Deno.test({
  name: "finetune saves at Ctrl-C, says how to go on, and exits with 1",
  ignore: Deno.build.os === "windows", // There a process cannot be sent SIGINT.
  async fn() {
    await using folder = await TinyFolder.create();
    const args = [...run, ...fast, "--epochs", "5000", "--out", "out"];
    const child = startTask("finetune", args, { cwd: folder.path });
    let text = "";
    for await (const chunk of child.stderr.pipeThrough(new TextDecoderStream())) {
      if (!/^step /m.test(text) && /^step /m.test(text + chunk)) child.kill("SIGINT");
      text += chunk;
    }
    await child.stdout.cancel();
    assert.equal((await child.status).code, 1, text);
    assert.match(
      text.trim().split("\n").at(-1)!,
      /^lacuna finetune: interrupted at step \d+ of 30000: saved in out, go on with --resume$/,
    );
    assert.deepEqual([...folder.snapshot(folder.at("out")).keys()], [
      "training",
      "training/history.jsonl",
      "training/state.safetensors",
    ]);
  },
});

Deno.test("finetune shows a bar on a terminal", async () => {
  const { success } = await new Deno.Command("script", { args: ["-qec", "true", "/dev/null"], stdin: "null" })
    .output().catch(() => ({ success: false }));
  if (!success) {
    console.log("skipped: there is no script(1) here to make a terminal");
    return;
  }
  await using folder = await TinyFolder.create();
  const args = [...run, ...fast, "--epochs", "1", "--out", "out"];
  const launcher = ["sh", "-c", 'exec script -qec "$*" /dev/null', "sh"];
  const { code, stdout } = await runTask("finetune", args, { cwd: folder.path, launcher });
  assert.equal(code, 0, stdout);
  assert.match(stdout, /[░█]{24} \d\/6 {2}epoch \d\.\d\d {2}loss /);
});

const commit = "0123456789abcdef0123456789abcdef01234567";

/** Serves a folder as the model `owner/tiny`, in the URL shapes of the hub, to callers with the token. */
function serveHub(
  folder: string,
  token: string,
): { server: Deno.HttpServer<Deno.NetAddr>; requests: string[] } {
  const requests: string[] = [];
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
    const { pathname } = new URL(request.url);
    requests.push(pathname);
    if (request.headers.get("authorization") !== `Bearer ${token}`) return new Response("", { status: 401 });
    if (pathname === "/api/models/owner/tiny/revision/main") {
      return Response.json({ _id: "1", id: "owner/tiny", sha: commit, lastModified: "2024-01-01T00:00:00Z" });
    }
    if (pathname === `/api/models/owner/tiny/tree/${commit}`) {
      return Response.json([...Deno.readDirSync(folder)].map(({ name }) => {
        const bytes = Deno.readFileSync(join(folder, name));
        const blob = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
        const sha256 = createHash("sha256").update(bytes).digest("hex");
        const lfs = { oid: sha256, size: bytes.length, pointerSize: 130 };
        return {
          type: "file",
          path: name,
          size: bytes.length,
          oid: blob,
          ...(name.endsWith(".safetensors") && { lfs }),
        };
      }));
    }
    const prefix = `/owner/tiny/resolve/${commit}/`;
    if (pathname.startsWith(prefix)) {
      return new Response(Deno.readFileSync(join(folder, pathname.slice(prefix.length))));
    }
    return Response.json({ error: "Repository not found" }, { status: 404 });
  });
  return { server, requests };
}

Deno.test("finetune starts from a model of the hub, downloads it once, and needs no network after that", async () => {
  await using folder = await TinyFolder.create();
  const { server, requests } = serveHub(await folder.writeModel("served"), "hf_test");
  const { path: cwd } = folder;
  const env = {
    HF_ENDPOINT: `http://127.0.0.1:${server.addr.port}`,
    HF_TOKEN: "hf_test",
    HF_HOME: folder.at("home"),
    HF_HUB_CACHE: "",
    HUGGINGFACE_HUB_CACHE: "",
    HF_HUB_OFFLINE: "",
  };
  const args = [...run.slice(2), ...fast, "--epochs", "1"];
  try {
    const hub = ["--model", "owner/tiny", ...args];
    const refused = await runTask("finetune", [...hub, "--out", "refused"], {
      cwd,
      env: { ...env, HF_TOKEN: "hf_x" },
    });
    assert.equal(refused.code, 2);
    assert.match(
      refused.errors.join("\n"),
      /^lacuna finetune: \S+ refuses access to owner\/tiny \(401\): .*HF_TOKEN/,
    );
    const offline = { cwd, env: { ...env, HF_HUB_OFFLINE: "1" } };
    const absent = await runTask("finetune", [...hub, "--out", "absent"], offline);
    assert.equal(absent.code, 2);
    assert.match(
      absent.errors.join("\n"),
      /^lacuna finetune: owner\/tiny \(main\) is not in the cache .*OFFLINE forb/,
    );
    const none = await runTask("finetune", ["--model", "owner/none", ...args], { cwd, env });
    assert.equal(none.code, 2);
    assert.match(
      none.errors.join("\n"),
      /^lacuna finetune: There is no model owner\/none \(main\) on \S+ \(404\)/,
    );

    const online = await runTask("finetune", [...hub, "--out", "online"], { cwd, env });
    assert.equal(online.code, 0, online.errors.join("\n"));
    requests.length = 0;
    const cached = await runTask("finetune", [...hub, "--out", "cached"], offline);
    assert.equal(cached.code, 0, cached.errors.join("\n"));
    assert.deepEqual(requests, []);
    const local = await runTask("finetune", ["--model", "served", ...args, "--out", "local"], { cwd });
    assert.equal(local.code, 0, local.errors.join("\n"));
    const weights = (name: string) => folder.snapshot().get(join(name, "model.safetensors"));
    assert.ok(weights("online"));
    assert.equal(weights("cached"), weights("online"));
    assert.equal(weights("local"), weights("online"));
    for (const out of ["refused", "absent"]) assert.equal(weights(out), undefined);
  } finally {
    await server.shutdown();
  }

  const classify = await pipeline("text-classification", folder.at("online"), { threads: 1 });
  assert.ok((await classify("the film was great")).score >= 0.5);
  await classify.dispose();
});
