/**
 * InternViT with NVLM's dummy heads, pixel shuffle and projector: whole on a worker, or cut over the ranks by the
 * encoder's own lanes.
 */
import { PROJECTOR_EPS, type ModelConfig } from "../config.js";
import { ModelError } from "../errors.js";
import { Graph, whole } from "../graph.js";
import {
  headStarts,
  laneStarts,
  rankLaneStarts,
  rankRange,
  VISION_LANES,
  type Range,
} from "../lanes.js";
import { EMPTY_PROGRAM, type BufferId, type Program, type TensorPiece } from "../program.js";
import { columnsOf, scaled, type Cut } from "./pieces.js";

/** Who holds all of it shares its embeddings; who holds a part of it has the sum. */
const WHOLE: Cut = { rank: 0, size: 1 };

/** The encode program: tiles → image embeddings; empty on a rank that encodes nothing. */
export function visionProgram(config: ModelConfig, cut: Cut): Program {
  const { vision = "replicate", rank, size } = cut;
  if (vision === "workers" && rank < size) return EMPTY_PROGRAM;
  if (vision !== "tensor") return new VisionBuilder(config, WHOLE).build();
  checkTensorVision(config, size);
  return new VisionBuilder(config, { rank, size }).build();
}

/** What the last linear sums over. */
function projectorInputs({ projector, decoder, vision }: ModelConfig): number {
  return projector === "mlp" ? decoder.intermediateSize : 4 * vision.hiddenSize;
}

/** Why the encoder cannot be cut over `size` ranks; undefined when it can. */
function cutProblem(config: ModelConfig, size: number): string | undefined {
  const { heads, intermediateSize } = config.vision;
  if (VISION_LANES % size !== 0)
    return `the encoder has ${VISION_LANES} lanes, of which a rank holds whole ones`;
  if (heads < size) return `the encoder has ${heads} heads, and a rank holds at least one`;
  for (const [name, count] of [
    ["feed-forward columns", intermediateSize],
    ["projector columns", projectorInputs(config)],
  ] as const) {
    const starts = laneStarts(count, VISION_LANES);
    const ranks = Array.from({ length: size }, (_, rank) => rank);
    const empty = ranks.find((rank) => rankRange(starts, { rank, size }).count === 0);
    if (empty !== undefined) return `rank ${empty} would hold none of ${count} ${name}`;
  }
  return undefined;
}

export function canCutVision(config: ModelConfig, size: number): boolean {
  return cutProblem(config, size) === undefined;
}

/** @throws ModelError INVALID_ARGUMENT when a rank would hold nothing of what is cut. */
export function checkTensorVision(config: ModelConfig, size: number): void {
  const problem = cutProblem(config, size);
  if (problem !== undefined)
    throw new ModelError("INVALID_ARGUMENT", `vision tensor over ${size} ranks: ${problem}`);
}

class VisionBuilder {
  private readonly graph = new Graph();
  private readonly v: ModelConfig["vision"];
  private readonly grid: number;
  private readonly places: number;

  constructor(
    private readonly config: ModelConfig,
    private readonly cut: Cut,
  ) {
    this.v = config.vision;
    this.grid = this.v.imageSize / this.v.patchSize;
    this.places = this.grid * this.grid + 1;
  }

  build(): Program {
    const width = this.v.hiddenSize;
    const h = this.graph.buffer("vit.h", "tile", width, this.places);
    const x = this.graph.buffer("vit.x", "tile", width, this.places);
    const y = this.graph.buffer("vit.y", "tile", width, this.places);
    this.embeddings(h);
    for (let layer = 0; layer < this.v.layers; layer++) {
      this.attention(layer, { h, x, y });
      this.feedForward(layer, { h, x, y });
    }
    this.projector(h);
    return this.graph.finish();
  }

  private embeddings(h: BufferId): void {
    const g = this.graph;
    const { hiddenSize, patchSize, imageSize } = this.v;
    const name = "vision_model.embeddings";
    const pixels = 3 * patchSize * patchSize;
    const weight = g.linear("patch_embedding", [
      whole(`${name}.patch_embedding.weight`, hiddenSize, pixels),
    ]);
    const bias = g.vector("patch_embedding.bias", [
      whole(`${name}.patch_embedding.bias`, hiddenSize),
    ]);
    // Stored as [1, 1, width] and [1, places, width].
    const classEmbedding = g.vector("class_embedding", [
      whole(`${name}.class_embedding`, 1, hiddenSize),
    ]);
    const position = g.weight({
      kind: "table",
      name: "position_embedding",
      rows: this.places,
      width: hiddenSize,
      pieces: [whole(`${name}.position_embedding`, 1, this.places * hiddenSize)],
    });
    const patches = g.buffer("patches", "tile", pixels, this.places - 1);
    const x = g.buffer("patch_rows", "tile", hiddenSize, this.places - 1);
    g.op({ op: "patchify", out: patches, tileSize: imageSize, patchSize });
    g.op({ op: "linear", x: patches, out: x, weight, bias, epilogue: "none", partial: false });
    g.op({ op: "assemble_patches", x, out: h, classEmbedding, position, label: "vit.embeddings" });
  }

  private attention(layer: number, { h, x, y }: Record<"h" | "x" | "y", BufferId>): void {
    const g = this.graph;
    const { hiddenSize, heads, headDim, eps } = this.v;
    const name = `vision_model.encoder.layers.${layer}`;
    const starts = headStarts(heads, VISION_LANES);
    const own = rankRange(starts, this.cut);
    const rows = scaled(own, headDim);
    const norm = g.vector("norm1", [whole(`${name}.norm1.weight`, hiddenSize)]);
    const weight = this.qkvWeight(`${name}.attn.qkv.weight`, rows);
    const qkv = g.buffer("vit.qkv", "tile", 3 * rows.count, this.places);
    const out = g.buffer("vit.attention", "tile", rows.count, this.places);
    const label = layer === 0 ? { label: "vit.norm1" } : {};
    g.op({ op: "rms_norm", x: h, out: x, weight: norm, eps, ...label });
    g.op({ op: "linear", x, out: qkv, weight, epilogue: "none", partial: false });
    this.normalise(qkv, `${name}.attn`, rows);
    g.op({ op: "vision_attention", qkv, out, heads: own.count, headDim, scale: headDim ** -0.5 });
    const bias = g.vector("vit.proj.bias", [whole(`${name}.attn.proj.bias`, hiddenSize)]);
    const scale = g.vector("ls1", [whole(`${name}.ls1`, hiddenSize)]);
    this.rowParallel(out, y, `${name}.attn.proj.weight`, {
      starts: starts.map((head) => head * headDim),
      zeros: this.dummies({
        ...whole(`${name}.attn.proj.weight`, hiddenSize, this.dummyRows),
        colStart: heads * headDim,
      }),
    });
    g.op({ op: "residual", h, y, bias, scale });
  }

  /** Stored rows of the heads that do not exist. */
  private get dummyRows(): number {
    return (this.v.storedHeads - this.v.heads) * this.v.headDim;
  }
  /** They must be zero in the file; the last rank looks. */
  private dummies(...pieces: TensorPiece[]): TensorPiece[] {
    return this.cut.rank === this.cut.size - 1 && this.dummyRows > 0 ? pieces : [];
  }

  /** q, k and v of the rank's heads, of a tensor that has all stored heads of each. */
  private qkvWeight(tensor: string, rows: Range) {
    const { hiddenSize, heads, storedHeads, headDim } = this.v;
    const block = (index: number, start: number, rowCount: number): TensorPiece => ({
      ...whole(tensor, rowCount, hiddenSize),
      rowStart: index * storedHeads * headDim + start,
    });
    const all = [0, 1, 2];
    return this.graph.linear(
      "vit.qkv",
      all.map((i) => block(i, rows.start, rows.count)),
      { zeros: this.dummies(...all.map((i) => block(i, heads * headDim, this.dummyRows))) },
    );
  }

  /** RMS norm of q and k over all heads; where these are cut, the squares' sums go over the ranks in the same tree. */
  private normalise(qkv: BufferId, name: string, rows: Range): void {
    const g = this.graph;
    const { heads, headDim, eps } = this.v;
    const starts = headStarts(heads, VISION_LANES);
    const parts = ["q_norm", "k_norm"].map((part, i) => ({
      column: i * rows.count,
      weight: this.normWeight(`${name}.${part}.weight`, rows),
    }));
    if (this.cut.size === 1) {
      for (const { column, weight } of parts)
        g.op({ op: "rms_norm_heads", x: qkv, column, headDim, groupStarts: starts, weight, eps });
      return;
    }
    const groupStarts = rankLaneStarts(starts, this.cut);
    const sums = g.buffer("vit.squares", "tile", parts.length, this.places);
    parts.forEach(({ column }, sumColumn) =>
      g.op({ op: "sum_squares_heads", x: qkv, column, out: sums, sumColumn, headDim, groupStarts }),
    );
    g.allReduceAdd(sums);
    parts.forEach(({ column, weight }, sumColumn) =>
      g.op({
        op: "scale_heads",
        x: qkv,
        column,
        sums,
        sumColumn,
        heads: rows.count / headDim,
        totalHeads: heads,
        headDim,
        weight,
        eps,
      }),
    );
  }

  /** The rank's heads' part of a norm weight. */
  private normWeight(tensor: string, rows: Range) {
    const { heads, headDim } = this.v;
    const rest = { ...whole(tensor, this.dummyRows), rowStart: heads * headDim };
    const own = { ...whole(tensor, rows.count), rowStart: rows.start };
    return this.graph.vector(tensor, [own], this.dummies(rest));
  }

  private feedForward(layer: number, { h, x, y }: Record<"h" | "x" | "y", BufferId>): void {
    const g = this.graph;
    const { hiddenSize, intermediateSize, eps } = this.v;
    const name = `vision_model.encoder.layers.${layer}`;
    const starts = laneStarts(intermediateSize, VISION_LANES);
    const { start: rowStart, count: inner } = rankRange(starts, this.cut);
    const norm = g.vector("norm2", [whole(`${name}.norm2.weight`, hiddenSize)]);
    const weight = g.linear("fc1", [
      { ...whole(`${name}.mlp.fc1.weight`, inner, hiddenSize), rowStart },
    ]);
    const fc1Bias = g.vector("fc1.bias", [{ ...whole(`${name}.mlp.fc1.bias`, inner), rowStart }]);
    const bias = g.vector("fc2.bias", [whole(`${name}.mlp.fc2.bias`, hiddenSize)]);
    const scale = g.vector("ls2", [whole(`${name}.ls2`, hiddenSize)]);
    const wide = g.buffer("vit.inner", "tile", inner, this.places);
    g.op({ op: "rms_norm", x: h, out: x, weight: norm, eps });
    g.op({ op: "linear", x, out: wide, weight, bias: fc1Bias, epilogue: "gelu", partial: false });
    this.rowParallel(wide, y, `${name}.mlp.fc2.weight`, { starts });
    g.op({ op: "residual", h, y, bias, scale, label: `vit.layer.${layer}` });
  }

  /**
   * out ← the rank's lanes of x · wᵀ, summed over the ranks. `column`: where in x the rank's inputs begin, when x has
   * those of others too.
   */
  private rowParallel(
    x: BufferId,
    out: BufferId,
    tensor: string,
    options: {
      starts: number[];
      zeros?: TensorPiece[];
      outputs?: number;
      column?: number;
    },
  ): void {
    const g = this.graph;
    const { starts, zeros = [], outputs = this.v.hiddenSize, column } = options;
    const partial = this.cut.size > 1;
    const weight = g.linear(tensor, [columnsOf(tensor, rankRange(starts, this.cut), outputs)], {
      laneStarts: rankLaneStarts(starts, this.cut),
      zeros,
    });
    const at = column === undefined ? {} : { column };
    g.op({ op: "linear", x, out, weight, epilogue: "none", partial, ...at });
    if (partial) g.allReduceAdd(out);
  }

  private projector(h: BufferId): void {
    const g = this.graph;
    const width = 4 * this.v.hiddenSize;
    const rows = this.config.tile.rows;
    const shuffled = g.buffer("shuffled", "tile", width, rows);
    const normed = g.buffer("projector.norm", "tile", width, rows);
    const weight = g.vector("mlp1.0", [whole("mlp1.0.weight", width)]);
    const bias = g.vector("mlp1.0.bias", [whole("mlp1.0.bias", width)]);
    const { pixelShuffle: order } = this.config;
    const { grid } = this;
    const [eps, out] = [PROJECTOR_EPS, shuffled];
    g.op({ op: "pixel_shuffle", x: h, out, grid, order, label: "vit.pixel_shuffled" });
    const label = "projector.norm";
    g.op({ op: "layer_norm", x: shuffled, out: normed, weight, bias, eps, label });
    if (this.config.projector === "mlp") this.mlp(normed);
    else {
      const { start } = rankRange(this.projectorStarts, this.cut);
      this.project(normed, "mlp1.1.weight", this.cut.size === 1 ? undefined : start);
    }
  }

  /** Linear, GELU, linear. */
  private mlp(x: BufferId): void {
    const g = this.graph;
    const range = rankRange(this.projectorStarts, this.cut);
    const out = g.buffer("projector.inner", "tile", range.count, this.config.tile.rows);
    const weight = g.linear("mlp1.1", [
      { ...whole("mlp1.1.weight", range.count, 4 * this.v.hiddenSize), rowStart: range.start },
    ]);
    g.op({ op: "linear", x, out, weight, epilogue: "gelu", partial: false });
    this.project(out, "mlp1.3.weight");
  }

  private get projectorStarts(): number[] {
    return laneStarts(projectorInputs(this.config), VISION_LANES);
  }

  /** The last linear, to the decoder's width. `column`: where in x the rank's inputs begin. */
  private project(x: BufferId, tensor: string, column?: number): void {
    const g = this.graph;
    const outputs = this.config.decoder.hiddenSize;
    const out = g.buffer("embeddings", "tile", outputs, this.config.tile.rows);
    const starts = this.projectorStarts;
    const at = column === undefined ? {} : { column };
    this.rowParallel(x, out, tensor, { starts, outputs, ...at });
    const label = "projector.output";
    g.op({ op: "store_embeddings", x: out, share: this.cut.size === 1, label });
  }
}
