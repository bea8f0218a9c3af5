/** What the tests of `tokenize` and `tiles` share. */
import assert from "node:assert/strict";
import { cp, mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tessera } from "../harness/command.js";
import { root } from "../harness/paths.js";

export interface TextGolden {
  name: string;
  text: string;
  ids: number[];
  ids_plain?: number[];
  ids_all_merges?: number[];
}
export interface Picture {
  file: string;
  pillow_mode: string;
  decoded_png?: string;
  tilings: {
    image_size: number;
    max_num: number;
    tiles: { sha256: string }[];
  }[];
}

/** The public vocabulary and merges with NVLM-D's added tokens; the caller removes it. */
export async function qwenFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "tessera-qwen2-"));
  await cp(root("test/fixtures/qwen2-tokenizer"), folder, { recursive: true });
  for (const file of ["config.json", "tokenizer_config.json"])
    await cp(root(`test/fixtures/nvlm-d-72b/${file}`), join(folder, file));
  return folder;
}

async function goldens(path: string): Promise<unknown> {
  return JSON.parse(await readFile(root(`test/goldens/${path}`), "utf8"));
}

export async function textGoldens(): Promise<TextGolden[]> {
  return ((await goldens("tokenizer.json")) as { encode: TextGolden[] }).encode;
}

/** Pictures that are taken, 16-bit grey left out: a departure of ours. */
export async function pictureGoldens(): Promise<Picture[]> {
  const { sources } = (await goldens("resize/resize.json")) as { sources: Picture[] };
  return sources.filter(
    ({ file, pillow_mode: mode }) => !file.endsWith(".gif") && !mode.startsWith("I"),
  );
}

export async function tokenize(
  model: string,
  text: string | Uint8Array,
  ...args: string[]
): Promise<{ ids: number[]; tokens: string[] }> {
  const all = ["tokenize", "--model", model, "--json", ...args];
  const { code, stdout, stderr } = await tessera(all, { input: text });
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as { ids: number[]; tokens: string[] };
}

export async function assertTiles({ file, decoded_png: png, tilings }: Picture): Promise<void> {
  for (const { image_size, max_num, tiles } of tilings) {
    const path = root(`test/goldens/resize/${png ?? file}`);
    const sizes = ["--image-size", String(image_size), "--max-tiles", String(max_num)];
    const { code, stdout, stderr } = await tessera(["tiles", path, "--json", ...sizes]);
    assert.equal(code, 0, stderr);
    const got = JSON.parse(stdout) as { grid: number[]; tiles: { sha256: string }[] };
    const want = tiles.map(({ sha256 }) => sha256);
    assert.deepEqual(
      got.tiles.map(({ sha256 }) => sha256),
      want,
      file,
    );
    const [columns = 0, rows = 0] = got.grid;
    const regular = columns * rows;
    assert.equal(regular + (regular > 1 ? 1 : 0), tiles.length, file);
  }
}
