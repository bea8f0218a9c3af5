/** Answers of a batch on disk, in the order they came: the output file and the error file as they grow. */
import { createReadStream } from "node:fs";
import { open, rm, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { parseStored } from "../storage/durable.js";
import { linesOf } from "../storage/lines.js";

export type Kind = "output" | "error";
const KINDS: readonly Kind[] = ["output", "error"];
/** Of an answer; one that is longer is not taken up again after a restart. */
const MAX_ANSWER_BYTES = 256 << 20;
const NEWLINE = 10;

/** A crash may leave a piece of a line behind the last whole one. */
async function cutTail(path: string): Promise<void> {
  let size = 0;
  let whole = 0;
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    const at = chunk.lastIndexOf(NEWLINE);
    if (at >= 0) whole = size + at + 1;
    size += chunk.length;
  }
  if (whole === size) return;
  const handle = await open(path, "r+");
  try {
    await handle.truncate(whole);
  } finally {
    await handle.close();
  }
}

export interface Answered {
  customId: string;
  /** Executed, with what status. */
  status: number | undefined;
}

/** What is read of a line. */
interface Stored {
  custom_id: string;
  response: { status_code: number } | null;
}

async function readAnswers(path: string): Promise<Answered[]> {
  const found: Answered[] = [];
  const source = createReadStream(path) as AsyncIterable<Buffer>;
  for await (const { number, bytes } of linesOf(source, MAX_ANSWER_BYTES)) {
    if (bytes === undefined) continue;
    const place = `${path}: line ${number}`;
    const { custom_id: customId, response } = parseStored<Stored>(bytes.toString("utf8"), place);
    found.push({ customId, status: response?.status_code });
  }
  return found;
}

export class ResultLog {
  private writing: Promise<void> = Promise.resolve();

  private constructor(
    private readonly folder: string,
    private readonly handles: Record<Kind, FileHandle>,
    readonly answered: Answered[],
  ) {}

  static async open(folder: string): Promise<ResultLog> {
    const path = (kind: Kind) => join(folder, `${kind}.jsonl`);
    const output = await open(path("output"), "a", 0o600);
    const error = await open(path("error"), "a", 0o600);
    for (const kind of KINDS) await cutTail(path(kind));
    const answered = await Promise.all(KINDS.map((kind) => readAnswers(path(kind))));
    return new ResultLog(folder, { output, error }, answered.flat());
  }

  pathOf(kind: Kind): string {
    return join(this.folder, `${kind}.jsonl`);
  }

  /** One line after the other. */
  append(kind: Kind, entry: object): Promise<void> {
    const line = `${JSON.stringify(entry)}\n`;
    const written = this.writing.then(() => this.handles[kind].appendFile(line));
    this.writing = written.catch(() => undefined);
    return written;
  }

  /** → whether there is anything of this kind; it is lasting then. */
  async seal(kind: Kind): Promise<boolean> {
    const handle = this.handles[kind];
    await handle.sync();
    return (await handle.stat()).size > 0;
  }

  async close(): Promise<void> {
    await this.writing;
    for (const handle of Object.values(this.handles)) await handle.close();
  }

  static async remove(folder: string): Promise<void> {
    for (const kind of KINDS) await rm(join(folder, `${kind}.jsonl`), { force: true });
  }
}
