import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { ModelError } from "./errors.js";
import { MAX_HEADER_BYTES, readSafetensors } from "./safetensors.js";

const folder = await mkdtemp(join(tmpdir(), "tessera-safetensors-"));
after(() => rm(folder, { recursive: true }));
const path = join(folder, "model.safetensors");

function file(header: string | Buffer, data = 0, length?: bigint): Buffer {
  const text = Buffer.from(header);
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(length ?? BigInt(text.length));
  return Buffer.concat([head, text, Buffer.alloc(data)]);
}

const entry = (shape: unknown, offsets: unknown, dtype: unknown = "BF16") => ({
  dtype,
  shape,
  data_offsets: offsets,
});
const good = {
  __metadata__: { format: "pt" },
  "a.weight": entry([2, 3], [0, 12]),
  b: entry([4], [12, 28], "F32"),
  c: entry([2, 1, 2], [28, 36], "F16"),
  empty: entry([0, 7], [36, 36]),
};

test("readSafetensors: names, types, shapes and absolute places of a good file", async () => {
  const text = JSON.stringify(good);
  await writeFile(path, file(text, 36));
  const tensors = await readSafetensors(path);
  const start = 8 + Buffer.byteLength(text);
  assert.deepEqual([...tensors.keys()], ["a.weight", "b", "c", "empty"]);
  assert.deepEqual(tensors.get("a.weight"), {
    path,
    offset: start,
    bytes: 12,
    dtype: "BF16",
    rows: 2,
    cols: 3,
    shape: [2, 3],
  });
  const c = tensors.get("c");
  assert.deepEqual([c?.offset, c?.bytes, c?.rows, c?.cols], [start + 28, 8, 2, 2]);
  assert.deepEqual(tensors.get("empty")?.cols, 0);
});

/** A good file with one tensor given otherwise. */
const json = (changes: object, data = 36) => file(JSON.stringify({ ...good, ...changes }), data);
const refused: [string, Buffer, RegExp][] = [
  ["an empty file", Buffer.alloc(0), /0 bytes are no safetensors file/],
  ["7 bytes", Buffer.alloc(7), /7 bytes are no safetensors file/],
  ["a header of 2 GiB", file("{}", 0, 2n << 30n), /header of 2147483648 bytes, limit 100000000/],
  ["a header of 2⁶⁴ − 1 bytes", file("{}", 0, 2n ** 64n - 1n), /limit 100000000/],
  ["a header longer than the file", file("{}", 0, 10n), /header of 10 bytes in a file of 10/],
  ["a header that is no JSON", file("{", 0), /the header is no JSON/],
  ["a header that is no UTF-8", file(Buffer.from([0x7b, 0xff, 0x7d])), /the header is no JSON/],
  ["a header that is a list", file("[]"), /the header is no object/],
  ["a header that is null", file("null"), /the header is no object/],
  ["an entry that is no object", json({ b: 7 }), /tensor b: its entry is no object/],
  ["an entry that is null", json({ b: null }), /tensor b: its entry is no object/],
  ["no shape", json({ b: entry(undefined, [12, 28]) }), /tensor b: shape undefined/],
  ["a negative size", json({ b: entry([-4], [12, 28]) }), /tensor b: shape \[-4\]/],
  ["a size that is not whole", json({ b: entry([0.5], [12, 28]) }), /tensor b: shape \[0.5\]/],
  ["three offsets", json({ b: entry([4], [12, 20, 28]) }), /tensor b: data_offsets/],
  ["offsets as text", json({ b: entry([4], ["12", "28"]) }), /tensor b: data_offsets/],
  ["falling offsets", json({ b: entry([4], [28, 12], "F32") }), /tensor b: -16 bytes.*must be 16/],
  ["another type", json({ b: entry([16], [12, 28], "I8") }), /tensor b: type I8 is not supported/],
  ["no type", json({ b: { shape: [4], data_offsets: [12, 28] } }), /tensor b: type undefined/],
  ["a shape that does not fit", json({ b: entry([5], [12, 28], "F32") }), /16 bytes.*must be 20/],
  ["a shape beyond 2⁵³", json({ b: entry([2 ** 52, 2 ** 52], [12, 28]) }), /must be/],
  ["a cut file", json({}, 30), /tensor c: ends at byte \d+, the file has \d+/],
  ["an overlap", json({ b: entry([4], [8, 24], "F32") }), /tensors a\.weight and b overlap/],
  ["a hole", json({ b: entry([2], [20, 28], "F32") }), /8 bytes before tensor b belong to no/],
  ["a tail", json({}, 40), /4 bytes after \S+ belong to no tensor/],
];
for (const [name, bytes, message] of refused)
  test(`readSafetensors: ${name} is refused, naming the file`, async () => {
    await writeFile(path, bytes);
    await assert.rejects(readSafetensors(path), (error: unknown) => {
      assert.ok(error instanceof ModelError);
      assert.equal(error.code, "BAD_MODEL");
      assert.ok(error.message.startsWith(path), error.message);
      assert.match(error.message, message);
      return true;
    });
  });

test("readSafetensors: a file that is not there is refused by name", async () => {
  const missing = join(folder, "none");
  await assert.rejects(readSafetensors(missing), { message: `${missing}: cannot be opened` });
});

test("readSafetensors: any damage of a byte is read or refused, nothing else", async () => {
  const bytes = json({});
  const at = fc.integer({ min: 0, max: bytes.length - 1 });
  await fc.assert(
    fc.asyncProperty(at, fc.integer({ min: 0, max: 255 }), async (place, value) => {
      const copy = Buffer.from(bytes);
      copy[place] = value;
      await writeFile(path, copy);
      await readSafetensors(path).catch((error: unknown) => assert.ok(error instanceof ModelError));
    }),
    { numRuns: 200 },
  );
});

test("the header's limit is the format's own", () => {
  assert.equal(MAX_HEADER_BYTES, 100_000_000);
});
