/** Gated cross-attention of NVLM-X and NVLM-H, cut over the ranks by its own key-value heads (spec 14). */
import type { ModelConfig } from "../config.js";
import type { CrossConfig } from "../cross-config.js";
import { Graph, whole } from "../graph.js";
import { headStarts, laneCount, rankLaneStarts, rankRange } from "../lanes.js";
import type { BufferId, Program, WeightId, WeightSpec } from "../program.js";
import { columnsOf, rowsOf, scaled, type Cut } from "./pieces.js";

/** Heads of a rank. */
function headsOf(cross: CrossConfig, cut: Cut) {
  const kv = rankRange(headStarts(cross.kvHeads, laneCount(cross.kvHeads)), cut);
  const group = cross.heads / cross.kvHeads;
  return { kv, q: scaled(kv, group) };
}

export interface CrossPlace {
  cross: CrossConfig;
  cut: Cut;
  /** Among the layers that have a cross-attention. */
  index: number;
  /** Prefix of its tensors. */
  name: string;
  hiddenSize: number;
  buffers: Record<"h" | "x" | "y", BufferId>;
}

/** The decoder's side: queries of the tokens, attention over the images' streams, the gated residual. */
export function addCrossAttention(g: Graph, place: CrossPlace): void {
  const { cross, cut, index, name, hiddenSize } = place;
  const { h, x, y } = place.buffers;
  const { headDim, eps } = cross;
  const { kv, q } = headsOf(cross, cut);
  const [heads, kvHeads] = [q.count, kv.count];
  const bias = cross.bias
    ? { bias: g.vector("cross.q.bias", [rowsOf(`${name}.q_proj.bias`, scaled(q, headDim), 1)]) }
    : {};
  const sight = { onSight: true } as const;
  const queries = g.buffer("cross.q", "token", heads * headDim);
  const out = g.buffer("cross.attention", "token", heads * headDim);
  const norm = g.vector("cross.norm", [whole(`${name}.norm.weight`, hiddenSize)]);
  const type = cut.weights;
  const weight = g.linear(
    "cross.q",
    [rowsOf(`${name}.q_proj.weight`, scaled(q, headDim), hiddenSize)],
    { type },
  );
  g.op({ op: "rms_norm", x: h, out: x, weight: norm, eps, ...sight });
  g.op({
    op: "linear",
    x,
    out: queries,
    weight,
    ...bias,
    epilogue: "none",
    partial: false,
    ...sight,
  });
  if (cross.qkNorm) {
    const each = g.vector("cross.q_norm", [whole(`${name}.q_norm.weight`, headDim)]);
    const at = { x: queries, column: 0, heads, headDim };
    g.op({ op: "norm_each_head", ...at, weight: each, eps, ...sight });
  }
  const scale = headDim ** -0.5;
  const cache = { layer: index, heads, kvHeads, headDim, scale };
  g.op({ op: "cross_attention", x: queries, out, ...cache, ...sight });
  const starts = headStarts(cross.heads, laneCount(cross.kvHeads)).map((head) => head * headDim);
  const piece = columnsOf(`${name}.o_proj.weight`, rankRange(starts, cut), hiddenSize);
  const project = g.linear("cross.o", [piece], { laneStarts: rankLaneStarts(starts, cut), type });
  const sum = { x: out, out: y, weight: project } as const;
  g.op({ op: "linear", ...sum, epilogue: "none", partial: true, ...sight });
  g.allReduceAdd(y, sight);
  const parts = {
    ...(cross.bias
      ? { bias: g.vector("cross.o.bias", [whole(`${name}.o_proj.bias`, hiddenSize)]) }
      : {}),
    ...(cross.gate === "tanh" ? { gate: g.vector("cross.gate", [whole(`${name}.gate`, 1)]) } : {}),
  };
  g.op({ op: "gated_residual", h, y, ...parts, ...sight });
}

export interface StreamParts {
  config: ModelConfig;
  cross: CrossConfig;
  cut: Cut;
  /** Of the step program, to which the stream's are added. */
  weights: WeightSpec[];
  table: { weight: WeightId; firstId: number };
  /** Rows may be embeddings of token ids. */
  tags: boolean;
}

/** Rows of images' streams → the cross cache of every layer. */
export function streamProgram(parts: StreamParts): Program {
  const { config, cross, cut, weights, table, tags } = parts;
  const d = config.decoder.hiddenSize;
  const g = new Graph(weights);
  const m = g.buffer("stream", "stream", d);
  const x = g.buffer("stream.norm", "stream", d);
  g.op({ op: "embed_tokens", out: m, table: table.weight, firstId: table.firstId });
  if (tags) g.allReduceAdd(m);
  g.op({ op: "splice_images", h: m, label: "stream" });
  cross.layers.forEach((layer, index) => {
    const name = `language_model.model.layers.${layer}.cross_attn`;
    addKeysAndValues(g, { cross, cut, index, name, hiddenSize: d, m, x });
  });
  return g.finish();
}

/** One layer's keys and values of all rows of a stream. */
function addKeysAndValues(
  g: Graph,
  place: Omit<CrossPlace, "buffers"> & { m: BufferId; x: BufferId },
): void {
  const { cross, cut, index, name, hiddenSize, m, x } = place;
  const { headDim, eps } = cross;
  const rows = scaled(headsOf(cross, cut).kv, headDim);
  const kvHeads = rows.count / headDim;
  const out = g.buffer(`stream.kv.${index}`, "stream", 2 * rows.count);
  if (cross.kvNorm) {
    const weight = g.vector("cross.kv_norm", [whole(`${name}.kv_norm.weight`, hiddenSize)]);
    g.op({ op: "rms_norm", x: m, out: x, weight, eps });
  }
  const parts = ["k_proj", "v_proj"].map((part) => `${name}.${part}`);
  const weight = g.linear(
    "cross.kv",
    parts.map((part) => rowsOf(`${part}.weight`, rows, hiddenSize)),
    { type: cut.weights },
  );
  const bias = cross.bias
    ? {
        bias: g.vector(
          "cross.kv.bias",
          parts.map((part) => rowsOf(`${part}.bias`, rows, 1)),
        ),
      }
    : {};
  const from = cross.kvNorm ? x : m;
  g.op({ op: "linear", x: from, out, weight, ...bias, epilogue: "none", partial: false });
  if (cross.qkNorm) {
    const each = g.vector("cross.k_norm", [whole(`${name}.k_norm.weight`, headDim)]);
    g.op({ op: "norm_each_head", x: out, column: 0, heads: kvHeads, headDim, weight: each, eps });
  }
  g.op({ op: "write_cross_cache", x: out, layer: index, kvHeads, headDim });
}
