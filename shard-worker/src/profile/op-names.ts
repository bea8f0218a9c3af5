/** What a profile calls the ops of a program. */
import type { Op, Program } from "@tessera/model";

export interface OpName {
  /** As in the catalogue; of a linear with its weight: "linear gate_up". */
  name: string;
  /** Of the encoder or the decoder; undefined outside of them. */
  layer: number | undefined;
}

const LAYER = /\.layers\.(\d+)\./;

/** The last part that is a word: "….self_attn.o_proj.weight" → "o_proj". */
function shortName(weight: string): string {
  const parts = weight.replace(/\.weight$/, "").split(".");
  const last = parts.at(-1) ?? weight;
  return /^\d+$/.test(last) ? parts.slice(-2).join(".") : last;
}

/** Of the cross-attention's own weights "cross." is part of the name. */
function linearName(weight: string): string {
  return `linear ${weight.startsWith("cross.") ? weight : shortName(weight)}`;
}

function weightOf(program: Program, op: Op) {
  const id = "weight" in op ? op.weight : undefined;
  return id === undefined ? undefined : program.weights[id];
}

function nameOf(program: Program, op: Op): OpName {
  const weight = weightOf(program, op);
  const layer = LAYER.exec(weight?.pieces[0]?.tensor ?? "")?.[1];
  return {
    name: op.op === "linear" && weight !== undefined ? linearName(weight.name) : op.op,
    layer: layer === undefined ? undefined : Number(layer),
  };
}

/** By segment and op; behind a segment's ops its collective. An op without weights is of the last layer named. */
export function opNames(program: Program): OpName[][] {
  let current: number | undefined;
  return program.segments.map(({ ops, collective }) => {
    const names = ops.map((op) => {
      const own = nameOf(program, op);
      current = weightOf(program, op) === undefined ? current : own.layer;
      return { ...own, layer: current };
    });
    return collective === null ? names : [...names, { name: collective.op, layer: current }];
  });
}
