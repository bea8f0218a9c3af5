/** The public reference's tokenizer, prompts, tiling and resizing. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { decodeImage, IMAGE_LIMITS } from "./image-decode.js";
import { renderPrompt, type ChatTemplate, type Turn, type TurnPart } from "./prompt.js";
import { chooseGrid, tileImage } from "./tiling.js";
import { PLAIN } from "./choice-settings.fixture.js";
import { createChoiceText } from "./choice-text.js";
import { loadTokenizer } from "./tokenizer.js";

const root = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const json = async (path: string): Promise<unknown> =>
  JSON.parse(await readFile(root(path), "utf8"));

const folder = await mkdtemp(join(tmpdir(), "tessera-qwen2-"));
await cp(root("test/fixtures/qwen2-tokenizer"), folder, { recursive: true });
await cp(
  root("test/fixtures/nvlm-d-72b/tokenizer_config.json"),
  join(folder, "tokenizer_config.json"),
);
const tokenizer = await loadTokenizer(folder);
after(() => rm(folder, { recursive: true }));

interface Encoded {
  name: string;
  text: string;
  ids: number[];
  ids_plain?: number[];
  ids_all_merges?: number[];
}
const goldens = (await json("test/goldens/tokenizer.json")) as {
  encode: Encoded[];
  encode_lone_surrogates: Encoded[];
  stream: { ids: number[]; texts: string[] }[];
};

test("tokenizer: every golden text gives the reference's ids, all merges kept", () => {
  assert.ok(goldens.encode.length > 100);
  for (const { name, text, ids, ids_all_merges } of goldens.encode)
    assert.deepEqual(tokenizer.encode(text, { special: true }), ids_all_merges ?? ids, name);
});

test("tokenizer: special-token text is plain text unless it is asked for", () => {
  const records = goldens.encode.filter((record) => record.ids_plain !== undefined);
  assert.ok(records.length > 0);
  for (const { name, text, ids_plain } of records)
    assert.deepEqual(tokenizer.encode(text, { special: false }), ids_plain, name);
});

test("tokenizer: lone surrogates become U+FFFD", () => {
  for (const { name, text, ids } of goldens.encode_lone_surrogates)
    assert.deepEqual(tokenizer.encode(text, { special: true }), ids, name);
});

test("choice text: what is out is the reference's decoding less a character that may still come", () => {
  for (const { ids, texts } of goldens.stream) {
    const choice = createChoiceText(PLAIN, tokenizer);
    let out = "";
    ids.forEach((tokenId, k) => {
      out += choice.push({ tokenId, logprob: undefined, top: [] }).text;
      const want = texts[k] ?? "";
      assert.ok(want.startsWith(out), `${JSON.stringify(out)} of ${JSON.stringify(want)}`);
      assert.match(want.slice(out.length), /^\ufffd*$/);
    });
    out += choice.end({ reason: "length" }).text;
    assert.equal(out, texts.at(-1) ?? "");
  }
});

interface PromptRecord {
  name: string;
  method: string;
  system: string | null;
  history: [string, string][] | null;
  question: string;
  images: { patches: number }[];
  prompt: (string | [string, number])[];
  ids: (number | [number, number])[];
  reference_fails?: unknown;
}
const prompts = (await json("test/goldens/prompts.json")) as { prompts: PromptRecord[] };
type FoldedIds = (number | [number, number])[];
const SYSTEM_IDS = [151644, 8948, 198, 16141, 279, 4755, 13, 151645, 151644, 872, 198];
const OPEN_IDS = [151645, 151644, 77091, 198];
const BLOCK_IDS: FoldedIds = [46465, 1784, 21094, 19296, 37824, 29, [151654, 256], 522, 1906];

/** Where our rules part from the reference's; made with the Rust BPE over all of merges.txt, piece by piece. */
const OWN_IDS: Record<string, FoldedIds> = {
  // All merges are kept: `##` is 565, `#include` 1067, `###` 14374; the reference loses the lines that begin with `#`.
  heading: [...SYSTEM_IDS, 565, 5430, 198, 1067, 366, 87, 397, 14374, 39861, ...OPEN_IDS],
  // A typed `<|im_end|><|im_start|>` is plain text and closes no turn.
  "forged turn": [
    ...[...SYSTEM_IDS, 6023, 27, 91, 318, 6213, 91, 1784, 91, 318, 4906, 91, 29, 8948, 198],
    ...[4121, 1195, 13, ...OPEN_IDS],
  ],
  // A typed `<|vision_pad|>` is plain text; the reference counts it as an image row and stops.
  "pad typed by the user": [
    ...[...SYSTEM_IDS, ...BLOCK_IDS, 397, 3838, 374, 82639, 13013, 30290, 91, 47585],
    ...OPEN_IDS,
  ],
  // What stands between two special tokens is normalised as one text: `>` and U+0338 become U+226F, as they do in the
  // reference, which normalises the whole prompt.
  "mark after the image block": [...[...SYSTEM_IDS, ...BLOCK_IDS, 58994, 107, 49362], ...OPEN_IDS],
};

function unfold(ids: FoldedIds): number[] {
  return ids.flatMap((id) => (typeof id === "number" ? [id] : Array<number>(id[1]).fill(id[0])));
}

function promptText(record: PromptRecord): string {
  return record.prompt.map((p) => (typeof p === "string" ? p : p[0].repeat(p[1]))).join("");
}

/** `<image>` places become image parts, from the left through the whole conversation. */
function turnsOf(record: PromptRecord): Turn[] {
  let image = 0;
  const parts = (text: string) =>
    text.split(/(<image>)/).flatMap((piece): TurnPart[] => {
      const place = piece === "<image>" && image < record.images.length;
      return place ? [{ kind: "image", image: image++ }] : [{ kind: "text", text: piece }];
    });
  const asks =
    record.history === null && image < record.images.length && !record.question.includes("<image>");
  const question = asks ? `<image>\n${record.question}` : record.question;
  return [
    { role: "system", parts: [{ kind: "text", text: record.system ?? "" }] },
    ...(record.history ?? []).flatMap(([user, assistant]): Turn[] => [
      { role: "user", parts: parts(user) },
      { role: "assistant", parts: parts(assistant) },
    ]),
    { role: "user", parts: parts(question) },
  ];
}

function render(record: PromptRecord, turns: Turn[], template: ChatTemplate = "nvlm") {
  const patches = record.images.map((image) => image.patches);
  const layout = { tags: "all", rowsInText: true } as const;
  return renderPrompt(tokenizer, turns, { template, patches, rowsPerTile: 256, layout });
}

const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);

/** The reference fails where places and image rows differ in number; ours would be refused before rendering. */
const TOO_MANY_IMAGES = [
  "more images than placeholders",
  "image but no placeholder after history",
  "empty history list",
];

test("prompt: chat conversations give the reference's text and ids, or those of our own rules", () => {
  const records = prompts.prompts.filter(
    ({ method, name }) => method === "chat" && !TOO_MANY_IMAGES.includes(name),
  );
  assert.ok(records.length > 10);
  for (const record of records) {
    const got = render(record, turnsOf(record));
    assert.equal(got.text, promptText(record), record.name);
    assert.deepEqual(got.ids, unfold(OWN_IDS[record.name] ?? record.ids), record.name);
    assert.equal(got.tags.length, sum(record.images.map((image) => image.patches)), record.name);
    for (const { position } of got.tags)
      assert.deepEqual(
        got.ids.slice(position, position + 256),
        Array(256).fill(151654),
        record.name,
      );
  }
});

test("prompt: chat_without_sys_prompt gives the reference's text after its chopped system turn", () => {
  const records = prompts.prompts.filter((one) => one.method === "chat_without_sys_prompt");
  assert.ok(records.length >= 3);
  const chopped = "ssistant.<|im_end|><|im_end|>";
  for (const record of records) {
    const { text } = render(record, turnsOf(record));
    const turns = text.slice(text.indexOf("<|im_start|>user"));
    assert.equal(chopped + turns, promptText(record), record.name);
  }
});

test("prompt: chat_without_chat_prompt gives the reference's text and ids", () => {
  const records = prompts.prompts.filter((one) => one.method === "chat_without_chat_prompt");
  assert.ok(records.length >= 2);
  for (const record of records) {
    const got = render(record, turnsOf(record).slice(1), "raw");
    assert.equal(got.text, promptText(record), record.name);
    assert.deepEqual(got.ids, unfold(record.ids), record.name);
  }
});

test("tiling: every golden size gives the reference's grid", async () => {
  const { columns, cases } = (await json("test/goldens/tiling.json")) as {
    columns: string[];
    cases: unknown[][];
  };
  const at = (row: unknown[], name: string) => row[columns.indexOf(name)];
  for (const row of cases) {
    const size = { width: Number(at(row, "width")), height: Number(at(row, "height")) };
    const tileSize = Number(at(row, "image_size"));
    const grid = chooseGrid(size, {
      tileSize,
      maxTiles: Number(at(row, "max_num")),
      useThumbnail: true,
    });
    assert.deepEqual(
      [grid.columns, grid.rows, grid.columns * tileSize, grid.rows * tileSize],
      [at(row, "cols"), at(row, "rows"), at(row, "target_width"), at(row, "target_height")],
      JSON.stringify(row),
    );
  }
});

interface Source {
  file: string;
  pillow_mode: string;
  decoded_sha256: string;
  decoded_png?: string;
  tilings?: { image_size: number; max_num: number; tiles: { sha256: string }[] }[];
}
const { sources } = (await json("test/goldens/resize/resize.json")) as { sources: Source[] };
const taken = sources.filter(
  ({ file, pillow_mode: mode }) => !file.endsWith(".gif") && !mode.startsWith("I"),
);
const decode = async (file: string) =>
  decodeImage(await readFile(root(`test/goldens/resize/${file}`)), {
    field: file,
    limits: IMAGE_LIMITS,
  });

test("decoding: lossless pictures give the reference's bytes, lossy ones within 1", async () => {
  for (const { file, decoded_sha256: want, decoded_png: png } of taken) {
    const { data } = await decode(file);
    const exact = createHash("sha256").update(data).digest("hex") === want;
    const reference = (await decode(png ?? file)).data;
    const near = data.every((value, i) => Math.abs(value - (reference[i] ?? 999)) <= 1);
    assert.ok(exact || (png !== undefined && near), file);
  }
});

test("tiles: every golden picture gives the reference's tiles", async () => {
  for (const { file, decoded_png: png, tilings } of taken)
    for (const { image_size: tileSize, max_num: maxTiles, tiles } of tilings ?? []) {
      const got = await tileImage(await decode(png ?? file), {
        tileSize,
        maxTiles,
        useThumbnail: true,
      });
      assert.deepEqual(
        got.tiles.map((tile) => tile.sha256),
        tiles.map((tile) => tile.sha256),
        file,
      );
    }
});
