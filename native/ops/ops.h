// The op catalogue. One name everywhere: model's program, this file, ops/<op>.cc, test, profile
// range.
//
// Every op is defined by the order of its sums, written here; scalar, AVX2 and AVX-512 versions
// give the same bits, at any number of threads and rows. Notation: fma(a, b, c) is one rounding;
// "tree" is (0+1)+(2+3) …; a "sum16" adds element i to sum i mod 16 in rising i, then folds
// 8+4+2+1: s[j] += s[j + 8], then 4, 2, 1. Pointers are row-major f32 unless said otherwise.
// Strides are in elements. No op allocates after load except from the Context's scratch. Every op
// runs on the Context's threads and its kind of kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/context.h"

namespace tessera {

inline constexpr int kPanelOutputs = 64;
inline constexpr int kBlockTokens = 32;
inline constexpr int kAttentionChunk = 256;
inline constexpr int kMaxLanes = 8;

// One lane of a linear: bf16 weights [ceil(outputs / 64)][inputs][64], outputs beyond the last are
// zero.
struct Panels {
  const uint16_t* data = nullptr;
  int outputs = 0;
  int inputs = 0;
};
// Bytes a lane takes in panels.
size_t panel_bytes(int outputs, int inputs);
// Packs rows [first, first + count) of a lane; `rows` are bf16 [count][inputs]. first is a multiple
// of 64.
void pack_panels(uint16_t* panels, const uint16_t* rows, int first, int count, int inputs);

enum class Epilogue { kNone, kGelu };

// y[r][o] = epilogue(tree over lanes(Σ_k x[r][start + k] · w[o][k]) + bias[o]); in a lane f32 fma
// in rising k from 0.
struct LinearArgs {
  float* y;        // [rows, outputs], stride y_stride
  const float* x;  // [rows, inputs of all lanes], stride x_stride (may be a part of wider rows)
  size_t y_stride, x_stride;
  int rows;
  std::span<const Panels> lanes;     // a power of two, 1…8
  std::span<const int> lane_starts;  // column of x where each lane begins
  const float* bias;                 // [outputs] or null
  Epilogue epilogue;
};
void linear(const Context& context, const LinearArgs& args);

// y = (x · rsqrt(sum16(x²) / dim + eps)) · weight; x² enters by fma; rsqrt(v) = 1 / sqrt(v). y may
// alias x.
void rms_norm(const Context& context, float* y, const float* x, const float* weight, int rows,
              int dim, float eps);

// mean = sum16(x) / dim; d = x − mean; y = fma((d · rsqrt(sum16(d²) / dim + eps)), weight, bias).
void layer_norm(const Context& context, float* y, const float* x, const float* weight,
                const float* bias, int rows, int dim, float eps);

// RMS norm over `groups` heads at once, in place: per head sum16 of squares, heads of a group added
// in rising order from 0, the 8 groups in the tree; mean over heads · head_dim. Heads of group g:
// [starts[g], starts[g + 1]).
struct RmsNormHeadsArgs {
  float* x;  // first column of head 0, [rows, heads · head_dim], stride
  size_t stride;
  int rows, head_dim;
  std::span<const int> group_starts;  // 9 values
  const float* weight;                // [heads · head_dim]
  float eps;
};
void rms_norm_heads(const Context& context, const RmsNormHeadsArgs& args);

// The two halves of rms_norm_heads where its groups lie on several ranks. Sums: per head sum16 of
// squares, heads of a group added in rising order from 0, the rank's groups (a power of two) in the
// tree; sums[r] is written. Ranks are added by the all-reduce, which has the rest of the tree.
struct SumSquaresHeadsArgs {
  const float* x;  // first column of head 0, [rows, heads · head_dim], stride
  size_t stride;
  int rows, head_dim;
  std::span<const int> group_starts;  // of the rank's groups, then its heads; from 0
  float* sums;                        // [rows], stride sums_stride
  size_t sums_stride;
};
void sum_squares_heads(const Context& context, const SumSquaresHeadsArgs& args);
// x = (x · rsqrt(sums[r] / (total_heads · head_dim) + eps)) · weight, in place on `heads` heads.
struct ScaleHeadsArgs {
  float* x;  // first column of head 0, [rows, heads · head_dim], stride
  size_t stride;
  int rows, heads, total_heads, head_dim;
  const float* sums;  // [rows], stride sums_stride
  size_t sums_stride;
  const float* weight;  // [heads · head_dim]
  float eps;
};
void scale_heads(const Context& context, const ScaleHeadsArgs& args);

// Rotate-half table: row p is cos [head_dim / 2] then sin [head_dim / 2] of float(position) ·
// inv_freq, inv_freq f32.
void rope_table(float* table, int positions, int head_dim, double theta);
// In place on `heads` heads: a' = a·cos − b·sin, b' = b·cos + a·sin, each product and sum rounded.
struct RopeArgs {
  float* x;  // [rows, heads · head_dim], stride
  size_t stride;
  int rows, heads, head_dim;
  const int32_t* positions;  // [rows]
  const float* table;
};
void rope(const Context& context, const RopeArgs& args);

// A layer's paged cache: blocks of 32 tokens, in a block head by head, of a head keys, then values.
// Keys are [head_dim][32], values [32][head_dim]; elements f32, bf16 (rounded to nearest even) or
// int8. In int8 32 scales in f32 follow the keys and 32 follow the values, one for each token:
// scale = max|x| / 127 over the head_dim values x, integer = x / scale rounded half to even,
// clamped to ±127; with scale 0 all integers are 0; a value that is not finite makes the scale NaN
// and the integers 0. Read as float(integer) · scale, one rounding: attention over int8 is
// attention over these values in f32.
enum class CacheType { kF32, kBf16, kInt8 };
// Of the keys, or the values, of one head in a block; a multiple of 64.
constexpr size_t cache_part_bytes(CacheType type, int head_dim) {
  const size_t row = static_cast<size_t>(head_dim);
  return kBlockTokens * (type == CacheType::kF32    ? row * sizeof(float)
                         : type == CacheType::kBf16 ? row * sizeof(uint16_t)
                                                    : row + sizeof(float));
}
constexpr size_t cache_block_bytes(CacheType type, int kv_heads, int head_dim) {
  return 2 * kv_heads * cache_part_bytes(type, head_dim);
}
struct CacheView {
  void* data;
  CacheType type;
  int kv_heads, head_dim;
};
// Writes k and v of each row into its slot (block · 32 + offset).
struct WriteCacheArgs {
  CacheView cache;
  const float* k;  // [rows, kv_heads · head_dim], stride
  const float* v;
  size_t stride;
  int rows;
  const int64_t* slots;  // [rows]
};
void write_cache(const Context& context, const WriteCacheArgs& args);

// Causal grouped-query attention over the paged cache; row r of a sequence sees positions 0 …
// positions[r]. Chunks of 256 from position 0; score = (fma over rising dimension from 0) · scale;
// in a chunk m = max, e = exp(s − m), l = sum16(e) (i counted in the chunk), o = fma(e, v, o) in
// rising position from 0. Chunks merge in rising order: m' = max(m, mc), a = exp(m − m'), b =
// exp(mc − m'), l' = fma(l, a, lc · b), o' = fma(o, a, oc · b). out = o / l.
struct AttentionRow {
  const int32_t* block_table;  // of its sequence
  int32_t position;            // sees 0 … position
};
struct AttentionArgs {
  float* out;      // [rows, heads · head_dim], stride
  const float* q;  // [rows, heads · head_dim], stride
  size_t out_stride, q_stride;
  CacheView cache;
  int rows, heads, head_dim;
  float scale;
  const AttentionRow* row;  // [rows]
};
void attention(const Context& context, const AttentionArgs& args);

// Grouped-query attention of rows over the streams of images, whose keys and values lie in blocks
// of the same layout. A row sees a range of each of some images: ranges in order, images walked one
// after another, chunks of 256 counted from each image's row 0; a chunk's sums are as in attention,
// over the rows in range only (i counted in the chunk), chunks without such a row are passed over;
// all chunks merge in rising order over all images. A row that sees nothing gets zero.
struct CrossRange {
  const int32_t* block_table;  // of the image's stream
  int32_t first, end;          // rows of the stream; first < end
};
struct CrossAttentionArgs {
  float* out;      // [rows, heads · head_dim], stride
  const float* q;  // [rows, heads · head_dim], stride
  size_t out_stride, q_stride;
  CacheView cache;
  int rows, heads, head_dim;
  float scale;
  std::span<const CrossRange> const* ranges;  // [rows]
};
void cross_attention(const Context& context, const CrossAttentionArgs& args);

// RMS norm of each head of head_dim, in place: x = (x · rsqrt(sum16(x²) / head_dim + eps)) ·
// weight.
struct NormEachHeadArgs {
  float* x;  // first column of head 0, [rows, heads · head_dim], stride
  size_t stride;
  int rows, heads, head_dim;
  const float* weight;  // [head_dim]
  float eps;
};
void norm_each_head(const Context& context, const NormEachHeadArgs& args);

// Rows that see something: y ← y + bias (when given); h ← fma(gate, y, h), or h + y without a gate.
// Other rows of h stay.
struct GatedResidualArgs {
  float* h;           // [rows, dim]
  const float* y;     // [rows, dim]
  const float* bias;  // [dim] or null
  const float* gate;  // one value, or null
  int rows, dim;
  std::span<const CrossRange> const* ranges;  // [rows]
};
void gated_residual(const Context& context, const GatedResidualArgs& args);

// Full attention inside each tile, the same chunks and merges; qkv [tiles · sequence, 3 · heads ·
// head_dim].
struct VisionAttentionArgs {
  float* out;  // [tiles · sequence, heads · head_dim]
  const float* qkv;
  int tiles, sequence, heads, head_dim;
  float scale;
};
void vision_attention(const Context& context, const VisionAttentionArgs& args);

// y ← y + bias (when given); h ← h + y, or fma(scale, y, h) when scale [dim] is given.
void residual(const Context& context, float* h, const float* y, const float* bias,
              const float* scale, int rows, int dim);

// out[r][i] = silu(x[r][i]) · x[r][width + i]; silu(v) = v / (1 + exp(−v)).
void silu_mul(const Context& context, float* out, const float* x, int rows, int width);

// y[i] = 0.5 · x · (1 + erf(x · sqrt(1/2))); in place allowed. linear's epilogue does the same.
void gelu(const Context& context, float* y, const float* x, size_t count);

// Pixels → patch rows [tiles · grid², 3 · patch²], columns (channel, row, column); patches
// row-major. Source is u8 [s, s, 3], normalised by the f32 table of image/normalise, or f32 [3, s,
// s] taken as it is.
struct PatchifyArgs {
  float* out;
  std::span<const uint8_t* const> u8_tiles;  // null entries take f32_tiles
  std::span<const float* const> f32_tiles;
  int tile_size, patch_size;
};
void patchify(const Context& context, const PatchifyArgs& args);

// out[t][0] = class + position[0]; out[t][1 + p] = x[t][p] + position[1 + p]. position bf16 [1 +
// patches, width].
void assemble_patches(const Context& context, float* out, const float* x,
                      const float* class_embedding, const uint16_t* position, int tiles,
                      int patches, int width);

// [tile, 1 + grid², width] → [tile, (grid/2)², 4 · width]; v2: token R · g + C, v1: C · g + R;
// channels (2R,2C), (2R,2C+1), (2R+1,2C), (2R+1,2C+1).
void pixel_shuffle(const Context& context, float* out, const float* x, int tiles, int grid,
                   int width, bool v2);

// Row of the table for ids in [first_id, first_id + rows_in_table), zero for others; −0 becomes +0.
void embed_tokens(const Context& context, float* out, const uint16_t* table, const int32_t* ids,
                  int rows, int width, int first_id, int rows_in_table);

// a[i] = a[i] + b[i]; the all-reduce's tree is built from it.
void add(const Context& context, float* a, const float* b, size_t count);

// bf16, round to nearest even; NaN stays NaN.
void to_bf16(const Context& context, uint16_t* out, const float* x, size_t count);
void from_bf16(const Context& context, float* out, const uint16_t* x, size_t count);

// The head: one row of one lane. `raw` are the logits; `processed` those after bias, penalties and
// masks (−inf: not allowed). scaled = processed / temperature (temperature 0: processed itself,
// noise 0). These run on the calling thread; the engine spreads rows and lanes over the pool.

struct LogSum {
  float max;
  float sum;  // Σ exp(x − max), a sum16 from the lane's first id
};
struct HeadCandidate {
  int32_t token_id;
  float raw, scaled, noise;
};
// Philox4x32-10 noise of an id: key = seed, counter = (id / 4, index, choice, 0), word id mod 4
// (docs/exactness.md, Sampling).
float gumbel(uint64_t seed, uint32_t index, uint32_t choice, uint32_t token_id);

inline constexpr float kNoLogit = -__builtin_inff();  // an id that may not be chosen
// Whether a value is NaN or infinite.
bool head_non_finite(const Context& context, const float* raw, int count);
LogSum head_log_sum(const Context& context, const float* values, int count,
                    float temperature);  // 0: as 1
// argmax of scaled + noise; the lowest id wins; false when nothing is allowed.
struct HeadDraw {
  float temperature;
  uint64_t seed;
  uint32_t index, choice;
};
bool head_best(const Context& context, const float* raw, const float* processed, int first_id,
               int count, const HeadDraw& draw, HeadCandidate* best);
// Best `wanted` by (value, lowest id first), those that are allowed; returns how many.
int head_top(const Context& context, const float* values, int first_id, int count, int wanted,
             int32_t* ids);

}  // namespace tessera
