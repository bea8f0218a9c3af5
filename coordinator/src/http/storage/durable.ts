/** Writing that survives a crash: what is there is whole, the old or the new. */
import { open, readFile, rename } from "node:fs/promises";
import { ServeError } from "@tessera/proto";

/** Makes names in a folder lasting. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Of files that are not whole; left behind by a crash they are removed at start. */
export const PART = ".part";

/** `name` in `folder` has the old text or the new one, never a piece. */
export async function writeDurably(folder: string, name: string, text: string): Promise<void> {
  const part = `${folder}/${name}${PART}`;
  const handle = await open(part, "w", 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(part, `${folder}/${name}`);
  await syncFolder(folder);
}

/** `place` names it. @throws ServeError CONFIGURATION without the parser's word, which quotes what a user wrote */
export function parseStored<T>(text: string, place: string): T {
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new ServeError("CONFIGURATION", `data-dir: ${place} is no JSON`);
  }
}

/** What `writeDurably` wrote; undefined where there is nothing. @throws ServeError CONFIGURATION */
export async function readDurable<T>(path: string): Promise<T | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    throw new ServeError("CONFIGURATION", `data-dir: ${path} cannot be read: ${message}`, {
      cause,
    });
  }
  return parseStored(text, path);
}
