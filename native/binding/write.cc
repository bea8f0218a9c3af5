#include <cstring>

#include "binding/convert.h"
#include "core/check.h"

namespace tessera {

namespace {

Napi::Value write_candidate(Napi::Env env, const HeadCandidate& from) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("tokenId", from.token_id);
  out.Set("raw", from.raw);
  out.Set("scaled", from.scaled);
  out.Set("noise", from.noise);
  return out;
}

Napi::Value write_scored(Napi::Env env, const ScoredToken& from) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("tokenId", from.token_id);
  out.Set("raw", from.raw);
  return out;
}

Napi::Value write_sum(Napi::Env env, bool has, const LogSum& from) {
  if (!has) return env.Null();
  Napi::Object out = Napi::Object::New(env);
  out.Set("max", from.max);
  out.Set("sum", from.sum);
  return out;
}

template <typename T, typename F>
Napi::Array write_list(Napi::Env env, const std::vector<T>& from, F f) {
  Napi::Array out = Napi::Array::New(env, from.size());
  for (size_t i = 0; i < from.size(); ++i) out.Set(static_cast<uint32_t>(i), f(env, from[i]));
  return out;
}

Napi::Value write_lane(Napi::Env env, const LaneResult& from) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("lane", from.lane);
  out.Set("nonFinite", from.non_finite);
  out.Set("best", from.has_best ? write_candidate(env, from.best) : env.Null());
  out.Set("candidates", write_list(env, from.candidates, write_candidate));
  out.Set("top", write_list(env, from.top, write_scored));
  out.Set("scored", write_list(env, from.scored, write_scored));
  out.Set("raw", write_sum(env, from.has_raw, from.raw));
  out.Set("scaled", write_sum(env, from.has_scaled, from.scaled));
  return out;
}

Napi::Value write_time(Napi::Env env, const OpTime& from) {
  Napi::Object out = Napi::Object::New(env);
  const auto number = [&](const char* name, uint64_t value) {
    out.Set(name, static_cast<double>(value));
  };
  out.Set("stream", from.stream);
  out.Set("segment", from.segment);
  out.Set("op", from.op);
  out.Set("rows", from.rows);
  number("startNs", from.start_ns);
  number("ns", from.ns);
  number("waitNs", from.wait_ns);
  number("bytes", from.cost.bytes);
  number("flops", from.cost.flops);
  return out;
}

Napi::Object write_captured(Napi::Env env, const Captured& captured) {
  Napi::Object out = Napi::Object::New(env);
  for (const auto& [label, values] : captured) {
    Napi::Float32Array array = Napi::Float32Array::New(env, values.size());
    if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(float));
    out.Set(label, array);
  }
  return out;
}

}  // namespace

Napi::Value write_row(Napi::Env env, const RowResult& row) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("sequenceId", Napi::BigInt::New(env, row.sequence_id));
  out.Set("row", row.row);
  out.Set("lanes", write_list(env, row.lanes, write_lane));
  return out;
}

Napi::Value write_step(Napi::Env env, const StepOutcome& outcome) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("rows", write_list(env, outcome.rows, write_row));
  out.Set("computeNs", Napi::BigInt::New(env, outcome.compute_ns));
  out.Set("waitNs", Napi::BigInt::New(env, outcome.wait_ns));
  out.Set("collectiveNs", Napi::BigInt::New(env, outcome.collective_ns));
  out.Set("exchangeBytes", Napi::BigInt::New(env, outcome.exchange_bytes));
  out.Set("captured", write_captured(env, outcome.captured));
  if (!outcome.op_times.empty()) out.Set("opTimes", write_list(env, outcome.op_times, write_time));
  return out;
}

Napi::Value write_encode(Napi::Env env, const EncodeOutcome& outcome) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("computeNs", Napi::BigInt::New(env, outcome.compute_ns));
  out.Set("exchangeBytes", Napi::BigInt::New(env, outcome.exchange_bytes));
  out.Set("captured", write_captured(env, outcome.captured));
  if (!outcome.op_times.empty()) out.Set("opTimes", write_list(env, outcome.op_times, write_time));
  return out;
}

Napi::Value write_info(Napi::Env env, const EngineInfo& info) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("cpu", info.cpu);
  out.Set("threads", info.threads);
  out.Set("weightBytes", static_cast<double>(info.weight_bytes));
  out.Set("cacheBytes", static_cast<double>(info.cache_bytes));
  out.Set("workspaceBytes", static_cast<double>(info.workspace_bytes));
  return out;
}

Napi::Error make_error(Napi::Env env, const std::exception& error) {
  Napi::Error out = Napi::Error::New(env, error.what());
  const auto* typed = dynamic_cast<const Error*>(&error);
  const bool memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
  out.Value().Set("code", typed != nullptr ? typed->code().c_str()
                          : memory         ? "OUT_OF_MEMORY"
                                           : "INTERNAL");
  if (typed != nullptr && typed->rank() >= 0) out.Value().Set("rank", typed->rank());
  return out;
}

}  // namespace tessera
