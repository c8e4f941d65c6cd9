/**
 * Models of the Hugging Face hub, downloaded once into the cache that Python's tools use too.
 *
 * The environment variables are theirs: HF_ENDPOINT, HF_TOKEN, HF_HOME (and HF_HUB_CACHE), HF_HUB_OFFLINE. Files go
 * straight into `models--<owner>--<name>/snapshots/<commit>/`, as huggingface_hub does where it cannot make symbolic
 * links (Deno allows links only to programs that may read and write everything). Each is checked against the hash the
 * hub lists before it gets its name, so what is in the cache is whole.
 * @module
 */
import { dirname, join } from "node:path";
import type { ListFileEntry } from "@huggingface/hub";
import { errorMessage, InputError } from "../core/errors.ts";
import { ensureFolder, exists, readText, writeFileAtomic } from "../core/files.ts";
import { showValue } from "../core/json.ts";

/** How to reach the hub. What is left out comes from the environment. */
export interface DownloadOptions {
  /** Base URL; HF_ENDPOINT, or https://huggingface.co. */
  readonly endpoint?: string;
  /** Access token, for private and gated models; HF_TOKEN. */
  readonly token?: string;
  /** Cache folder; HF_HUB_CACHE, or `hub` in HF_HOME, or `huggingface/hub` in the user's cache. */
  readonly cacheDir?: string;
  /** Never use the network; HF_HUB_OFFLINE. */
  readonly offline?: boolean;
  /** Branch, tag or commit; `main`. */
  readonly revision?: string;
  /** Told as the bytes of a file arrive. */
  readonly onProgress?: (file: string, receivedBytes: number, totalBytes: number) => void;
}

/** Files of a model this project reads: config, tokenizer, safetensors. Nothing else is downloaded. */
const wantedFile =
  /^(config\.json|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|vocab\.txt|model\.safetensors(\.index\.json)?|model-\d+-of-\d+\.safetensors)$/;

/** Whether a string could name a model on the hub: `name` or `owner/name`. */
export function isHubId(text: string): boolean {
  return /^(\w[\w.-]{0,95}\/)?\w[\w.-]{0,95}$/.test(text) && !/\.\.|--|[.-](\/|$)/.test(text);
}

/**
 * The folder of a model in the cache, after downloading what is not there yet.
 * @param id `owner/name`, or `name` for the models that have no owner.
 * @throws InputError when the model does not exist, may not be read, has no safetensors, or cannot be reached.
 */
export async function downloadModel(id: string, options: DownloadOptions = {}): Promise<string> {
  // Loaded here because a model in a folder needs neither the library nor its 50 ms.
  const hub = await import("@huggingface/hub");
  const endpoint = (options.endpoint ?? Deno.env.get("HF_ENDPOINT") ?? hub.HUB_URL).replace(/\/+$/, "");
  const token = options.token ?? (Deno.env.get("HF_TOKEN") || undefined);
  const cacheDir = options.cacheDir ?? hub.getHFHubCachePath();
  const offline = options.offline ?? /^(1|true|yes|on)$/i.test(Deno.env.get("HF_HUB_OFFLINE") ?? "");
  const revision = options.revision ?? "main";
  if (!isHubId(id)) {
    throw new InputError(`${showValue(id)} is no hub id such as google-bert/bert-base-uncased`);
  }
  if (!/^\w[\w./-]*$/.test(revision) || revision.includes("..")) {
    throw new InputError(`${showValue(revision)} is no revision, wanted a branch, tag or commit`);
  }
  if (token !== undefined && !token.startsWith("hf_")) {
    throw new InputError("HF_TOKEN is not a hub token, wanted one that begins with hf_");
  }
  const storage = join(cacheDir, hub.getRepoFolderName({ name: id, type: "model" }));
  if (offline) return await cachedSnapshot(id, storage, revision);

  const access = { hubUrl: endpoint, accessToken: token };
  try {
    const { sha } = await hub.modelInfo({ ...access, name: id, revision, additionalFields: ["sha"] });
    if (!/^[0-9a-f]{40}$/.test(sha)) {
      throw new InputError(
        `${endpoint} gives ${showValue(sha)} as the commit of ${id}, wanted 40 hex digits`,
      );
    }
    const listed: ListFileEntry[] = [];
    for await (const entry of hub.listFiles({ ...access, repo: id, revision: sha })) listed.push(entry);
    const snapshot = join(storage, "snapshots", sha);
    for (const entry of chooseFiles(id, listed)) {
      const path = join(snapshot, entry.path);
      if (await exists(path)) continue;
      // Not the library's downloadFile: it hides the status of a refusal, and probes each file a second time.
      const response = await fetch(`${endpoint}/${id}/resolve/${sha}/${entry.path}`, {
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      });
      if (!response.ok || response.body === null) {
        await response.body?.cancel();
        throw refusal(id, endpoint, response.status, revision);
      }
      await ensureFolder(snapshot);
      await saveChecked(path, entry, response.body, options.onProgress);
    }
    const ref = join(storage, "refs", revision);
    await ensureFolder(dirname(ref));
    await writeFileAtomic(ref, sha);
    return snapshot;
  } catch (error) {
    if (error instanceof InputError) throw error;
    if (error instanceof hub.HubApiError) throw refusal(id, endpoint, error.statusCode, revision);
    throw new InputError(
      `Cannot download ${id} from ${endpoint}: ${errorMessage(error)} (HF_HUB_OFFLINE=1 uses the cache only)`,
      { cause: error },
    );
  }
}

/** The snapshot that an earlier download of the revision left in the cache. */
async function cachedSnapshot(id: string, storage: string, revision: string): Promise<string> {
  const ref = join(storage, "refs", revision);
  const sha = await exists(ref) ? (await readText(ref)).trim() : revision;
  const snapshot = join(storage, "snapshots", sha);
  if (!await exists(join(snapshot, "config.json"))) {
    throw new InputError(
      `${id} (${revision}) is not in the cache ${storage}, and HF_HUB_OFFLINE forbids downloading it`,
    );
  }
  return snapshot;
}

/** The files to have, config last: its presence tells that the others are there. */
function chooseFiles(id: string, listed: readonly ListFileEntry[]): ListFileEntry[] {
  const files = listed.filter((entry) => entry.type === "file" && wantedFile.test(entry.path));
  const has = (name: string) => files.some((entry) => entry.path === name);
  if (!has("config.json")) {
    throw new InputError(`${id} has no config.json, wanted a model in Hugging Face format`);
  }
  if (!has("model.safetensors") && !has("model.safetensors.index.json")) {
    throw new InputError(`${id} has no weights in safetensors format, wanted model.safetensors`);
  }
  return files
    .filter(({ path }) =>
      !has("model.safetensors") || !/^model(-.*\.safetensors|\.safetensors\.index\.json)$/.test(path)
    )
    .sort((a, b) => Number(a.path === "config.json") - Number(b.path === "config.json"));
}

/** Writes a download under its name once size and hash are those the hub lists. */
async function saveChecked(
  path: string,
  entry: ListFileEntry,
  content: ReadableStream<Uint8Array>,
  onProgress: DownloadOptions["onProgress"],
): Promise<void> {
  // Imported here, because it takes 15 ms that opening a folder need not wait for.
  const { createHash } = await import("node:crypto");
  // Large files are listed with the SHA-256 of their content, others with their git blob id.
  const hash = entry.lfs ? createHash("sha256") : createHash("sha1").update(`blob ${entry.size}\0`);
  const wanted = entry.lfs?.oid ?? entry.oid;
  await writeFileAtomic(path, async (sink) => {
    let received = 0;
    for await (const chunk of content) {
      hash.update(chunk);
      await sink.write(chunk);
      received += chunk.length;
      onProgress?.(entry.path, received, entry.size);
    }
    if (received !== entry.size) {
      throw new InputError(`The download of ${entry.path} has ${received} bytes, wanted ${entry.size}`);
    }
    const found = hash.digest("hex");
    if (wanted !== found) {
      throw new InputError(
        `The download of ${entry.path} is damaged: its hash is ${found}, wanted ${wanted}`,
      );
    }
  });
}

function refusal(id: string, endpoint: string, status: number, revision: string): InputError {
  switch (status) {
    case 401:
    case 403:
      return new InputError(
        `${endpoint} refuses access to ${id} (${status}): it does not exist, or is private or gated; ` +
          `set HF_TOKEN to a token that may read it`,
      );
    case 404:
      return new InputError(
        `There is no model ${id} (${revision}) on ${endpoint} (404), and no folder of that name`,
      );
    default:
      return new InputError(`${endpoint} answered ${status} when asked for ${id}: try again later`);
  }
}
