/** What is written to, in the order of the lines, as far as results are there without a gap. */
import { open, rename, rm, type FileHandle } from "node:fs/promises";
import { reason } from "./lines.js";

export class Output {
  private readonly waiting = new Map<number, object>();
  private writing: Promise<void> = Promise.resolve();
  written = 0;

  private constructor(
    private readonly path: string,
    readonly partial: string,
    private readonly file: FileHandle,
  ) {}

  /** Before any work is done, so that a place that cannot be written costs none. */
  static async open(command: string, path: string): Promise<Output> {
    const partial = `${path}.partial`;
    const file = await open(partial, "w").catch((cause: unknown) => {
      throw new Error(`${command}: output ${path} cannot be written: ${reason(cause)}`, { cause });
    });
    return new Output(path, partial, file);
  }
  /** One write at a time. */
  add(index: number, line: object): Promise<void> {
    this.waiting.set(index, line);
    this.writing = this.writing.then(async () => {
      for (let next = this.take(); next !== undefined; next = this.take())
        await this.file.write(`${JSON.stringify(next)}\n`);
    });
    return this.writing;
  }
  private take(): object | undefined {
    const next = this.waiting.get(this.written);
    if (next !== undefined) this.waiting.delete(this.written++);
    return next;
  }
  async finish(): Promise<void> {
    await this.close();
    await rename(this.partial, this.path);
  }
  async close(): Promise<void> {
    await this.writing;
    await this.file.close();
  }
  async discard(): Promise<void> {
    await this.file.close();
    await rm(this.partial);
  }
}
