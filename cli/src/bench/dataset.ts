/** Prompts from a file of JSON lines. */
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { Picture } from "./pictures.js";

export interface DatasetLine {
  prompt: string;
  /** Undefined: as --output-len says. */
  outputTokens: number | undefined;
  pictures: readonly Picture[];
}

export const MAX_DATASET_BYTES = 256 << 20;
const MAX_OUTPUT_TOKENS = 1 << 20;
const MAX_IMAGES = 16;
const KEYS = new Set(["prompt", "output_len", "images"]);

interface RawLine {
  prompt: string;
  outputTokens: number | undefined;
  images: string[];
}

function parseLine(text: string, at: string): RawLine {
  const wrong = (what: string) => new Error(`${at}: ${what}`);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new Error(`${at}: is no JSON`, { cause });
  }
  if (typeof json !== "object" || json === null || Array.isArray(json))
    throw wrong("is no JSON object");
  const { prompt, output_len: outputTokens, images = [] } = json as Record<string, unknown>;
  const unknown = Object.keys(json).find((key) => !KEYS.has(key));
  if (unknown !== undefined)
    throw wrong(`${unknown}: is not known, must be prompt, output_len or images`);
  if (typeof prompt !== "string" || prompt === "") throw wrong("prompt: must be a text");
  if (outputTokens !== undefined && !isOutputLength(outputTokens))
    throw wrong(`output_len: must be a whole number, 1 to ${MAX_OUTPUT_TOKENS}`);
  if (!Array.isArray(images) || images.length > MAX_IMAGES || !images.every(isText))
    throw wrong(`images: must be a list of at most ${MAX_IMAGES} files`);
  return { prompt, outputTokens, images };
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function isOutputLength(value: unknown): value is number {
  const whole = Number.isSafeInteger(value);
  return whole && Number(value) >= 1 && Number(value) <= MAX_OUTPUT_TOKENS;
}

async function readFileAt(path: string, at: string): Promise<Buffer> {
  const wrong = (cause: unknown) => {
    const why = cause instanceof Error ? cause.message : String(cause);
    return new Error(`${at} cannot be read: ${why}`, { cause });
  };
  const { size } = await stat(path).catch((error: unknown) => Promise.reject(wrong(error)));
  if (size > MAX_DATASET_BYTES)
    throw new Error(`${at}: has ${size} bytes, at most ${MAX_DATASET_BYTES}`);
  return readFile(path).catch((error: unknown) => Promise.reject(wrong(error)));
}

/** Each picture of the file once, however many lines show it. */
class PictureFiles {
  private readonly known = new Map<string, Picture>();
  private totalBytes = 0;
  constructor(private readonly folder: string) {}

  async read(name: string, at: string): Promise<Picture> {
    const path = resolve(this.folder, name);
    const known = this.known.get(path);
    if (known !== undefined) return known;
    const data = await readFileAt(path, `${at}: images: ${name}`);
    this.totalBytes += data.length;
    if (this.totalBytes > MAX_DATASET_BYTES)
      throw new Error(`${at}: images: have more than ${MAX_DATASET_BYTES} bytes together`);
    const { default: sharp } = await import("sharp");
    const { format, width, height } = await sharp(data)
      .metadata()
      .catch((cause: unknown) => {
        throw new Error(`${at}: images: ${name}: is no picture`, { cause });
      });
    const url = `data:image/${format};base64,${data.toString("base64")}`;
    const picture = { data, url, width, height };
    this.known.set(path, picture);
    return picture;
  }
}

export interface Dataset {
  lines: DatasetLine[];
  /** SHA-256 of the file, for the report. */
  digest: string;
}

/** Pictures are named relative to the file. @throws Error naming the line. */
export async function readDataset(path: string): Promise<Dataset> {
  const bytes = await readFileAt(path, `--dataset ${path}`);
  const files = new PictureFiles(dirname(resolve(path)));
  const lines: DatasetLine[] = [];
  for (const [i, text] of bytes.toString("utf8").split("\n").entries()) {
    if (text.trim() === "") continue;
    const at = `--dataset ${path}: line ${i + 1}`;
    const { images, ...rest } = parseLine(text, at);
    const pictures: Picture[] = [];
    for (const name of images) pictures.push(await files.read(name, at));
    lines.push({ ...rest, pictures });
  }
  if (lines.length === 0) throw new Error(`--dataset ${path}: has no line`);
  return { lines, digest: createHash("sha256").update(bytes).digest("hex") };
}
