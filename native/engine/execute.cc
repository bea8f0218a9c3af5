// The executor: ops one after another, a collective at each segment's end.
#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/math.h"
#include "engine/run.h"

namespace tessera {

namespace {

const float* values_or_null(const std::vector<Weight>& weights, int id) {
  return id < 0 ? nullptr : weights[id].f32.data();
}

}  // namespace

void Engine::capture(Run& run, const Op& op) {
  if (op.label.empty() || run.capture == nullptr) return;
  if (std::find(run.capture->begin(), run.capture->end(), op.label) == run.capture->end()) return;
  const int id = op.out >= 0 ? op.out : op.x;
  const size_t count =
      static_cast<size_t>(run.rows(run.program->buffers[id])) * run.program->buffers[id].width;
  const float* data = workspace_.data() + run.memory->offsets[id];
  run.outcome.captured[op.label].assign(data, data + count);
}

void Engine::execute(Run& run, const std::vector<Weight>& weights) {
  if (run.tokens == 0 && run.tiles == 0) return;
  for (const Segment& segment : run.program->segments) {
    for (const Op& op : segment.ops) {
      check_open();
      if (op.on_sight && run.seen.empty()) continue;
      const ProfileMark mark = profile_mark(run);
      execute_op(run, op, weights);
      note_op(run, segment, &op - segment.ops.data(), mark);
      capture(run, op);
    }
    if (segment.all_reduce < 0) continue;
    if (segment.all_reduce_on_sight && run.seen.empty()) continue;
    const BufferSpec& buffer = run.program->buffers[segment.all_reduce];
    float* data = workspace_.data() + run.memory->offsets[segment.all_reduce];
    const FrameKind kind =
        run.encode == nullptr ? FrameKind::kCollective : FrameKind::kEncodeCollective;
    const CallId call{kind, run.epoch, run.step, run.call++};
    const ProfileMark mark = profile_mark(run);
    const Clock::time_point start = Clock::now();
    all_reduce_add(context_, group(), call,
                   {data, static_cast<size_t>(run.rows(buffer)) * buffer.width}, run.deadline,
                   run.times);
    run.times.collective_ns += std::chrono::nanoseconds(Clock::now() - start).count();
    note_op(run, segment, segment.ops.size(), mark);
  }
}

CacheView Engine::cache_view(std::vector<Buffer<uint8_t>>& cache, const Op& op) {
  return {cache[op.layer].data(), placement_.kv_type, op.kv_heads, op.head_dim};
}

void Engine::linear_op(Run& run, const Op& op, const std::vector<Weight>& weights) {
  const BufferSpec& in = run.program->buffers[op.x];
  const BufferSpec& to = run.program->buffers[op.out];
  const Weight& weight = weights[op.weight];
  LinearArgs args{};
  args.y = workspace_.data() + run.memory->offsets[op.out];
  args.x = workspace_.data() + run.memory->offsets[op.x] + op.column;
  args.y_stride = to.width;
  args.x_stride = in.width;
  args.rows = run.rows(in);
  args.lanes = weight.lanes;
  args.lane_starts = weight.lane_starts;
  args.bias = values_or_null(weights, op.bias);
  args.epilogue = op.gelu ? Epilogue::kGelu : Epilogue::kNone;
  args.scratch = integers_.data();
  linear(context_, args);
}

void Engine::execute_op(Run& run, const Op& op, const std::vector<Weight>& weights) {
  const auto data = [&](int id) {
    return id < 0 ? nullptr : workspace_.data() + run.memory->offsets[id];
  };
  const int rows = op.x < 0 ? 0 : run.rows(run.program->buffers[op.x]);
  const int width = op.x < 0 ? 0 : run.program->buffers[op.x].width;
  const auto eps = static_cast<float>(op.eps);
  switch (op.kind) {
    case OpKind::kLinear:
      return linear_op(run, op, weights);
    case OpKind::kRmsNorm:
      return rms_norm(context_, data(op.out), data(op.x), weights[op.weight].f32.data(), rows,
                      width, eps);
    case OpKind::kLayerNorm:
      return layer_norm(context_, data(op.out), data(op.x), weights[op.weight].f32.data(),
                        weights[op.bias].f32.data(), rows, width, eps);
    case OpKind::kResidual:
      return residual(context_, data(op.out), data(op.x), values_or_null(weights, op.bias),
                      values_or_null(weights, op.scale_weight), rows, width);
    case OpKind::kSiluMul:
      return silu_mul(context_, data(op.out), data(op.x), rows, width / 2);
    default:
      if (!vision_op(run, op, weights)) decoder_op(run, op, weights);
  }
}

bool Engine::vision_op(Run& run, const Op& op, const std::vector<Weight>& weights) {
  const auto data = [&](int id) { return workspace_.data() + run.memory->offsets[id]; };
  const auto& buffers = run.program->buffers;
  switch (op.kind) {
    case OpKind::kPatchify: {
      std::vector<const uint8_t*> bytes;
      std::vector<const float*> values;
      for (const TileInput& tile : run.encode->tiles) {
        bytes.push_back(tile.u8.empty() ? nullptr : tile.u8.data());
        values.push_back(tile.f32.empty() ? nullptr : tile.f32.data());
      }
      patchify(context_, {data(op.out), bytes, values, op.tile_size, op.patch_size});
      return true;
    }
    case OpKind::kAssemblePatches:
      assemble_patches(context_, data(op.out), data(op.x), weights[op.weight].f32.data(),
                       weights[op.bias].bf16.data(), run.tiles, buffers[op.x].rows,
                       buffers[op.out].width);
      return true;
    case OpKind::kRmsNormHeads:
      rms_norm_heads(context_, {data(op.x) + op.column, static_cast<size_t>(buffers[op.x].width),
                                run.rows(buffers[op.x]), op.head_dim, op.group_starts,
                                weights[op.weight].f32.data(), static_cast<float>(op.eps)});
      return true;
    case OpKind::kSumSquaresHeads:
      sum_squares_heads(context_,
                        {data(op.x) + op.column, static_cast<size_t>(buffers[op.x].width),
                         run.rows(buffers[op.x]), op.head_dim, op.group_starts,
                         data(op.out) + op.sum_column, static_cast<size_t>(buffers[op.out].width)});
      return true;
    case OpKind::kScaleHeads:
      scale_heads(context_,
                  {data(op.x) + op.column, static_cast<size_t>(buffers[op.x].width),
                   run.rows(buffers[op.x]), op.heads, op.total_heads, op.head_dim,
                   data(op.sums) + op.sum_column, static_cast<size_t>(buffers[op.sums].width),
                   weights[op.weight].f32.data(), static_cast<float>(op.eps)});
      return true;
    case OpKind::kVisionAttention:
      vision_attention(context_, {data(op.out), data(op.x), run.tiles, buffers[op.x].rows, op.heads,
                                  op.head_dim, static_cast<float>(op.scale)});
      return true;
    case OpKind::kPixelShuffle:
      pixel_shuffle(context_, data(op.out), data(op.x), run.tiles, op.grid, buffers[op.x].width,
                    op.v2);
      return true;
    case OpKind::kStoreEmbeddings:
      store_embeddings(run, op);
      return true;
    default:
      return false;
  }
}

void Engine::decoder_op(Run& run, const Op& op, const std::vector<Weight>& weights) {
  const auto data = [&](int id) { return workspace_.data() + run.memory->offsets[id]; };
  const auto& buffers = run.program->buffers;
  const size_t stride = op.x < 0 ? 0 : buffers[op.x].width;
  float* keys = op.x < 0 ? nullptr : data(op.x) + op.heads * op.head_dim;
  switch (op.kind) {
    case OpKind::kEmbedTokens:
      return embed_tokens(context_, data(op.out), weights[op.weight].bf16.data(), run.ids.data(),
                          run.tokens, buffers[op.out].width, op.first_id, weights[op.weight].rows);
    case OpKind::kSpliceImages:
      return splice_images(run, op);
    case OpKind::kRope:
      return rope(context_, {data(op.x), stride, run.tokens, op.heads + op.kv_heads, op.head_dim,
                             run.positions.data(), rope_table_.data()});
    case OpKind::kWriteCache:
      return write_cache(context_, {cache_view(cache_, op), keys, keys + op.kv_heads * op.head_dim,
                                    stride, run.tokens, run.slots.data()});
    case OpKind::kAttention:
      return attention(
          context_, {data(op.out), data(op.x), static_cast<size_t>(buffers[op.out].width), stride,
                     cache_view(cache_, op), run.tokens, op.heads, op.head_dim,
                     static_cast<float>(op.scale), run.attention.data()});
    case OpKind::kGatherRows:
      for (size_t i = 0; i < run.wanted_rows.size(); ++i)
        std::memcpy(data(op.out) + i * stride, data(op.x) + run.wanted_rows[i] * stride,
                    stride * sizeof(float));
      return;
    case OpKind::kHead:
      return head(run, op);
    default:
      return cross_op(run, op, weights);
  }
}

void Engine::cross_op(Run& run, const Op& op, const std::vector<Weight>& weights) {
  float* x = workspace_.data() + run.memory->offsets[op.x];
  const auto& buffers = run.program->buffers;
  const size_t stride = buffers[op.x].width;
  const auto out = [&] { return workspace_.data() + run.memory->offsets[op.out]; };
  switch (op.kind) {
    case OpKind::kWriteCrossCache:
      return write_cache(context_, {cache_view(cross_cache_, op), x, x + op.kv_heads * op.head_dim,
                                    stride, run.tokens, run.slots.data()});
    case OpKind::kCrossAttention:
      return cross_attention(context_,
                             {out(), x, static_cast<size_t>(buffers[op.out].width), stride,
                              cache_view(cross_cache_, op), run.tokens, op.heads, op.head_dim,
                              static_cast<float>(op.scale), run.ranges.data()});
    case OpKind::kNormEachHead:
      return norm_each_head(context_, {x + op.column, stride, run.tokens, op.heads, op.head_dim,
                                       weights[op.weight].f32.data(), static_cast<float>(op.eps)});
    case OpKind::kGatedResidual: {
      const float gate = op.weight < 0 ? 1.0f : tanh_f32(weights[op.weight].f32[0]);
      return gated_residual(
          context_, {out(), x, values_or_null(weights, op.bias), op.weight < 0 ? nullptr : &gate,
                     run.tokens, static_cast<int>(stride), run.ranges.data()});
    }
    default:
      throw Error("INTERNAL", "op " + op.name + " has no executor");
  }
}

void Engine::store_embeddings(Run& run, const Op& op) {
  const size_t count = static_cast<size_t>(spec_.embedding_rows) * spec_.embedding_width;
  const float* data = workspace_.data() + run.memory->offsets[op.x];
  CHECK_ARGUMENT(embeddings_.size() + run.tiles <= static_cast<size_t>(placement_.max_embeddings),
                 "embeddings: ", embeddings_.size() + run.tiles, " tiles, limit ",
                 placement_.max_embeddings);
  const bool decodes = spec_.rank < spec_.size;
  const Group to = group();
  for (int t = 0; t < run.tiles; ++t) {
    const uint64_t id = run.encode->tiles[t].embedding_id;
    const float* tile = data + t * count;
    if (decodes && !mailbox_.was_forgotten(id)) embeddings_[id].assign(tile, tile + count);
    if (!op.share || to.peers.empty()) continue;
    const FrameKey key{FrameKind::kEmbedding, run.epoch, run.step, id};
    send_tensor(to, to.peers, key, reinterpret_cast<const uint8_t*>(tile), count * sizeof(float),
                run.deadline, run.times);
  }
  embedding_count_ = embeddings_.size();
}

const std::vector<float>& Engine::embedding(const ImageRows& rows, Clock::time_point deadline) {
  const size_t count = static_cast<size_t>(spec_.embedding_rows) * spec_.embedding_width;
  while (true) {
    const auto held = embeddings_.find(rows.embedding_id);
    if (held != embeddings_.end()) return held->second;
    const uint64_t seen = mailbox_.arrivals();
    std::vector<uint8_t> bytes;
    if (mailbox_.take_embedding(rows.embedding_id, &bytes)) {
      CHECK_ARGUMENT(bytes.size() == count * sizeof(float), "rank ", rows.encoder_rank, " sent ",
                     bytes.size(), " bytes for an embedding of ", count, " values");
      std::vector<float>& values = embeddings_[rows.embedding_id];
      values.resize(count);
      std::memcpy(values.data(), bytes.data(), bytes.size());
      mailbox_.recycle(std::move(bytes));
      embedding_count_ = embeddings_.size();
      return values;
    }
    if (!mailbox_.wait_arrival(seen, deadline))
      throw Error("PEER_TIMEOUT",
                  "rank " + std::to_string(rows.encoder_rank) + " did not send embedding " +
                      std::to_string(rows.embedding_id) + " in time",
                  rows.encoder_rank);
  }
}

void Engine::splice_images(Run& run, const Op& op) {
  const size_t width = spec_.embedding_width;
  float* h = workspace_.data() + run.memory->offsets[op.x];
  for (const auto& [first, rows] : run.images) {
    const Clock::time_point start = Clock::now();
    const std::vector<float>& values = embedding(*rows, run.deadline);
    run.times.wait_ns += std::chrono::nanoseconds(Clock::now() - start).count();
    std::memcpy(h + first * width, values.data() + rows->first_row * width,
                rows->count * width * sizeof(float));
  }
}

}  // namespace tessera
