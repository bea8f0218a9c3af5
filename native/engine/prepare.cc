// A plan is checked whole before anything is changed, then laid out as rows of a batch.
#include <algorithm>
#include <cmath>
#include <set>

#include "core/check.h"
#include "engine/run.h"

namespace tessera {

void Engine::check_step(const StepPlan& plan) const {
  CHECK_ARGUMENT(plan.step_id == last_step_ + 1, "step_id: ", plan.step_id, ", must be ",
                 last_step_ + 1);
  const auto in_flight = static_cast<uint64_t>(placement_.max_steps_in_flight);
  CHECK_ARGUMENT(
      plan.released_step < plan.step_id && plan.released_step + in_flight >= plan.step_id,
      "released_step: ", plan.released_step, " at step ", plan.step_id, ", must be at most ",
      in_flight, " before it");
  OpenedIds opened, seen;
  for (const SequenceOpen& open : plan.opened) {
    CHECK_ARGUMENT(opened.insert(open.sequence_id).second, "opened: sequence ", open.sequence_id,
                   " twice");
    check_opened(open);
  }
  CHECK_ARGUMENT(
      sequences_.size() + opened.size() <=
          static_cast<size_t>(placement_.max_sequences) + plan.closed_sequence_ids.size(),
      "opened: ", sequences_.size() + opened.size(), " sequences, limit ",
      placement_.max_sequences);
  check_streams(plan);
  for (const auto& [from, to] : plan.copied_blocks)
    CHECK_ARGUMENT(
        from >= 0 && to >= 0 && from < placement_.block_count && to < placement_.block_count,
        "copied_blocks: ", from, " to ", to, ", limit ", placement_.block_count);
  for (const Mask& mask : plan.masks) check_mask(mask);
  size_t tokens = 0, wanted = 0;
  for (const Slice& slice : plan.slices) {
    check_seen(plan, slice);
    CHECK_ARGUMENT(seen.insert(slice.sequence_id).second, "slices: sequence ", slice.sequence_id,
                   " twice");
    check_slice(slice, opened, plan.masks.size());
    tokens += slice.token_ids.size();
    wanted += slice.wanted.size();
  }
  CHECK_ARGUMENT(tokens <= static_cast<size_t>(placement_.max_batched_tokens), "slices: ", tokens,
                 " tokens, limit ", placement_.max_batched_tokens);
  CHECK_ARGUMENT(wanted <= static_cast<size_t>(placement_.max_wanted_rows), "wanted: ", wanted,
                 " rows, limit ", placement_.max_wanted_rows);
}

namespace {

void check_ids(const std::vector<int>& ids, int vocabulary, const char* field) {
  for (const int id : ids)
    CHECK_ARGUMENT(id >= 0 && id < vocabulary, field, ": ", id, ", vocabulary ", vocabulary);
}

void check_sampling(const SamplingSpec& sampling, int vocabulary) {
  CHECK_ARGUMENT(std::isfinite(sampling.temperature) && sampling.temperature >= 0,
                 "sampling.temperature: ", sampling.temperature, ", must be 0 or above");
  CHECK_ARGUMENT(std::isfinite(sampling.repetition_penalty) && sampling.repetition_penalty > 0,
                 "sampling.repetition_penalty: ", sampling.repetition_penalty, ", must be above 0");
  CHECK_ARGUMENT(
      std::isfinite(sampling.presence_penalty) && std::isfinite(sampling.frequency_penalty),
      "sampling: presence_penalty ", sampling.presence_penalty, " and frequency_penalty ",
      sampling.frequency_penalty, " must be finite");
  for (const auto& [id, bias] : sampling.logit_bias)
    CHECK_ARGUMENT(id >= 0 && id < vocabulary && std::isfinite(bias), "sampling.logit_bias: id ",
                   id, ", bias ", bias, ", vocabulary ", vocabulary);
  check_ids(sampling.allowed_token_ids, vocabulary, "sampling.allowed_token_ids");
  check_ids(sampling.suppressed_token_ids, vocabulary, "sampling.suppressed_token_ids");
  for (const auto& word : sampling.bad_words) check_ids(word, vocabulary, "sampling.bad_words");
}

}  // namespace

void Engine::check_opened(const SequenceOpen& open) const {
  const int limit = placement_.max_model_len;
  CHECK_ARGUMENT(open.prompt_length >= 0 && open.prompt_length <= limit,
                 "opened.prompt_length: ", open.prompt_length, ", limit ", limit);
  CHECK_ARGUMENT(open.token_ids.size() <= static_cast<size_t>(limit),
                 "opened.token_ids: ", open.token_ids.size(), ", limit ", limit);
  check_ids(open.token_ids, spec_.vocabulary, "opened.token_ids");
  check_sampling(open.sampling, spec_.vocabulary);
}

void Engine::check_slice(const Slice& slice, const OpenedIds& opened, size_t mask_count) const {
  const auto known = sequences_.find(slice.sequence_id);
  const bool fresh = opened.contains(slice.sequence_id);
  CHECK_ARGUMENT(fresh || known != sequences_.end(), "slices: sequence ", slice.sequence_id,
                 " is not open");
  const int count = static_cast<int>(slice.token_ids.size());
  CHECK_ARGUMENT(slice.start_position >= 0 && count > 0 && count <= placement_.max_model_len &&
                     slice.start_position <= placement_.max_model_len - count,
                 "slice of ", slice.sequence_id, ": positions ", slice.start_position, " + ", count,
                 ", limit ", placement_.max_model_len);
  check_ids(slice.token_ids, spec_.vocabulary, "token_ids");
  const size_t held = fresh ? 0 : known->second.blocks.size();
  CHECK_ARGUMENT(slice.first_block >= 0 && static_cast<size_t>(slice.first_block) <= held,
                 "first_block: ", slice.first_block, ", the table has ", held);
  const size_t table = slice.block_ids.empty() ? held : slice.first_block + slice.block_ids.size();
  CHECK_ARGUMENT(static_cast<size_t>(slice.start_position + count) <= table * kBlockTokens,
                 "slice of ", slice.sequence_id, ": ", table, " blocks for position ",
                 slice.start_position + count - 1);
  for (const int block : slice.block_ids)
    CHECK_ARGUMENT(block >= 0 && block < placement_.block_count, "block_ids: ", block, ", limit ",
                   placement_.block_count);
  for (const ImageRows& rows : slice.image_rows) check_image_rows(count, rows);
  for (const WantedRow& row : slice.wanted) check_wanted(slice, row, mask_count);
}

void Engine::check_image_rows(int count, const ImageRows& rows) const {
  CHECK_ARGUMENT(rows.row >= 0 && rows.count > 0 && rows.count <= count &&
                     rows.row <= count - rows.count && rows.first_row >= 0 &&
                     rows.count <= spec_.embedding_rows &&
                     rows.first_row <= spec_.embedding_rows - rows.count,
                 "image_rows: rows ", rows.row, " + ", rows.count, " of ", count, ", from ",
                 rows.first_row, " of ", spec_.embedding_rows);
  const int ranks = spec_.size + placement_.encoders;
  CHECK_ARGUMENT(rows.encoder_rank >= 0 && rows.encoder_rank < ranks,
                 "image_rows.encoder_rank: ", rows.encoder_rank, ", the group has ", ranks);
  CHECK_ARGUMENT(rows.encoder_rank != spec_.rank || embeddings_.contains(rows.embedding_id),
                 "embedding ", rows.embedding_id, ": was not encoded here");
}

void Engine::check_wanted(const Slice& slice, const WantedRow& row, size_t mask_count) const {
  const int count = static_cast<int>(slice.token_ids.size());
  CHECK_ARGUMENT(row.row >= 0 && row.row < count, "wanted.row: ", row.row, " of ", count);
  CHECK_ARGUMENT(row.candidates >= 0 && row.candidates <= spec_.vocabulary &&
                     row.top_logprobs >= 0 && row.top_logprobs <= spec_.vocabulary,
                 "wanted: ", row.candidates, " candidates, ", row.top_logprobs,
                 " top_logprobs, vocabulary ", spec_.vocabulary);
  check_ids(row.scored_token_ids, spec_.vocabulary, "wanted.scored_token_ids");
  CHECK_ARGUMENT(row.mask >= 0 && static_cast<size_t>(row.mask) <= mask_count,
                 "wanted.mask: ", row.mask, ", the plan has ", mask_count);
}

void Engine::check_mask(const Mask& mask) const {
  int end = 0;
  for (const MaskRun& run : mask) {
    CHECK_ARGUMENT(run.start >= end && run.count > 0 && run.count <= spec_.vocabulary - run.start,
                   "masks: run of ", run.count, " from ", run.start, ", must follow ", end,
                   " and end by ", spec_.vocabulary);
    end = run.start + run.count;
  }
}

void Engine::check_streams(const StepPlan& plan) const {
  size_t rows = 0;
  OpenedIds opened;
  for (const StreamOpen& open : plan.opened_streams) {
    const bool closed = std::find(plan.closed_stream_ids.begin(), plan.closed_stream_ids.end(),
                                  open.stream_id) != plan.closed_stream_ids.end();
    CHECK_ARGUMENT(
        opened.insert(open.stream_id).second && (closed || !streams_.contains(open.stream_id)),
        "opened_streams: stream ", open.stream_id, " twice");
    const size_t blocks = (open.token_ids.size() + kBlockTokens - 1) / kBlockTokens;
    CHECK_ARGUMENT(!open.token_ids.empty() && open.block_ids.size() == blocks,
                   "opened_streams: ", open.block_ids.size(), " blocks for ", open.token_ids.size(),
                   " rows");
    for (const int block : open.block_ids)
      CHECK_ARGUMENT(block >= 0 && block < placement_.cross_block_count,
                     "opened_streams.block_ids: ", block, ", limit ", placement_.cross_block_count);
    for (const int id : open.token_ids)
      CHECK_ARGUMENT(id >= -1 && id < spec_.vocabulary, "opened_streams.token_ids: ", id,
                     ", vocabulary ", spec_.vocabulary);
    for (const ImageRows& image : open.image_rows)
      check_image_rows(static_cast<int>(open.token_ids.size()), image);
    rows += open.token_ids.size();
  }
  CHECK_ARGUMENT(rows <= static_cast<size_t>(placement_.max_stream_rows), "opened_streams: ", rows,
                 " rows, limit ", placement_.max_stream_rows);
}

// Rows of a stream that the step's slices may see; 0 when there is none.
int Engine::known_rows(const StepPlan& plan, uint64_t stream_id) const {
  for (const StreamOpen& open : plan.opened_streams)
    if (open.stream_id == stream_id) return static_cast<int>(open.token_ids.size());
  for (const uint64_t id : plan.closed_stream_ids)
    if (id == stream_id) return 0;
  const auto held = streams_.find(stream_id);
  return held == streams_.end() ? 0 : held->second.rows;
}

void Engine::check_seen(const StepPlan& plan, const Slice& slice) const {
  int end = 0;
  for (const SeenRows& seen : slice.seen) {
    const int count = static_cast<int>(slice.token_ids.size());
    CHECK_ARGUMENT(seen.row >= end && seen.count > 0 && seen.row <= count - seen.count,
                   "seen: rows ", seen.row, " + ", seen.count, " of ", count, ", must follow ",
                   end);
    end = seen.row + seen.count;
    for (const SeenRange& range : seen.ranges) {
      const int rows = known_rows(plan, range.stream_id);
      CHECK_ARGUMENT(range.first >= 0 && range.first < range.end && range.end <= rows,
                     "seen: rows ", range.first, " to ", range.end, " of stream ", range.stream_id,
                     ", which has ", rows);
    }
  }
}

// All streams that the step opens, as rows one after another.
void Engine::prepare_streams(Run& run, const StepPlan& plan) {
  run.begin(spec_.stream, stream_memory_, plan.epoch, plan.step_id);
  run.capture = &plan.capture;
  run.masks = &plan.masks;
  const int limit = plan.deadline_ms > 0 ? plan.deadline_ms : placement_.collective_deadline_ms;
  run.deadline = Clock::now() + std::chrono::milliseconds(limit);
  for (const StreamOpen& open : plan.opened_streams) {
    const int first = static_cast<int>(run.ids.size());
    for (size_t i = 0; i < open.token_ids.size(); ++i) {
      const int64_t block = open.block_ids[i / kBlockTokens];
      run.ids.push_back(open.token_ids[i]);
      run.slots.push_back(block * kBlockTokens + static_cast<int64_t>(i % kBlockTokens));
    }
    for (const ImageRows& rows : open.image_rows) run.images.emplace_back(first + rows.row, &rows);
  }
  run.tokens = static_cast<int>(run.ids.size());
}

// What each row of a slice sees; rows that are not named see nothing.
void Engine::place_seen(Run& run, const Slice& slice) {
  const size_t before = run.seen_rows.size();
  run.seen_rows.resize(before + slice.token_ids.size(), {0, 0});
  for (const SeenRows& seen : slice.seen) {
    const std::pair<size_t, size_t> place{run.seen.size(), seen.ranges.size()};
    for (const SeenRange& range : seen.ranges)
      run.seen.push_back({streams_.at(range.stream_id).blocks.data(), range.first, range.end});
    for (int i = 0; i < seen.count; ++i) run.seen_rows[before + seen.row + i] = place;
  }
}

void Engine::place_rows(Run& run, const Slice& slice) {
  const Sequence& sequence = sequences_.at(slice.sequence_id);
  const int first = static_cast<int>(run.ids.size());
  for (size_t i = 0; i < slice.token_ids.size(); ++i) {
    const int position = slice.start_position + static_cast<int>(i);
    const int64_t block = sequence.blocks[position / kBlockTokens];
    run.ids.push_back(slice.token_ids[i]);
    run.positions.push_back(position);
    run.slots.push_back(block * kBlockTokens + position % kBlockTokens);
    run.attention.push_back({sequence.blocks.data(), position});
  }
  for (const ImageRows& rows : slice.image_rows) run.images.emplace_back(first + rows.row, &rows);
  for (const WantedRow& row : slice.wanted) {
    run.wanted_rows.push_back(first + row.row);
    run.wanted.emplace_back(&slice, &row);
  }
}

void Engine::prepare(Run& run, const StepPlan& plan) {
  run.begin(spec_.step, step_memory_, plan.epoch, plan.step_id);
  run.capture = &plan.capture;
  run.masks = &plan.masks;
  const int limit = plan.deadline_ms > 0 ? plan.deadline_ms : placement_.collective_deadline_ms;
  run.deadline = Clock::now() + std::chrono::milliseconds(limit);
  for (const Slice& slice : plan.slices) {
    place_rows(run, slice);
    place_seen(run, slice);
  }
  for (const auto& [first, count] : run.seen_rows)
    run.ranges.push_back(std::span<const CrossRange>(run.seen).subspan(first, count));
  run.tokens = static_cast<int>(run.ids.size());
}

}  // namespace tessera
