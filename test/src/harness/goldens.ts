/** Golden requests of the oracle (test/oracle/README.md). */
import { readFile } from "node:fs/promises";
import { root } from "./paths.js";

export interface Golden {
  name: string;
  /** In models/documents. */
  images: string[];
  /** Role and text; the last is open. */
  turns: [string, string | null][];
  prompt_ids: number[];
  /** D: of every tile's rows; H: of each image's last tile's. */
  image_positions?: number[];
  /** X and H: image, tile of it, ids of the tag before its rows. */
  stream?: [number, number, number[]][];
  /** X and H: tokens [start, end) see rows [from, to) of all streams one after another. */
  sees?: [number, number, number, number][];
  greedy_ids: number[];
  logprobs: number[];
}

/** Of a file in test/goldens. */
export async function readGoldens(file = "nvlm-d-tiny.json"): Promise<Golden[]> {
  const text = await readFile(root(`test/goldens/${file}`), "utf8");
  return (JSON.parse(text) as { requests: Golden[] }).requests;
}
