import { readFile } from "node:fs/promises";

/** A line of /proc/PID/status in bytes, such as VmRSS or VmHWM. */
async function statusBytes(pid: number, name: string): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, "utf8");
  const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1];
  if (kib === undefined) throw new Error(`/proc/${pid}/status has no ${name}`);
  return Number(kib) * 1024;
}

/** Resident now. */
export function rssBytes(pid: number): Promise<number> {
  return statusBytes(pid, "VmRSS");
}

/** Resident at most, since the process started. */
export function peakBytes(pid: number): Promise<number> {
  return statusBytes(pid, "VmHWM");
}

/** Resident pages that other processes hold too (the program's text, a mapped file), counted as theirs in part: what
 * the sum of several processes' resident memory counts more than once. */
export async function sharedBytes(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, "utf8");
  const kib = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1] ?? NaN);
  return (kib("Rss") - kib("Pss")) * 1024;
}
