/** What one image costs as each variant of the same decoder and vision encoder. */
import { imageLayout, rankProgram } from "./architectures/index.js";
import { MODEL_TYPES, type ModelConfig, type ModelType } from "./config.js";
import { cacheRowBytes, exchangeBytes, weightBytes, type KvType } from "./estimate.js";
import { programFlops } from "./flops.js";
import { placeImage, type ImageText } from "./image-block.js";
import type { Program, WeightType } from "./program.js";
import { siblingConfig } from "./sibling.js";

export interface CompareOptions {
  /** Tensor-parallel size, for the exchange. */
  size: number;
  kvType: KvType;
  /** Of the decoder's linears; absent: bf16. */
  weightType?: WeightType;
  /** Tokens of a step at most, for the exchange. */
  maxBatchedTokens: number;
  /** Of the image. */
  text: ImageText;
}

/** Of one image, over all ranks. The prefill is that of the image's own tokens, from position 0, without logits. */
export interface VariantCost {
  modelType: ModelType;
  /** Layers of the decoder with a cross-attention. */
  crossLayers: number[];
  /** From `<Image>` to `</Image>` and its newline. */
  decoderTokens: number;
  /** Rows that cross-attention reads. */
  streamRows: number;
  /** Keys and values of the decoder's tokens. */
  cacheBytes: number;
  /** Keys and values of the stream's rows. */
  crossCacheBytes: number;
  /** Embeddings of the tiles to every other rank, and the prefill's partial sums; f32, every rank encodes. */
  exchangeBytes: number;
  /** Tiles → embeddings, projector counted. */
  encodeFlops: number;
  /** The tokens through the decoder, and the stream's keys and values. */
  prefillFlops: number;
  /** Of the whole model in memory, once. */
  weightBytes: number;
}

/** What is left when no row sees an image. */
function withoutSight(program: Program): Program {
  const segments = program.segments.map(({ ops, collective }) => ({
    ops: ops.filter(({ onSight }) => onSight !== true),
    collective: collective?.onSight === true ? null : collective,
  }));
  return { ...program, segments };
}

/** Of `tokens` in full steps and a rest. */
function stepBytes(step: Program, tokens: number, { size, maxBatchedTokens }: CompareOptions) {
  const bytes = (rows: number) => exchangeBytes(step, { size, rows, wireType: "f32" });
  const rest = tokens % maxBatchedTokens;
  return Math.floor(tokens / maxBatchedTokens) * bytes(maxBatchedTokens) + bytes(rest);
}

function variantCost(config: ModelConfig, options: CompareOptions): VariantCost {
  const { size, kvType, text } = options;
  const { weightType: weights = "bf16" } = options;
  const whole = rankProgram(config, { rank: 0, size: 1, weights });
  const block = placeImage(imageLayout(config), text, config.tile.rows);
  const { tokens: token, streamRows: stream, sights } = block;
  const tile = text.tagIds.length;
  const seen = ({ step }: { step: Program }) => (stream > 0 ? step : withoutSight(step));
  const cut = rankProgram(config, { rank: 0, size });
  const { rows, width } = whole.embedding;
  const none = { token: 0, wanted: 0, tile: 0, stream: 0, sights: 0 };
  return {
    modelType: config.modelType,
    crossLayers: config.cross?.layers ?? [],
    decoderTokens: token,
    streamRows: stream,
    cacheBytes: token * cacheRowBytes(whole.cache, kvType),
    crossCacheBytes: stream * cacheRowBytes(whole.crossCache, kvType),
    exchangeBytes:
      (size - 1) * tile * rows * width * 4 +
      stepBytes(seen(cut), token, options) +
      exchangeBytes(cut.stream, { size, rows: stream, wireType: "f32" }),
    encodeFlops: programFlops(whole.encode, { ...none, tile }),
    prefillFlops:
      programFlops(seen(whole), { ...none, token, sights }) +
      programFlops(whole.stream, { ...none, stream }),
    weightBytes: weightBytes(whole.encode.weights) + weightBytes(whole.step.weights),
  };
}

/** D, X and H of `config`'s decoder and vision encoder (`siblingConfig`). @throws ModelError as `rankProgram` */
export function compareVariants(config: ModelConfig, options: CompareOptions): VariantCost[] {
  return MODEL_TYPES.map((type) => variantCost(siblingConfig(config, type), options));
}
