// Results of the wanted rows, lane by lane; lanes are merged by the coordinator only.
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

}  // namespace

std::vector<HeadCandidate> lane_candidates(const Context& context, const VocabularyLane& lane,
                                           const float* raw, const float* processed,
                                           const HeadDraw& draw, int count) {
  const float* own = processed + lane.column;
  std::vector<int32_t> ids(std::min(count, lane.count));
  ids.resize(
      head_top(context, own, lane.first_id, lane.count, static_cast<int>(ids.size()), ids.data()));
  std::vector<HeadCandidate> out;
  for (const int32_t id : ids) {
    const int at = id - lane.first_id;
    const float noise =
        draw.temperature == 0.0f ? 0.0f : gumbel(draw.seed, draw.index, draw.choice, id);
    out.push_back({id, raw[lane.column + at], scaled_of(own[at], draw.temperature), noise});
  }
  return out;
}

void Engine::head(Run& run, const Op& op) {
  const size_t columns = run.program->buffers[op.x].width;
  const float* logits = workspace_.data() + run.memory->offsets[op.x];
  std::vector<float> processed(columns);
  for (size_t w = 0; w < run.wanted.size(); ++w) {
    const auto& [slice, wanted] = run.wanted[w];
    const Sequence& sequence = sequences_.at(slice->sequence_id);
    const int length = slice->start_position + wanted->row + 1;
    const SamplingSpec& sampling = sequence.sampling;
    const HeadDraw draw{sampling.temperature, sampling.seed,
                        static_cast<uint32_t>(length - sequence.prompt_length), sampling.choice};
    RowResult result{slice->sequence_id, wanted->row, {}};
    const float* row = logits + w * columns;
    for (const VocabularyLane& lane : op.lanes) {
      const float* raw = row + lane.column;
      float* own = processed.data() + lane.column;
      process_logits(
          own, raw,
          {&sequence, length, wanted, lane.first_id, lane.count, placement_.selectable_ids});
      LaneResult out;
      out.lane = lane.lane;
      out.non_finite = head_non_finite(raw, lane.count);
      out.has_best = head_best(context_, raw, own, lane.first_id, lane.count, draw, &out.best);
      if (wanted->top_logprobs > 0) out.top = best_raw(context_, lane, raw, wanted->top_logprobs);
      for (const int id : wanted->scored_token_ids)
        if (id >= lane.first_id && id < lane.first_id + lane.count)
          out.scored.push_back({id, raw[id - lane.first_id]});
      out.has_raw = wanted->logprob;
      if (out.has_raw) out.raw = head_log_sum(context_, raw, lane.count, 0);
      out.has_scaled = wanted->candidates > 0;
      if (out.has_scaled) {
        out.scaled = head_log_sum(context_, own, lane.count, draw.temperature);
        out.candidates =
            lane_candidates(context_, lane, row, processed.data(), draw, wanted->candidates);
      }
      result.lanes.push_back(std::move(out));
    }
    run.outcome.rows.push_back(std::move(result));
    if (wanted->candidates > 0)
      kept_.push_back({run.step,
                       slice->sequence_id,
                       wanted->row,
                       draw,
                       op.lanes,
                       {row, row + columns},
                       processed});
  }
}

}  // namespace tessera
