// The program a rank executes, as plain structs; written by model/, checked here.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace tessera {

enum class Per { kToken, kWanted, kTile, kStream };

struct BufferSpec {
  std::string name;
  Per per;
  int rows;
  int width;
};

struct TensorPiece {
  std::string tensor;
  int64_t row_start, row_count, col_start, col_count;
};

enum class WeightKind { kLinear, kVector, kTable };

// For a vector: outputs is its length, inputs 1. For a table: rows and width.
struct WeightSpec {
  WeightKind kind;
  std::string name;
  int outputs, inputs;
  std::vector<TensorPiece> pieces, zeros;
  std::vector<int> lane_starts;  // linear: columns, then inputs
};

struct VocabularyLane {
  int lane, first_id, count, column;
};

enum class OpKind {
  kPatchify,
  kLinear,
  kAssemblePatches,
  kRmsNorm,
  kLayerNorm,
  kRmsNormHeads,
  kSumSquaresHeads,
  kScaleHeads,
  kVisionAttention,
  kResidual,
  kPixelShuffle,
  kStoreEmbeddings,
  kEmbedTokens,
  kSpliceImages,
  kRope,
  kWriteCache,
  kAttention,
  kSiluMul,
  kGatherRows,
  kHead,
  kWriteCrossCache,
  kCrossAttention,
  kNormEachHead,
  kGatedResidual,
};

// One op; fields an op does not have stay at their defaults. x: what is read (residual: y), out:
// what is written (residual: h). assemble_patches: weight is the class embedding, bias the position
// table.
struct Op {
  OpKind kind;
  std::string name, label;
  int x = -1, out = -1;
  int sums = -1;  // scale_heads
  int weight = -1, bias = -1, scale_weight = -1;
  int heads = 0, kv_heads = 0, head_dim = 0, layer = 0, column = 0;
  int tile_size = 0, patch_size = 0, grid = 0, first_id = 0, sum_column = 0, total_heads = 0;
  double eps = 0, scale = 0, theta = 0;
  bool gelu = false, partial = false, v2 = true;
  bool part = false;      // linear: reads columns from `column` on of a wider x
  bool share = false;     // store_embeddings: sent to the ranks
  bool on_sight = false;  // only when a row of the step sees an image
  std::vector<int> group_starts;
  std::vector<VocabularyLane> lanes;
};

struct Segment {
  std::vector<Op> ops;
  int all_reduce = -1;  // the buffer, or none
  bool all_reduce_on_sight = false;
};

struct Program {
  std::vector<BufferSpec> buffers;
  std::vector<WeightSpec> weights;
  std::vector<Segment> segments;
};

struct TensorSource {
  std::string path, dtype;
  uint64_t offset, bytes;
  int64_t rows, cols;
};

struct CacheShape {
  int layers = 0, kv_heads = 0, head_dim = 0;
};

struct EngineSpec {
  Program encode, step;
  Program stream;  // its weights are the step's; no segments without cross-attention
  CacheShape cross;
  std::map<std::string, TensorSource> tensors;
  // A rank from `size` on only encodes tiles.
  int rank, size, threads;
  int layers, kv_heads, head_dim;
  int embedding_rows, embedding_width;
  int tile_size, vocabulary;
};

struct PlacementSpec {
  CacheType kv_type;
  bool wire_bf16;
  int block_count, max_batched_tokens, max_sequences, max_wanted_rows, max_tiles, max_embeddings;
  int max_model_len, max_steps_in_flight, selectable_ids, collective_deadline_ms, spin_us;
  int max_stream_rows, cross_block_count;
  int encoders;  // ranks beyond the group's that only encode tiles
};

// Every index, shape and order: what an op reads was written before it. Buffers are of the kinds in
// `kinds`. Throws INVALID_ARGUMENT naming the op and the field.
void check_program(const Program& program, const EngineSpec& spec, const std::set<Per>& kinds);

// Where each buffer lies in one workspace: buffers whose lives do not meet share memory.
struct MemoryPlan {
  std::vector<size_t> offsets;  // f32 elements
  size_t elements;
};
struct Items {
  int token = 0, wanted = 0, tile = 0, stream = 0;
  int of(Per per) const {
    return per == Per::kToken    ? token
           : per == Per::kWanted ? wanted
           : per == Per::kTile   ? tile
                                 : stream;
  }
};
MemoryPlan plan_memory(const Program& program, const Items& most);

}  // namespace tessera
