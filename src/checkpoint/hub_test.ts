import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { bertConfigJson, bertTensorShapes } from "../../models/config.ts";
import { presetConfig } from "../../models/presets.ts";
import { InputError } from "../core/errors.ts";
import { downloadModel, type DownloadOptions, isHubId } from "./hub.ts";
import { openModel, saveModel } from "./model_folder.ts";

const sha = "0123456789abcdef0123456789abcdef01234567";
const config = presetConfig("bert-tiny", {
  vocabularySize: 9,
  hiddenSize: 8,
  layers: 1,
  intermediateSize: 8,
});

/** Serves one folder as the model `owner/tiny`, in the URL shapes of the hub. */
class LocalHub {
  readonly requests: string[] = [];
  readonly authorizations = new Set<string | null>();
  /** Answer instead of the model. */
  status = 200;
  /** Show the model but not its files without a token. */
  gated = false;
  /** Serve other bytes than the listing promises. */
  damaged = false;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  constructor(readonly folder: string) {
    this.#server = Deno.serve(
      { port: 0, hostname: "127.0.0.1", onListen: () => {} },
      (request) => this.#answer(request),
    );
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  close(): Promise<void> {
    return this.#server.shutdown();
  }

  #answer(request: Request): Response {
    const { pathname } = new URL(request.url);
    this.requests.push(pathname);
    this.authorizations.add(request.headers.get("authorization"));
    if (this.status !== 200) return Response.json({ error: "refused" }, { status: this.status });
    if (pathname === "/api/models/owner/tiny/revision/main") {
      return Response.json({ _id: "1", id: "owner/tiny", sha, lastModified: "2024-01-01T00:00:00Z" });
    }
    if (pathname === `/api/models/owner/tiny/tree/${sha}`) return Response.json(this.#list());
    const prefix = `/owner/tiny/resolve/${sha}/`;
    if (pathname.startsWith(prefix)) {
      if (this.gated) return new Response("restricted", { status: 401 });
      return this.#file(pathname.slice(prefix.length));
    }
    return Response.json({ error: "Repository not found" }, { status: 404 });
  }

  #list(): unknown[] {
    return [...Deno.readDirSync(this.folder)].map(({ name }) => {
      const bytes = Deno.readFileSync(join(this.folder, name));
      const blob = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
      const lfs = name.endsWith(".safetensors")
        ? { oid: createHash("sha256").update(bytes).digest("hex"), size: bytes.length, pointerSize: 130 }
        : undefined;
      return { type: "file", path: name, size: bytes.length, oid: blob, lfs };
    });
  }

  #file(name: string): Response {
    const bytes = Deno.readFileSync(join(this.folder, name));
    if (this.damaged) bytes[bytes.length >> 1] ^= 1;
    return new Response(bytes);
  }
}

async function withHub(
  body: (hub: LocalHub, options: DownloadOptions, folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  const model = join(folder, "model");
  await saveModel(model, {
    configJson: bertConfigJson(config),
    tensors: [...bertTensorShapes(config)].map(([name, shape]) => {
      return { name, shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5) };
    }),
    tokenizerFiles: new Map([["vocab.txt", new TextEncoder().encode("[PAD]\n")]]),
    format: "dense",
  });
  await Deno.writeTextFile(join(model, "pytorch_model.bin"), "pickle");
  await Deno.writeTextFile(join(model, "README.md"), "# card");
  const hub = new LocalHub(model);
  try {
    await body(hub, { endpoint: hub.endpoint, cacheDir: join(folder, "cache"), offline: false }, folder);
  } finally {
    await hub.close();
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("openModel downloads config, tokenizer and safetensors into the layout of the Python cache", async () => {
  await withHub(async (hub, options, folder) => {
    const progress = new Map<string, [received: number, total: number]>();
    const onProgress = (file: string, received: number, total: number) => {
      progress.set(file, [received, total]);
    };
    const model = await openModel("owner/tiny", { download: { ...options, token: "hf_secret", onProgress } });
    assert.deepEqual(model.config, config);
    const repository = join(folder, "cache", "models--owner--tiny");
    assert.equal(model.dir, join(repository, "snapshots", sha));
    assert.equal(await Deno.readTextFile(join(repository, "refs", "main")), sha);
    const names = [...Deno.readDirSync(model.dir)].map((entry) => entry.name).sort();
    assert.deepEqual(names, ["config.json", "model.safetensors", "vocab.txt"]);
    for (const name of names) {
      assert.deepEqual(
        await Deno.readFile(join(model.dir, name)),
        await Deno.readFile(join(hub.folder, name)),
      );
      const { size } = await Deno.stat(join(model.dir, name));
      assert.deepEqual(progress.get(name), [size, size]);
    }
    assert.deepEqual([...hub.authorizations], ["Bearer hf_secret"]);
  });
});

Deno.test("downloadModel asks for no file twice, and for nothing when offline", async () => {
  await withHub(async (hub, options) => {
    const first = await downloadModel("owner/tiny", options);
    assert.deepEqual([...hub.authorizations], [null]);
    hub.requests.length = 0;
    assert.equal(await downloadModel("owner/tiny", options), first);
    assert.deepEqual(hub.requests.filter((path) => path.includes("/resolve/")), []);
    hub.requests.length = 0;
    const offline = { ...options, offline: true };
    assert.equal(await downloadModel("owner/tiny", offline), first);
    assert.equal(await downloadModel("owner/tiny", { ...offline, revision: sha }), first);
    await assert.rejects(
      downloadModel("owner/other", offline),
      new InputError(
        `owner/other (main) is not in the cache ${join(options.cacheDir!, "models--owner--other")}, ` +
          "and HF_HUB_OFFLINE forbids downloading it",
      ),
    );
    assert.deepEqual(hub.requests, []);
  });
});

Deno.test("downloadModel takes its settings from the variables of the Python tools", async () => {
  await withHub(async (hub, _, folder) => {
    const variables = {
      HF_ENDPOINT: `${hub.endpoint}/`,
      HF_TOKEN: "hf_from_variable",
      HF_HOME: join(folder, "home"),
      HF_HUB_CACHE: undefined,
      HUGGINGFACE_HUB_CACHE: undefined,
      HF_HUB_OFFLINE: undefined as string | undefined,
    };
    const before = Object.keys(variables).map((name) => [name, Deno.env.get(name)] as const);
    const set = (name: string, value: string | undefined) =>
      value === undefined ? Deno.env.delete(name) : Deno.env.set(name, value);
    try {
      for (const [name, value] of Object.entries(variables)) set(name, value);
      const dir = await downloadModel("owner/tiny");
      assert.equal(dir, join(folder, "home", "hub", "models--owner--tiny", "snapshots", sha));
      assert.deepEqual([...hub.authorizations], ["Bearer hf_from_variable"]);
      hub.requests.length = 0;
      Deno.env.set("HF_HUB_OFFLINE", "1");
      assert.equal(await downloadModel("owner/tiny"), dir);
      assert.deepEqual(hub.requests, []);
    } finally {
      for (const [name, value] of before) set(name, value);
    }
  });
});

Deno.test("downloadModel says in one line why the hub did not give the model", async () => {
  await withHub(async (hub, options) => {
    const refused = (id: string, message: string, changes: DownloadOptions = {}) =>
      assert.rejects(downloadModel(id, { ...options, ...changes }), new InputError(message));
    const { endpoint } = hub;
    await refused(
      "owner/none",
      `There is no model owner/none (main) on ${endpoint} (404), and no folder of that name`,
    );
    await refused(
      "owner/tiny",
      `There is no model owner/tiny (v2) on ${endpoint} (404), and no folder of that name`,
      { revision: "v2" },
    );
    hub.gated = true;
    await refused(
      "owner/tiny",
      `${endpoint} refuses access to owner/tiny (401): it does not exist, or is private or gated; ` +
        "set HF_TOKEN to a token that may read it",
    );
    for (const status of [401, 403]) {
      hub.status = status;
      await refused(
        "owner/tiny",
        `${endpoint} refuses access to owner/tiny (${status}): it does not exist, or is private or gated; ` +
          "set HF_TOKEN to a token that may read it",
      );
    }
    hub.status = 503;
    await refused("owner/tiny", `${endpoint} answered 503 when asked for owner/tiny: try again later`);
    await refused("owner/tiny", "HF_TOKEN is not a hub token, wanted one that begins with hf_", {
      token: "secret",
    });
    await refused("owner/tiny", '"../main" is no revision, wanted a branch, tag or commit', {
      revision: "../main",
    });
    await refused("../tiny", '"../tiny" is no hub id such as google-bert/bert-base-uncased');
    await hub.close();
    await assert.rejects(downloadModel("owner/tiny", options), (error) => {
      assert.ok(error instanceof InputError);
      assert.match(error.message, /^Cannot download owner\/tiny from http:\/\/127\.0\.0\.1:\d+: [^\n]+$/);
      return true;
    });
  });
});

Deno.test("a damaged download never gets its name", async () => {
  await withHub(async (hub, options) => {
    hub.damaged = true;
    await assert.rejects(
      downloadModel("owner/tiny", options),
      /^InputError: The download of \S+ is damaged: its hash is/,
    );
    const snapshot = join(options.cacheDir!, "models--owner--tiny", "snapshots", sha);
    assert.deepEqual([...Deno.readDirSync(snapshot)], []);
    hub.damaged = false;
    assert.equal(await downloadModel("owner/tiny", options), snapshot);
  });
});

Deno.test("downloadModel refuses models without safetensors or config before downloading anything", async () => {
  await withHub(async (hub, options) => {
    await Deno.remove(join(hub.folder, "model.safetensors"));
    await assert.rejects(
      downloadModel("owner/tiny", options),
      new InputError("owner/tiny has no weights in safetensors format, wanted model.safetensors"),
    );
    await Deno.remove(join(hub.folder, "config.json"));
    await assert.rejects(
      downloadModel("owner/tiny", options),
      new InputError("owner/tiny has no config.json, wanted a model in Hugging Face format"),
    );
    assert.deepEqual(hub.requests.filter((path) => path.includes("/resolve/")), []);
  });
});

Deno.test("a folder wins over a hub id of the same name", async () => {
  await withHub(async (hub, options) => {
    // Tasks run in the root of the repository, where this is a folder; it is also a sound hub id.
    assert.ok(isHubId("src/checkpoint"));
    await assert.rejects(
      openModel("src/checkpoint", { download: options }),
      new InputError("src/checkpoint holds no model: config.json is missing"),
    );
    assert.deepEqual(hub.requests, []);
  });
});

Deno.test("isHubId accepts the ids of the hub and no paths", () => {
  for (const id of ["bert-base-uncased", "google-bert/bert-base-uncased", "a/b.c_d-2"]) {
    assert.ok(isHubId(id), id);
  }
  for (const id of ["", "/a", "a/", "./a", "../a", "a/b/c", "a..b", "a--b", "a b", "a/-b", "a/b.", "C:\\a"]) {
    assert.ok(!isHubId(id), id);
  }
});
