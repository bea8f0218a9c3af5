/**
 * The program a rank executes: a flat list of ops over numbered buffers, in segments that end at collectives.
 * Written by the architectures with the graph builder, executed by native code, which checks every index and shape.
 * All buffers are f32, row-major [rows × width].
 */

/** Index into `Program.buffers`. */
export type BufferId = number;
/** Index into `Program.weights`. */
export type WeightId = number;

/** `rows` rows of `width` values for each token, wanted row, tile, or row of an image's stream. */
export interface BufferSpec {
  name: string;
  per: "token" | "wanted" | "tile" | "stream";
  rows: number;
  width: number;
}

/** A rectangle of a stored tensor, seen as [first dimension × the rest]; vectors are [length × 1]. */
export interface TensorPiece {
  tensor: string;
  rowStart: number;
  rowCount: number;
  colStart: number;
  colCount: number;
}

/** What a linear's weight is held as; int8 and int4 in groups of 32 inputs (docs/exactness.md). */
export type WeightType = "bf16" | "int8" | "int4";

/** A linear's weight in panels of 64 outputs, lane by lane. Pieces are stacked by outputs. */
export interface LinearWeight {
  kind: "linear";
  name: string;
  /** Absent: bf16. */
  type?: Exclude<WeightType, "bf16">;
  outputs: number;
  inputs: number;
  pieces: TensorPiece[];
  /** First input column of each lane this rank holds, counted in the rank's cut; then `inputs`. [0, inputs]: one lane. */
  laneStarts: number[];
  /** Pieces that must be zero in the file and are not loaded (dummy heads). */
  zeros: TensorPiece[];
}

/** A vector, f32 in memory after rounding to bf16. Pieces are concatenated. */
export interface VectorWeight {
  kind: "vector";
  name: string;
  length: number;
  pieces: TensorPiece[];
  zeros: TensorPiece[];
}

/** Rows looked up whole, bf16 in memory. */
export interface TableWeight {
  kind: "table";
  name: string;
  rows: number;
  width: number;
  pieces: TensorPiece[];
}

export type WeightSpec = LinearWeight | VectorWeight | TableWeight;

/** A lane of the vocabulary that this rank holds: ids [firstId, firstId + count); logits column of firstId. */
export interface VocabularyLane {
  lane: number;
  firstId: number;
  count: number;
  column: number;
}

/**
 * `onSight`: run only when a row of the step sees an image; a step without pays nothing for cross-attention.
 * `label` names the value an op leaves in its output, for capture by tests and profiles ("layer.3", "logits").
 */
interface OpBase {
  label?: string;
  onSight?: true;
}

/** The op catalogue; native/ops/ops.h holds the same names with shapes and the order of every sum. */
export type Op = OpBase &
  (
    | { op: "patchify"; out: BufferId; tileSize: number; patchSize: number }
    | {
        op: "linear";
        x: BufferId;
        out: BufferId;
        weight: WeightId;
        bias?: WeightId;
        epilogue: "none" | "gelu";
        /** Of x, where the weight's inputs begin; absent: x has those only. */
        column?: number;
        /** True when other ranks hold lanes of it too: the result is this rank's subtree, without bias. */
        partial: boolean;
      }
    | {
        op: "assemble_patches";
        x: BufferId;
        out: BufferId;
        classEmbedding: WeightId;
        position: WeightId;
      }
    | { op: "rms_norm"; x: BufferId; out: BufferId; weight: WeightId; eps: number }
    | {
        op: "layer_norm";
        x: BufferId;
        out: BufferId;
        weight: WeightId;
        bias: WeightId;
        eps: number;
      }
    | {
        /** RMS norm over several heads at once, in place on columns [column, column + heads × headDim). */
        op: "rms_norm_heads";
        x: BufferId;
        column: number;
        headDim: number;
        /** First head of each of the 8 lanes, then the number of heads. */
        groupStarts: number[];
        weight: WeightId;
        eps: number;
      }
    /** out[row][sumColumn] ← this rank's subtree of what rms_norm_heads sums; groupStarts of its own lanes. */
    | {
        op: "sum_squares_heads";
        x: BufferId;
        column: number;
        out: BufferId;
        sumColumn: number;
        headDim: number;
        groupStarts: number[];
      }
    /** The rest of rms_norm_heads, in place on this rank's heads, once the sums are over all `totalHeads`. */
    | {
        op: "scale_heads";
        x: BufferId;
        column: number;
        sums: BufferId;
        sumColumn: number;
        heads: number;
        totalHeads: number;
        headDim: number;
        weight: WeightId;
        eps: number;
      }
    | {
        op: "vision_attention";
        qkv: BufferId;
        out: BufferId;
        heads: number;
        headDim: number;
        scale: number;
      }
    | {
        /** y ← y + bias, then h ← h + y, or fma(scale, y, h). */
        op: "residual";
        h: BufferId;
        y: BufferId;
        bias?: WeightId;
        scale?: WeightId;
      }
    | {
        /** [tile, 1 + grid², width] → [tile, (grid / 2)², 4 · width], class token dropped. */
        op: "pixel_shuffle";
        x: BufferId;
        out: BufferId;
        grid: number;
        order: "v1" | "v2";
      }
    /** `share`: the other ranks are sent them; else every rank has them. */
    | { op: "store_embeddings"; x: BufferId; share: boolean }
    | { op: "embed_tokens"; out: BufferId; table: WeightId; firstId: number }
    | { op: "splice_images"; h: BufferId }
    | {
        /** Rotate-half on q and k inside a qkv buffer [q heads | k heads | v heads]. */
        op: "rope";
        qkv: BufferId;
        heads: number;
        kvHeads: number;
        headDim: number;
        theta: number;
      }
    | {
        op: "write_cache";
        qkv: BufferId;
        layer: number;
        heads: number;
        kvHeads: number;
        headDim: number;
      }
    | {
        op: "attention";
        qkv: BufferId;
        out: BufferId;
        layer: number;
        heads: number;
        kvHeads: number;
        headDim: number;
        scale: number;
      }
    /** Of a stream's [k heads | v heads], into the cross cache. */
    | {
        op: "write_cross_cache";
        x: BufferId;
        layer: number;
        kvHeads: number;
        headDim: number;
      }
    /** Rows attend to the ranges of images' streams that they see; `layer` counts those with cross-attention. */
    | {
        op: "cross_attention";
        x: BufferId;
        out: BufferId;
        layer: number;
        heads: number;
        kvHeads: number;
        headDim: number;
        scale: number;
      }
    /** RMS norm of each head, in place on columns [column, column + heads × headDim). */
    | {
        op: "norm_each_head";
        x: BufferId;
        column: number;
        heads: number;
        headDim: number;
        weight: WeightId;
        eps: number;
      }
    /** Rows that see an image: y ← y + bias, then h ← fma(tanh(gate), y, h), or h + y. */
    | { op: "gated_residual"; h: BufferId; y: BufferId; bias?: WeightId; gate?: WeightId }
    /** out[r] = silu(x[r, 0 … width)) · x[r, width … 2 · width). */
    | { op: "silu_mul"; x: BufferId; out: BufferId }
    | { op: "gather_rows"; x: BufferId; out: BufferId }
    | { op: "head"; logits: BufferId; lanes: VocabularyLane[] }
  );

/** Entered by every rank in the same order; `buffer` holds this rank's partial and afterwards the sum. */
export interface Collective {
  op: "all_reduce_add";
  onSight?: true;
  buffer: BufferId;
}

export interface Segment {
  ops: Op[];
  collective: Collective | null;
}

export interface Program {
  buffers: BufferSpec[];
  weights: WeightSpec[];
  segments: Segment[];
}

export const EMPTY_PROGRAM: Program = { buffers: [], weights: [], segments: [] };

/** What native code allocates besides buffers and weights. */
export interface CacheShape {
  layers: number;
  /** Of this rank. */
  kvHeads: number;
  headDim: number;
}

/** One rank's part of a model. */
export interface RankProgram {
  rank: number;
  size: number;
  encode: Program;
  step: Program;
  /** Images' streams → keys and values of every cross-attention; its weights are those of `step`. Empty in D. */
  stream: Program;
  cache: CacheShape;
  /** Of cross-attention; no layers in D. */
  crossCache: CacheShape;
  /** Image embeddings of one tile. */
  embedding: { rows: number; width: number };
  tile: { size: number };
  vocabulary: number;
}

/** Who holds the vision encoder: every rank whole, every rank its lanes, or ranks of their own. */
export type VisionPlacement = "replicate" | "tensor" | "workers";

/** How an image stands in the text and in cross-attention (docs/architecture.md); what the variants differ in. */
export interface ImageLayout {
  /** Tiles whose tags stand in the text; an image of one tile has the thumbnail's. */
  tags: "all" | "thumbnail";
  /** Whether the rows of those tiles stand behind their tags. */
  rowsInText: boolean;
  stream?: {
    /** Tiles in it, in order; `regular`: all but the thumbnail. */
    tiles: "all" | "regular";
    /** Each tile's rows behind the embeddings of its tag's ids. */
    tagged: boolean;
    /** The tokens of a tag in the text see their own tile only. */
    ownTileAtTags: boolean;
  };
}
