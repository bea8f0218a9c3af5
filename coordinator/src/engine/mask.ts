/** Masks of allowed ids on their way to the ranks: runs where they are few, else the bits. */
import type { MaskRun } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { TokenMask } from "../request/constraint.js";

/** A run's tags, length and two numbers of up to three bytes, at most. */
const RUN_BYTES = 10;

function runOf(start: number, end: number): MaskRun {
  return { $typeName: "tessera.shard.v1.MaskRun", start, count: end - start };
}

/** Undefined when they are more than `most`. */
export function runsOf(mask: TokenMask, most: number): MaskRun[] | undefined {
  const runs: MaskRun[] = [];
  let start = -1;
  for (let id = 0; id < mask.length * 8; id++) {
    const byte = mask[id >> 3] ?? 0;
    if ((id & 7) === 0 && byte === (start < 0 ? 0x00 : 0xff)) {
      id += 7;
      continue;
    }
    const allowed = ((byte >> (id & 7)) & 1) === 1;
    if (allowed === start >= 0) continue;
    if (!allowed && runs.push(runOf(start, id)) > most) return undefined;
    start = allowed ? id : -1;
  }
  if (start >= 0) runs.push(runOf(start, mask.length * 8));
  return runs.length > most ? undefined : runs;
}

/** Fields of WantedRow. */
export function maskFields(mask: TokenMask | undefined) {
  if (mask === undefined) return {};
  const runs = runsOf(mask, Math.floor(mask.length / RUN_BYTES));
  return runs === undefined ? { masked: true, maskBits: mask } : { masked: true, mask: runs };
}
