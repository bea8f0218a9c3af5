/** The Qwen2 decoder of the NVLM family, cut over the ranks of a group. */
import type { ModelConfig } from "../config.js";
import { Graph, whole } from "../graph.js";
import { columnsOf, rowsOf, scaled, type Cut } from "./pieces.js";
import {
  headStarts,
  laneCount,
  laneStarts,
  rankLanes,
  rankLaneStarts,
  rankRange,
} from "../lanes.js";
import {
  EMPTY_PROGRAM,
  type BufferId,
  type Program,
  type VocabularyLane,
  type WeightId,
  type WeightSpec,
} from "../program.js";
import { addCrossAttention, streamProgram } from "./cross.js";

const PREFIX = "language_model";

export interface DecoderPrograms {
  /** Token ids → logits of the wanted rows. */
  step: Program;
  /** Rows of images' streams → keys and values for cross-attention; empty when there is none. */
  stream: Program;
}

/** Empty on a rank that only encodes tiles. `tags`: rows of a stream may be token embeddings, not of images only. */
export function decoderPrograms(
  config: ModelConfig,
  cut: Cut,
  options: { tags: boolean },
): DecoderPrograms {
  if (cut.rank >= cut.size) return { step: EMPTY_PROGRAM, stream: EMPTY_PROGRAM };
  const weights: WeightSpec[] = [];
  const decoder = new DecoderBuilder(config, cut, weights);
  const step = decoder.build();
  const { cross } = config;
  if (cross === undefined) return { step, stream: EMPTY_PROGRAM };
  const table = { weight: decoder.table, firstId: decoder.firstId };
  const stream = streamProgram({ config, cross, cut, weights, table, tags: options.tags });
  return { step, stream };
}

class DecoderBuilder {
  private readonly graph: Graph;
  /** Of embed_tokens. */
  table: WeightId = 0;
  firstId = 0;
  private readonly d: ModelConfig["decoder"];
  private readonly lanes: number;
  private readonly h: BufferId;
  private readonly x: BufferId;
  private readonly y: BufferId;

  constructor(
    private readonly config: ModelConfig,
    private readonly cut: Cut,
    weights: WeightSpec[],
  ) {
    this.graph = new Graph(weights);
    this.d = config.decoder;
    this.lanes = laneCount(this.d.kvHeads);
    this.h = this.graph.buffer("h", "token", this.d.hiddenSize);
    this.x = this.graph.buffer("x", "token", this.d.hiddenSize);
    this.y = this.graph.buffer("y", "token", this.d.hiddenSize);
  }

  build(): Program {
    this.embed();
    for (let layer = 0; layer < this.d.layers; layer++) {
      this.attention(layer);
      this.crossAttention(layer);
      this.feedForward(layer);
    }
    this.head();
    return this.graph.finish();
  }

  private embed(): void {
    const g = this.graph;
    const range = this.vocabulary();
    const name = `${PREFIX}.model.embed_tokens.weight`;
    const table = g.weight({
      kind: "table",
      name: "embed_tokens",
      rows: range.count,
      width: this.d.hiddenSize,
      pieces: [rowsOf(name, range, this.d.hiddenSize)],
    });
    this.table = table;
    this.firstId = range.start;
    g.op({ op: "embed_tokens", out: this.h, table, firstId: range.start });
    g.allReduceAdd(this.h);
    g.op({ op: "splice_images", h: this.h, label: "inputs_embeds" });
  }

  private attention(layer: number): void {
    const g = this.graph;
    const { hiddenSize, headDim, rmsNormEps: eps } = this.d;
    const name = `${PREFIX}.model.layers.${layer}`;
    const kv = rankRange(headStarts(this.d.kvHeads, this.lanes), this.cut);
    const group = this.d.heads / this.d.kvHeads;
    const [heads, kvHeads] = [kv.count * group, kv.count];
    const parts = [
      { part: "q_proj", rows: scaled(kv, group * headDim) },
      { part: "k_proj", rows: scaled(kv, headDim) },
      { part: "v_proj", rows: scaled(kv, headDim) },
    ].map(({ part, rows }) => ({ tensor: `${name}.self_attn.${part}`, rows }));

    const norm = g.vector("input_layernorm", [whole(`${name}.input_layernorm.weight`, hiddenSize)]);
    const weight = g.linear(
      "qkv",
      parts.map(({ tensor, rows }) => rowsOf(`${tensor}.weight`, rows, hiddenSize)),
      { type: this.cut.weights },
    );
    const bias = g.vector(
      "qkv.bias",
      parts.map(({ tensor, rows }) => rowsOf(`${tensor}.bias`, rows, 1)),
    );
    const qkv = g.buffer("qkv", "token", (heads + 2 * kvHeads) * headDim);
    const out = g.buffer("attention", "token", heads * headDim);
    const label = layer === 0 ? { label: "input_layernorm" } : {};
    g.op({ op: "rms_norm", x: this.h, out: this.x, weight: norm, eps, ...label });
    g.op({ op: "linear", x: this.x, out: qkv, weight, bias, epilogue: "none", partial: false });
    g.op({ op: "rope", qkv, heads, kvHeads, headDim, theta: this.d.ropeTheta });
    g.op({ op: "write_cache", qkv, layer, heads, kvHeads, headDim });
    g.op({ op: "attention", qkv, out, layer, heads, kvHeads, headDim, scale: headDim ** -0.5 });
    const starts = headStarts(this.d.heads, this.lanes).map((head) => head * headDim);
    this.rowParallel(out, `${name}.self_attn.o_proj.weight`, starts);
    g.op({ op: "residual", h: this.h, y: this.y });
  }

  /** In layers that have one: h ← h + tanh(gate) · CrossAttn(norm(h), streams). */
  private crossAttention(layer: number): void {
    const { cross } = this.config;
    const index = cross?.layers.indexOf(layer) ?? -1;
    if (cross === undefined || index < 0) return;
    const { graph: g, d } = this;
    addCrossAttention(g, {
      cross,
      cut: this.cut,
      index,
      name: `${PREFIX}.model.layers.${layer}.cross_attn`,
      hiddenSize: d.hiddenSize,
      buffers: { h: this.h, x: this.x, y: this.y },
    });
  }

  private feedForward(layer: number): void {
    const g = this.graph;
    const { hiddenSize, rmsNormEps: eps } = this.d;
    const name = `${PREFIX}.model.layers.${layer}`;
    const starts = laneStarts(this.d.intermediateSize, this.lanes);
    const range = rankRange(starts, this.cut);
    const norm = g.vector("post_attention_layernorm", [
      whole(`${name}.post_attention_layernorm.weight`, hiddenSize),
    ]);
    const both = ["gate_proj", "up_proj"].map((part) =>
      rowsOf(`${name}.mlp.${part}.weight`, range, hiddenSize),
    );
    const weight = g.linear("gate_up", both, { type: this.cut.weights });
    const wide = g.buffer("gate_up", "token", 2 * range.count);
    const inner = g.buffer("inner", "token", range.count);
    g.op({ op: "rms_norm", x: this.h, out: this.x, weight: norm, eps });
    g.op({ op: "linear", x: this.x, out: wide, weight, epilogue: "none", partial: false });
    g.op({ op: "silu_mul", x: wide, out: inner });
    this.rowParallel(inner, `${name}.mlp.down_proj.weight`, starts);
    g.op({ op: "residual", h: this.h, y: this.y, label: `layer.${layer}` });
  }

  /** y ← this rank's lanes of x · wᵀ, summed over the ranks. */
  private rowParallel(x: BufferId, tensor: string, starts: number[]): void {
    const g = this.graph;
    const piece = columnsOf(tensor, rankRange(starts, this.cut), this.d.hiddenSize);
    const laneStarts = rankLaneStarts(starts, this.cut);
    const weight = g.linear(tensor, [piece], { laneStarts, type: this.cut.weights });
    g.op({ op: "linear", x, out: this.y, weight, epilogue: "none", partial: true });
    g.allReduceAdd(this.y);
  }

  private head(): void {
    const g = this.graph;
    const { hiddenSize, rmsNormEps: eps } = this.d;
    const range = this.vocabulary();
    const norm = g.vector("norm", [whole(`${PREFIX}.model.norm.weight`, hiddenSize)]);
    const { weights = "bf16" } = this.cut;
    const rows = rowsOf(`${PREFIX}.lm_head.weight`, range, hiddenSize);
    const weight = g.linear("lm_head", [rows], { type: weights === "bf16" ? "bf16" : "int8" });
    const wanted = g.buffer("wanted", "wanted", hiddenSize);
    const logits = g.buffer("logits", "wanted", range.count);
    g.op({ op: "gather_rows", x: this.h, out: wanted });
    g.op({ op: "rms_norm", x: wanted, out: wanted, weight: norm, eps, label: "final_norm" });
    g.op({
      op: "linear",
      x: wanted,
      out: logits,
      weight,
      epilogue: "none",
      partial: false,
      label: "logits",
    });
    g.op({ op: "head", logits, lanes: this.vocabularyLanes() });
  }

  private vocabulary() {
    return rankRange(laneStarts(this.d.vocabularySize, this.lanes), this.cut);
  }

  private vocabularyLanes(): VocabularyLane[] {
    const starts = laneStarts(this.d.vocabularySize, this.lanes);
    const own = rankLanes(this.lanes, this.cut);
    const first = starts[own.start] ?? 0;
    return Array.from({ length: own.count }, (_, i) => {
      const firstId = starts[own.start + i] ?? 0;
      const count = (starts[own.start + i + 1] ?? 0) - firstId;
      return { lane: own.start + i, firstId, count, column: firstId - first };
    });
  }
}
