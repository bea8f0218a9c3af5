// Results of the wanted rows, lane by lane; lanes are merged by the coordinator only.
#include <algorithm>

#include "engine/run.h"

namespace tessera {

namespace {

float scaled_of(float processed, float temperature) {
  return temperature == 0.0f ? processed : processed / temperature;
}

std::vector<ScoredToken> best_raw(const Context& context, const VocabularyLane& lane,
                                  const float* raw, int count) {
  std::vector<int32_t> ids(count);
  ids.resize(head_top(context, raw, lane.first_id, lane.count, count, ids.data()));
  std::vector<ScoredToken> out;
  for (const int32_t id : ids) out.push_back({id, raw[id - lane.first_id]});
  return out;
}

// Whether the processed logits differ from the raw ones in more than the ids beyond the tokenizer.
bool has_processors(const Sequence& sequence, const Mask* mask, int length) {
  const SamplingSpec& sampling = sequence.sampling;
  return !sampling.logit_bias.empty() || sampling.repetition_penalty != 1.0f ||
         sampling.presence_penalty != 0.0f || sampling.frequency_penalty != 0.0f ||
         !sampling.allowed_token_ids.empty() || !sampling.bad_words.empty() || mask != nullptr ||
         length - sequence.prompt_length < sampling.min_tokens;
}

// One wanted row as the head sees it.
struct HeadRow {
  const Sequence* sequence;
  const WantedRow* wanted;
  const Mask* mask;  // null: none
  int length;        // tokens before the one to be chosen
  HeadDraw draw;
  const float* logits;  // [columns]
  float* processed;     // [columns] of the kept row, or null
  int selectable_ids;
};

// Bias, penalties and masks of a lane: into the kept row, into the thread's scratch, or not at all.
// Returns the processed logits and how many of them count.
std::pair<const float*, int> processed_lane(const HeadRow& row, const VocabularyLane& lane) {
  static thread_local std::vector<float> scratch;
  const float* raw = row.logits + lane.column;
  if (row.processed == nullptr && !has_processors(*row.sequence, row.mask, row.length))
    return {raw, std::clamp(row.selectable_ids - lane.first_id, 0, lane.count)};
  float* to = row.processed == nullptr ? nullptr : row.processed + lane.column;
  if (to == nullptr) {
    scratch.resize(std::max<size_t>(scratch.size(), lane.count));
    to = scratch.data();
  }
  process_logits(
      to, raw, {row.sequence, row.length, row.mask, lane.first_id, lane.count, row.selectable_ids});
  return {to, lane.count};
}

LaneResult lane_result(const Context& context, const HeadRow& row, const VocabularyLane& lane) {
  const float* raw = row.logits + lane.column;
  const WantedRow& wanted = *row.wanted;
  LaneResult out;
  out.lane = lane.lane;
  out.non_finite = head_non_finite(context, raw, lane.count);
  if (out.non_finite) return out;
  const auto [processed, count] = processed_lane(row, lane);
  out.has_best = head_best(context, raw, processed, lane.first_id, count, row.draw, &out.best);
  if (wanted.top_logprobs > 0) out.top = best_raw(context, lane, raw, wanted.top_logprobs);
  for (const int id : wanted.scored_token_ids)
    if (id >= lane.first_id && id < lane.first_id + lane.count)
      out.scored.push_back({id, raw[id - lane.first_id]});
  out.has_raw = wanted.logprob;
  if (out.has_raw) out.raw = head_log_sum(context, raw, lane.count, 0);
  out.has_scaled = wanted.candidates > 0;
  if (!out.has_scaled) return out;
  out.scaled = head_log_sum(context, processed, lane.count, row.draw.temperature);
  out.candidates = lane_candidates(context, lane, raw, processed, row.draw, wanted.candidates);
  return out;
}

}  // namespace

std::vector<HeadCandidate> lane_candidates(const Context& context, const VocabularyLane& lane,
                                           const float* raw, const float* processed,
                                           const HeadDraw& draw, int count) {
  static thread_local std::vector<int32_t> ids;
  ids.resize(std::min(count, lane.count));
  const int kept = head_top(context, processed, lane.first_id, lane.count,
                            static_cast<int>(ids.size()), ids.data());
  std::vector<HeadCandidate> out;
  out.reserve(kept);
  for (int i = 0; i < kept; ++i) {
    const int id = ids[i], at = id - lane.first_id;
    const float noise =
        draw.temperature == 0.0f ? 0.0f : gumbel(draw.seed, draw.index, draw.choice, id);
    out.push_back({id, raw[at], scaled_of(processed[at], draw.temperature), noise});
  }
  return out;
}

// Where a row's logits are kept for more_candidates; null when none are asked for.
Engine::KeptRow* Engine::keep_row(const Run& run, size_t wanted, const Op& op) {
  const auto& [slice, row] = run.wanted[wanted];
  if (row->candidates == 0) return nullptr;
  std::unique_ptr<KeptRow> kept;
  if (spare_rows_.empty()) {
    kept = std::make_unique<KeptRow>();
  } else {
    kept = std::move(spare_rows_.back());
    spare_rows_.pop_back();
  }
  const size_t columns = run.program->buffers[op.x].width;
  const float* logits = workspace_.data() + run.memory->offsets[op.x] + wanted * columns;
  kept->step = run.step;
  kept->sequence_id = slice->sequence_id;
  kept->row = row->row;
  kept->lanes = &op.lanes;
  kept->raw.assign(logits, logits + columns);
  kept->processed.resize(columns);
  kept_.push_back(std::move(kept));
  return kept_.back().get();
}

// Rows and lanes are spread over the pool; each lane's result depends on nothing else.
void Engine::head(Run& run, const Op& op) {
  const size_t columns = run.program->buffers[op.x].width;
  const float* logits = workspace_.data() + run.memory->offsets[op.x];
  std::vector<HeadRow> rows;
  for (size_t w = 0; w < run.wanted.size(); ++w) {
    const auto& [slice, wanted] = run.wanted[w];
    const Sequence& sequence = sequences_.at(slice->sequence_id);
    const int length = slice->start_position + wanted->row + 1;
    const SamplingSpec& sampling = sequence.sampling;
    const HeadDraw draw{sampling.temperature, sampling.seed,
                        static_cast<uint32_t>(length - sequence.prompt_length), sampling.choice};
    KeptRow* kept = keep_row(run, w, op);
    if (kept != nullptr) kept->draw = draw;
    const Mask* mask = wanted->mask == 0 ? nullptr : &run.masks->at(wanted->mask - 1);
    rows.push_back({&sequence, wanted, mask, length, draw, logits + w * columns,
                    kept == nullptr ? nullptr : kept->processed.data(), placement_.selectable_ids});
    run.outcome.rows.push_back(
        {slice->sequence_id, wanted->row, std::vector<LaneResult>(op.lanes.size())});
  }
  const int lanes = static_cast<int>(op.lanes.size());
  pool_->parallel_for(static_cast<int>(rows.size()) * lanes, [&](int task) {
    const int lane = task % lanes;
    run.outcome.rows[task / lanes].lanes[lane] =
        lane_result(context_, rows[task / lanes], op.lanes[lane]);
  });
}

}  // namespace tessera
