import { readdir } from "node:fs/promises";

/** Files, sockets and pipes that a process has open. */
export async function handleCount(pid: number): Promise<number> {
  return (await readdir(`/proc/${pid}/fd`)).length;
}
