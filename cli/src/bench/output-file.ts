/** A file that is there whole or not at all; what cannot be written is known before the work. */
import { open, rename, rm, type FileHandle } from "node:fs/promises";

export class OutputFile {
  private constructor(
    private readonly path: string,
    private readonly file: FileHandle,
  ) {}

  /** @throws Error naming the flag. */
  static async open(flag: string, path: string): Promise<OutputFile> {
    const file = await open(`${path}.partial`, "w").catch((cause: unknown) => {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new Error(`${flag} ${path}: cannot be written: ${why}`, { cause });
    });
    return new OutputFile(path, file);
  }

  async finish(content: string | Uint8Array): Promise<void> {
    await this.file.writeFile(content);
    await this.file.close();
    await rename(`${this.path}.partial`, this.path);
  }
  async discard(): Promise<void> {
    await this.file.close();
    await rm(`${this.path}.partial`, { force: true });
  }
}
