/** Masks of allowed ids on their way to the ranks: each once a plan, as runs where they are few, else as the bits. */
import type { Mask, MaskRun } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { TokenMask } from "../request/constraint.js";

/** A run's tags, length and two numbers of up to three bytes, at most. */
const RUN_BYTES = 10;

function runOf(start: number, end: number): MaskRun {
  return { $typeName: "tessera.shard.v1.MaskRun", start, count: end - start };
}

/** Undefined when they are more than `most`. */
function runsOf(mask: TokenMask, most: number): MaskRun[] | undefined {
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

const NO_BITS = new Uint8Array(0);

/** The masks of one plan. Sequences at the same place of a grammar have the same one. */
export class PlanMasks {
  readonly masks: Mask[] = [];
  private readonly numbers = new Map<TokenMask, number>();

  /** → WantedRow.mask */
  numberOf(mask: TokenMask | undefined): number {
    if (mask === undefined) return 0;
    const known = this.numbers.get(mask);
    if (known !== undefined) return known;
    const runs = runsOf(mask, Math.floor(mask.length / RUN_BYTES));
    const $typeName = "tessera.shard.v1.Mask";
    const number = this.masks.push(
      runs === undefined ? { $typeName, runs: [], bits: mask } : { $typeName, runs, bits: NO_BITS },
    );
    this.numbers.set(mask, number);
    return number;
  }
}
