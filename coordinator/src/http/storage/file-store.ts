/** Files of tenants on disk. What they are is kept in memory, what they hold never is. */
import type { ReadStream } from "node:fs";
import { link, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { ServeError } from "@tessera/proto";
import { newId, tenantFolder, type DataFolder } from "./data-folder.js";
import { PART, readDurable, syncFolder, writeDurably } from "./durable.js";

export interface FileLimits {
  /** Of one file. */
  fileBytes: number;
  /** Of a tenant; answers of batches count, and are kept beyond. */
  tenantBytes: number;
  tenantFiles: number;
  /** Of a tenant, at once. */
  uploads: number;
}

export const FILE_LIMITS: FileLimits = {
  fileBytes: 128 << 20,
  tenantBytes: 4 * 2 ** 30,
  tenantFiles: 1000,
  uploads: 8,
};

export interface StoredFile {
  id: string;
  bytes: number;
  createdMs: number;
  filename: string;
  purpose: "batch" | "batch_output";
}

const DATA = ".data";
const FACTS = ".json";

export function notFound(field: string, id: string): ServeError {
  return ServeError.field(field, `no ${field} ${JSON.stringify(id)}`, "REQUEST_NOT_FOUND");
}

type Files = Map<string, StoredFile>;

/** What a folder has; pieces that a crash left are removed. */
async function readFolder(folder: string): Promise<Files> {
  const names = await readdir(folder);
  const files: Files = new Map();
  for (const name of names.filter((one) => one.endsWith(FACTS))) {
    const facts = await readDurable<StoredFile>(join(folder, name));
    if (facts !== undefined) files.set(facts.id, facts);
  }
  for (const name of names) {
    const owner = name.endsWith(DATA) ? name.slice(0, -DATA.length) : undefined;
    const left = owner !== undefined && !files.has(owner);
    if (left || name.endsWith(PART)) await rm(join(folder, name));
  }
  return files;
}

/** An upload under way: its bytes are on disk, its file is not there yet. */
export interface Upload {
  bytes: number;
  /** @throws ServeError OVERLOADED */
  keep(of: Pick<StoredFile, "filename" | "purpose">): Promise<StoredFile>;
  drop(): Promise<void>;
}

export class FileStore {
  /** By the tenant's folder. */
  private readonly tenants = new Map<string, Files>();
  /** Under way, by tenant. */
  private readonly uploads = new Map<string, number>();

  private constructor(
    private readonly data: DataFolder,
    readonly limits: FileLimits,
  ) {}

  static async open(data: DataFolder, limits: Partial<FileLimits> = {}): Promise<FileStore> {
    const store = new FileStore(data, { ...FILE_LIMITS, ...limits });
    for (const tenant of await data.tenants())
      store.tenants.set(tenant, await readFolder(await data.folder(tenant, "files")));
    return store;
  }

  private filesOf(tenant: string): Files {
    return this.tenants.get(tenantFolder(tenant)) ?? new Map<string, StoredFile>();
  }

  /** Its bytes lie there already; they are removed where it cannot be told. */
  private async add(tenant: string, file: StoredFile): Promise<StoredFile> {
    const name = tenantFolder(tenant);
    const folder = await this.data.folder(name, "files");
    try {
      await writeDurably(folder, file.id + FACTS, JSON.stringify(file));
    } catch (error) {
      for (const end of [FACTS, DATA]) await rm(join(folder, file.id + end), { force: true });
      throw error;
    }
    const files = this.tenants.get(name) ?? (new Map() as Files);
    this.tenants.set(name, files.set(file.id, file));
    return file;
  }

  /** @throws ServeError OVERLOADED when the tenant has too much with `bytes` more */
  checkRoom(tenant: string, bytes: number): void {
    const files = [...this.filesOf(tenant).values()];
    const { tenantBytes, tenantFiles } = this.limits;
    const held = files.reduce((sum, file) => sum + file.bytes, bytes);
    const full = (quota: string, why: string) =>
      new ServeError("OVERLOADED", `${why}; delete some`, { quota });
    if (files.length >= tenantFiles)
      throw full("files", `${files.length} files are kept, limit ${tenantFiles}`);
    if (held > tenantBytes)
      throw full("file bytes", `files would have ${held} bytes, limit ${tenantBytes}`);
  }

  /** Takes bytes as they come. @throws ServeError MESSAGE_TOO_LARGE, OVERLOADED; nothing is left then */
  async upload(tenant: string, source: AsyncIterable<Buffer>): Promise<Upload> {
    const { uploads } = this.limits;
    const running = this.uploads.get(tenant) ?? 0;
    if (running >= uploads)
      throw new ServeError("OVERLOADED", `${running} uploads are under way, limit ${uploads}`, {
        quota: "uploads",
      });
    this.uploads.set(tenant, running + 1);
    try {
      return await this.receive(tenant, source);
    } finally {
      const left = (this.uploads.get(tenant) ?? 1) - 1;
      if (left === 0) this.uploads.delete(tenant);
      else this.uploads.set(tenant, left);
    }
  }

  private async receive(tenant: string, source: AsyncIterable<Buffer>): Promise<Upload> {
    this.checkRoom(tenant, 0);
    const id = newId("file-");
    const folder = await this.data.folder(tenantFolder(tenant), "files");
    const part = join(folder, id + PART);
    try {
      const bytes = await this.write(part, source);
      return {
        bytes,
        keep: (of) => this.keep(tenant, { ...of, id, bytes, createdMs: Date.now() }, part),
        drop: () => rm(part, { force: true }),
      };
    } catch (error) {
      await rm(part, { force: true });
      throw error;
    }
  }

  private async write(path: string, source: AsyncIterable<Buffer>): Promise<number> {
    const { fileBytes } = this.limits;
    const handle = await open(path, "wx", 0o600);
    let bytes = 0;
    try {
      for await (const chunk of source) {
        bytes += chunk.length;
        if (bytes > fileBytes)
          throw ServeError.field("file", `has more than ${fileBytes} bytes`, "MESSAGE_TOO_LARGE");
        await handle.writeFile(chunk);
      }
      await handle.sync();
      return bytes;
    } finally {
      await handle.close();
    }
  }

  private async keep(tenant: string, file: StoredFile, part: string): Promise<StoredFile> {
    this.checkRoom(tenant, file.bytes);
    await rename(part, join(part, "..", file.id + DATA));
    return this.add(tenant, file);
  }

  /** A copy of a file under a new name, without its bytes being moved; once for an id. */
  async adopt(
    tenant: string,
    path: string,
    of: Pick<StoredFile, "id" | "filename">,
  ): Promise<StoredFile> {
    const known = this.filesOf(tenant).get(of.id);
    if (known !== undefined) return known;
    const folder = await this.data.folder(tenantFolder(tenant), "files");
    const { size: bytes } = await stat(path);
    const target = join(folder, of.id + DATA);
    // Left by an attempt that did not come to its end.
    await rm(target, { force: true });
    await link(path, target);
    return this.add(tenant, { ...of, bytes, purpose: "batch_output", createdMs: Date.now() });
  }

  all(tenant: string): StoredFile[] {
    return [...this.filesOf(tenant).values()];
  }

  /** @throws ServeError REQUEST_NOT_FOUND, of another tenant's as well */
  get(tenant: string, id: string, field = "file"): StoredFile {
    const file = this.filesOf(tenant).get(id);
    if (file === undefined) throw notFound(field, id);
    return file;
  }

  private pathOf(tenant: string, { id }: StoredFile): string {
    return join(this.data.path, "tenants", tenantFolder(tenant), "files", id + DATA);
  }

  /** Puts a name of its own on a file's bytes: they stay when the file is deleted. */
  async linkTo(tenant: string, file: StoredFile, path: string): Promise<void> {
    await link(this.pathOf(tenant, file), path);
  }

  /** It stays readable when the file is deleted meanwhile. @throws ServeError REQUEST_NOT_FOUND */
  async content(tenant: string, file: StoredFile): Promise<ReadStream> {
    try {
      return (await open(this.pathOf(tenant, file), "r")).createReadStream();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") throw notFound("file", file.id);
      throw error;
    }
  }

  /** @throws ServeError REQUEST_NOT_FOUND */
  async remove(tenant: string, id: string): Promise<void> {
    const file = this.get(tenant, id);
    this.filesOf(tenant).delete(id);
    const path = this.pathOf(tenant, file);
    // The facts first: what has none is no file any more.
    await rm(path.slice(0, -DATA.length) + FACTS);
    await rm(path);
    await syncFolder(join(path, ".."));
  }
}
