/** A process that another one started and holds by its stdin: what both say to each other, a line each. */
import { createInterface } from "node:readline";

/** On stdout. */
export interface Announcement {
  event: "listening" | "ready" | "drained";
  address?: string;
  health?: string | undefined;
  http?: string | undefined;
}

/** On stdin: what runs is to be answered, nothing new taken. */
export const DRAIN = "drain";

export function say(announcement: Announcement): void {
  process.stdout.write(`${JSON.stringify(announcement)}\n`);
}

/** Until stdin closes, which is the parent's end. */
export function followParent(of: { drain: (() => void) | undefined; end: () => void }): void {
  createInterface({ input: process.stdin })
    .on("line", (line) => {
      if (line === DRAIN) of.drain?.();
    })
    .once("close", of.end);
}
