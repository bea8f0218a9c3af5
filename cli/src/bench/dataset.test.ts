import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { readDataset } from "./dataset.js";
import { makePictures } from "./pictures.js";

const folder = await mkdtemp(join(tmpdir(), "tessera-dataset-"));
after(() => rm(folder, { recursive: true }));
const [picture] = await makePictures([{ width: 20, height: 10 }], { count: 1, seed: 0 });
await writeFile(join(folder, "a.png"), picture?.data ?? "");
await writeFile(join(folder, "note.txt"), "no picture");

async function read(text: string) {
  const path = join(folder, "data.jsonl");
  await writeFile(path, text);
  return readDataset(path);
}

test("readDataset: prompts, lengths and pictures beside the file; blank lines are passed over", async () => {
  const { lines, digest } = await read(
    '{"prompt":"one","output_len":5}\n\n{"prompt":"two","images":["a.png","a.png"]}\n',
  );
  assert.deepEqual(
    lines.map(({ prompt, outputTokens }) => [prompt, outputTokens]),
    [
      ["one", 5],
      ["two", undefined],
    ],
  );
  const pictures = lines[1]?.pictures ?? [];
  assert.deepEqual([pictures[0]?.width, pictures[0]?.height, pictures.length], [20, 10, 2]);
  assert.equal(pictures[0], pictures[1]);
  assert.equal(pictures[0]?.url, picture?.url);
  assert.match(digest, /^[0-9a-f]{64}$/);
});

for (const [line, message] of [
  ["{", /line 2: is no JSON/],
  ["[]", /line 2: is no JSON object/],
  ['{"prompt":""}', /line 2: prompt: must be a text/],
  ['{"prompt":5}', /line 2: prompt: must be a text/],
  ['{"prompt":"a","output_len":0}', /line 2: output_len: must be a whole number, 1 to/],
  ['{"prompt":"a","output_len":"5"}', /line 2: output_len/],
  ['{"prompt":"a","promt":1}', /line 2: promt: is not known/],
  ['{"prompt":"a","images":"a.png"}', /line 2: images: must be a list/],
  ['{"prompt":"a","images":["none.png"]}', /line 2: images: none.png cannot be read: .*ENOENT/],
  ['{"prompt":"a","images":["note.txt"]}', /line 2: images: note.txt: is no picture/],
] as const)
  test(`readDataset: ${line} is refused with its line`, async () => {
    await assert.rejects(read(`{"prompt":"fine"}\n${line}\n`), message);
  });

test("readDataset: an empty file and one that is not there are refused", async () => {
  await assert.rejects(read("\n"), /has no line/);
  await assert.rejects(readDataset(join(folder, "none")), /--dataset .*none cannot be read/);
});
