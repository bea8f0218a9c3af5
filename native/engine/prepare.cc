// A plan is checked whole before anything is changed, then laid out as rows of a batch.
#include <set>

#include "core/check.h"
#include "engine/run.h"

namespace tessera {

void Engine::check_step(const StepPlan& plan) const {
  CHECK_ARGUMENT(plan.step_id == last_step_ + 1, "step_id: ", plan.step_id, ", must be ",
                 last_step_ + 1);
  std::set<uint64_t> opened, seen;
  for (const SequenceOpen& open : plan.opened) {
    opened.insert(open.sequence_id);
    CHECK_ARGUMENT(open.prompt_length >= 0 && open.prompt_length <= placement_.max_model_len,
                   "opened.prompt_length: ", open.prompt_length, ", limit ",
                   placement_.max_model_len);
  }
  CHECK_ARGUMENT(
      sequences_.size() + opened.size() <=
          static_cast<size_t>(placement_.max_sequences) + plan.closed_sequence_ids.size(),
      "opened: ", sequences_.size() + opened.size(), " sequences, limit ",
      placement_.max_sequences);
  size_t tokens = 0, wanted = 0;
  for (const Slice& slice : plan.slices) {
    CHECK_ARGUMENT(seen.insert(slice.sequence_id).second, "slices: sequence ", slice.sequence_id,
                   " twice");
    check_slice(slice, opened);
    tokens += slice.token_ids.size();
    wanted += slice.wanted.size();
  }
  CHECK_ARGUMENT(tokens <= static_cast<size_t>(placement_.max_batched_tokens), "slices: ", tokens,
                 " tokens, limit ", placement_.max_batched_tokens);
  CHECK_ARGUMENT(wanted <= static_cast<size_t>(placement_.max_wanted_rows), "wanted: ", wanted,
                 " rows, limit ", placement_.max_wanted_rows);
}

void Engine::check_slice(const Slice& slice, const std::set<uint64_t>& opened) const {
  const auto known = sequences_.find(slice.sequence_id);
  const bool fresh = opened.contains(slice.sequence_id);
  CHECK_ARGUMENT(fresh || known != sequences_.end(), "slices: sequence ", slice.sequence_id,
                 " is not open");
  const int count = static_cast<int>(slice.token_ids.size());
  CHECK_ARGUMENT(slice.start_position >= 0 && count > 0 && count <= placement_.max_model_len &&
                     slice.start_position <= placement_.max_model_len - count,
                 "slice of ", slice.sequence_id, ": positions ", slice.start_position, " + ", count,
                 ", limit ", placement_.max_model_len);
  for (const int id : slice.token_ids)
    CHECK_ARGUMENT(id >= 0 && id < spec_.vocabulary, "token_ids: ", id, ", vocabulary ",
                   spec_.vocabulary);
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
  for (const ImageRows& rows : slice.image_rows)
    CHECK_ARGUMENT(rows.row >= 0 && rows.count > 0 && rows.count <= count &&
                       rows.row <= count - rows.count && rows.first_row >= 0 &&
                       rows.count <= spec_.embedding_rows &&
                       rows.first_row <= spec_.embedding_rows - rows.count,
                   "image_rows: rows ", rows.row, " + ", rows.count, " of ", count, ", from ",
                   rows.first_row, " of ", spec_.embedding_rows);
  for (const WantedRow& row : slice.wanted)
    CHECK_ARGUMENT(row.row >= 0 && row.row < count && row.candidates >= 0 && row.top_logprobs >= 0,
                   "wanted.row: ", row.row, " of ", count);
}

Engine::Run Engine::prepare(const StepPlan& plan) {
  Run run;
  run.memory = &step_memory_;
  run.program = &spec_.step;
  run.epoch = plan.epoch;
  run.step = plan.step_id;
  run.capture = &plan.capture;
  const int limit = plan.deadline_ms > 0 ? plan.deadline_ms : placement_.collective_deadline_ms;
  run.deadline = Clock::now() + std::chrono::milliseconds(limit);
  for (const Slice& slice : plan.slices) {
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
    for (const ImageRows& rows : slice.image_rows) run.images.emplace_back(first + rows.row, rows);
    for (const WantedRow& row : slice.wanted) {
      run.wanted_rows.push_back(first + row.row);
      run.wanted.emplace_back(&slice, &row);
    }
  }
  run.tokens = static_cast<int>(run.ids.size());
  return run;
}

}  // namespace tessera
