#include "binding/convert.h"
#include "core/check.h"

namespace tessera {

namespace {

SamplingSpec read_sampling(const Fields& from) {
  SamplingSpec out;
  out.temperature = static_cast<float>(from.number("temperature"));
  out.seed = from.u64("seed");
  out.choice = static_cast<uint32_t>(from.integer("choice"));
  out.repetition_penalty = static_cast<float>(from.number("repetitionPenalty"));
  out.presence_penalty = static_cast<float>(from.number("presencePenalty"));
  out.frequency_penalty = static_cast<float>(from.number("frequencyPenalty"));
  from.each("logitBias", [&](const Fields& bias) {
    out.logit_bias.emplace_back(bias.integer("tokenId"), static_cast<float>(bias.number("bias")));
  });
  out.allowed_token_ids = from.integers("allowedTokenIds");
  const Napi::Array words = from.at("badWords").As<Napi::Array>();
  for (uint32_t i = 0; i < words.Length(); ++i) {
    const Napi::Array word = words.Get(i).As<Napi::Array>();
    std::vector<int> ids;
    for (uint32_t k = 0; k < word.Length(); ++k)
      ids.push_back(word.Get(k).As<Napi::Number>().Int32Value());
    if (!ids.empty()) out.bad_words.push_back(std::move(ids));
  }
  out.min_tokens = from.integer("minTokens");
  out.suppressed_token_ids = from.integers("suppressedTokenIds");
  return out;
}

// Of 16 million ids.
constexpr size_t kMaxMaskBytes = size_t{2} << 20;

WantedRow read_wanted(const Fields& from) {
  WantedRow out{from.integer("row"), from.integer("candidates"), from.integer("topLogprobs"),
                from.boolean("logprob"), from.integers("scoredTokenIds")};
  if (from.has("mask")) out.mask = from.integer("mask");
  return out;
}

Mask read_mask(const Fields& from) {
  const Mask runs = from.list<MaskRun>("runs", [](const Fields& run) {
    return MaskRun{run.integer("start"), run.integer("count")};
  });
  const Napi::Value bits = from.at("bits");
  CHECK_ARGUMENT(bits.IsTypedArray(), from.path(), ".bits: must be bytes");
  const auto bytes = bits.As<Napi::Uint8Array>();
  if (bytes.ByteLength() == 0) return runs;
  CHECK_ARGUMENT(runs.empty() && bytes.ByteLength() <= kMaxMaskBytes, from.path(),
                 ".bits: ", bytes.ByteLength(), " bytes beside ", runs.size(), " runs, limit ",
                 kMaxMaskBytes, " bytes and no runs");
  return runs_of_bits(bytes.Data(), bytes.ByteLength());
}

ImageRows read_image_rows(const Fields& rows) {
  return {rows.integer("row"), rows.u64("embeddingId"), rows.integer("firstRow"),
          rows.integer("count"), rows.integer("encoderRank")};
}

SeenRows read_seen(const Fields& from) {
  return {from.integer("row"), from.integer("count"),
          from.list<SeenRange>("ranges", [](const Fields& range) {
            return SeenRange{range.u64("streamId"), range.integer("first"), range.integer("end")};
          })};
}

StreamOpen read_stream(const Fields& from) {
  return {from.u64("streamId"), from.integers("tokenIds"),
          from.list<ImageRows>("imageRows", read_image_rows), from.integers("blockIds")};
}

Slice read_slice(const Fields& from) {
  Slice out{from.u64("sequenceId"),
            from.integer("startPosition"),
            from.integers("tokenIds"),
            from.integer("firstBlock"),
            from.integers("blockIds"),
            {},
            {}};
  out.image_rows = from.list<ImageRows>("imageRows", read_image_rows);
  out.wanted = from.list<WantedRow>("wanted", read_wanted);
  if (from.has("seen")) out.seen = from.list<SeenRows>("seen", read_seen);
  return out;
}

}  // namespace

StepPlan read_step_plan(const Napi::Value& value) {
  const Fields from(value, "plan");
  StepPlan plan{from.u64("epoch"),
                from.u64("stepId"),
                from.u64("releasedStep"),
                from.integer("deadlineMs"),
                {},
                from.u64s("closedSequenceIds"),
                from.u64s("releasedEmbeddingIds"),
                {},
                from.texts("capture"),
                {},
                {}};
  if (from.has("openedStreams"))
    plan.opened_streams = from.list<StreamOpen>("openedStreams", read_stream);
  if (from.has("closedStreamIds")) plan.closed_stream_ids = from.u64s("closedStreamIds");
  plan.opened = from.list<SequenceOpen>("opened", [](const Fields& open) {
    return SequenceOpen{open.u64("sequenceId"), open.integer("promptLength"),
                        open.integers("tokenIds"), read_sampling(open.object("sampling"))};
  });
  plan.slices = from.list<Slice>("slices", read_slice);
  if (from.has("masks")) plan.masks = from.list<Mask>("masks", read_mask);
  if (from.has("copiedBlocks"))
    plan.copied_blocks = from.list<BlockCopy>("copiedBlocks", [](const Fields& copy) {
      return BlockCopy{copy.integer("from"), copy.integer("to")};
    });
  if (from.has("profile")) plan.profile = from.boolean("profile");
  return plan;
}

EncodePlan read_encode_plan(const Napi::Value& value) {
  const Fields from(value, "plan");
  EncodePlan plan{from.u64("epoch"),
                  from.u64("encodeId"),
                  from.has("deadlineMs") ? from.integer("deadlineMs") : 0,
                  {},
                  from.texts("capture")};
  from.each("tiles", [&](const Fields& tile) {
    const Napi::Value pixels = tile.at("pixels");
    CHECK_ARGUMENT(pixels.IsTypedArray(), tile.path(), ".pixels: must be a typed array");
    const auto typed = pixels.As<Napi::TypedArray>();
    TileInput input{tile.u64("embeddingId"), {}, {}};
    if (typed.TypedArrayType() == napi_float32_array) {
      const auto values = pixels.As<Napi::Float32Array>();
      input.f32.assign(values.Data(), values.Data() + values.ElementLength());
    } else {
      CHECK_ARGUMENT(typed.TypedArrayType() == napi_uint8_array, tile.path(),
                     ".pixels: must be u8 or f32");
      const auto values = pixels.As<Napi::Uint8Array>();
      input.u8.assign(values.Data(), values.Data() + values.ElementLength());
    }
    plan.tiles.push_back(std::move(input));
  });
  if (from.has("profile")) plan.profile = from.boolean("profile");
  return plan;
}

}  // namespace tessera
