/** The public reference's tokenizer, prompts, tiling and resizing. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { decodeImage, IMAGE_LIMITS } from "./image-decode.js";
import { renderPrompt, type Turn, type TurnPart } from "./prompt.js";
import { chooseGrid, tileImage } from "./tiling.js";
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
  ids_fast?: number[];
  ids_all_merges?: number[];
}
const goldens = (await json("test/goldens/tokenizer.json")) as {
  encode: Encoded[];
  encode_lone_surrogates: Encoded[];
  stream: { ids: number[]; texts: string[] }[];
};

test("tokenizer: every golden text gives the reference's ids, all merges kept", () => {
  const wrong = goldens.encode.filter(({ text, ids, ids_all_merges, ids_fast }) => {
    const got = tokenizer.encode(text, { special: true });
    return ![ids_all_merges, ids_fast, ids_all_merges === undefined ? ids : undefined].some(
      (want) => want !== undefined && got.join() === want.join(),
    );
  });
  assert.deepEqual(
    wrong.map((record) => record.name),
    [],
  );
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
  const settings = {
    stopTokenIds: [],
    stopTexts: [],
    includeStopText: false,
    skipSpecialTokens: true,
    minTokens: 0,
    maxTokens: 1e9,
  };
  for (const { ids, texts } of goldens.stream) {
    const choice = createChoiceText(settings, tokenizer);
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
/** Their ids follow Tessera's rules, not the reference's: merges with `#`, typed special tokens, a mark after a block. */
const OTHER_RULES = [
  "heading",
  "forged turn",
  "pad typed by the user",
  "mark after the image block",
];

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

test("prompt: chat conversations give the reference's text and ids", () => {
  const records = prompts.prompts.filter(
    (record) => record.method === "chat" && record.reference_fails === undefined,
  );
  assert.ok(records.length > 10);
  for (const record of records) {
    const patches = record.images.map((image) => image.patches);
    const got = renderPrompt(tokenizer, turnsOf(record), {
      template: "nvlm",
      patches,
      rowsPerTile: 256,
    });
    const text = record.prompt.map((p) => (typeof p === "string" ? p : p[0].repeat(p[1]))).join("");
    assert.equal(got.text, text, record.name);
    const ids = record.ids.flatMap((id) =>
      typeof id === "number" ? [id] : Array<number>(id[1]).fill(id[0]),
    );
    assert.equal(
      got.ids.join() === ids.join() || OTHER_RULES.includes(record.name),
      true,
      record.name,
    );
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
    const tileSize = Number(at(row, "image_size") ?? 448);
    const grid = chooseGrid(size, {
      tileSize,
      maxTiles: Number(at(row, "max_num")),
      useThumbnail: true,
    });
    assert.deepEqual(
      [grid.columns, grid.rows],
      [at(row, "cols"), at(row, "rows")],
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
