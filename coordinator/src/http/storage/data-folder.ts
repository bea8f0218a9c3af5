/** The folder under which files and batches lie: one server's at a time, a folder a tenant. */
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { constants } from "node:fs";
import { access, mkdir, readdir, realpath } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { ServeError } from "@tessera/proto";

export type Kind = "files" | "batches";

/** A tenant's name never is a path: its folder is named by its hash. */
export function tenantFolder(tenant: string): string {
  return createHash("sha256").update(tenant).digest("hex");
}

export function newId(prefix: string): string {
  return `${prefix}${randomBytes(16).toString("hex")}`;
}

/** Held until the process ends, however it ends. Linux alone has such names; elsewhere nothing is held. */
async function hold(path: string): Promise<Server | undefined> {
  if (process.platform !== "linux") return undefined;
  const name = createHash("sha256").update(path).digest("hex");
  const server = createServer((socket) => socket.destroy());
  await once(server.listen(`\0tessera-data-${name}`), "listening");
  return server.unref();
}

export class DataFolder {
  private constructor(
    readonly path: string,
    private readonly held: Server | undefined,
  ) {}

  /** @throws ServeError CONFIGURATION */
  static async open(dir: string): Promise<DataFolder> {
    try {
      await mkdir(join(dir, "tenants"), { recursive: true, mode: 0o700 });
      const path = await realpath(dir);
      await access(path, constants.R_OK | constants.W_OK | constants.X_OK);
      return new DataFolder(path, await hold(path));
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      const why = code === "EADDRINUSE" ? "is used by another coordinator" : message;
      throw new ServeError("CONFIGURATION", `data-dir: ${dir} ${why}`, { cause });
    }
  }

  /** Names of the folders of tenants that have something here. */
  tenants(): Promise<string[]> {
    return readdir(join(this.path, "tenants"));
  }

  async folder(tenant: string, kind: Kind): Promise<string> {
    const folder = join(this.path, "tenants", tenant, kind);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    return folder;
  }

  async close(): Promise<void> {
    if (this.held === undefined) return;
    const closed = once(this.held, "close");
    this.held.close();
    await closed;
  }
}
