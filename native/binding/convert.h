// JavaScript values to plain structs and back; on the JavaScript thread only. A missing or wrong
// field is named.
#pragma once

#include <napi.h>

#include "engine/engine.h"

namespace tessera {

// Reads fields of an object; throws INVALID_ARGUMENT naming the path.
class Fields {
 public:
  Fields(Napi::Value value, std::string path);
  Napi::Value at(const char* name) const;
  bool has(const char* name) const;
  double number(const char* name) const;
  int integer(const char* name) const;
  uint64_t u64(const char* name) const;  // a bigint
  bool boolean(const char* name) const;
  std::string text(const char* name) const;
  std::vector<int> integers(const char* name) const;
  std::vector<uint64_t> u64s(const char* name) const;
  std::vector<std::string> texts(const char* name) const;
  Fields object(const char* name) const;
  template <typename F>
  void each(const char* name, F f) const {
    const Napi::Array list = array(name);
    for (uint32_t i = 0; i < list.Length(); ++i)
      f(Fields(list.Get(i), path_ + "." + name + "[" + std::to_string(i) + "]"));
  }
  template <typename T, typename F>
  std::vector<T> list(const char* name, F f) const {
    std::vector<T> out;
    each(name, [&](const Fields& item) { out.push_back(f(item)); });
    return out;
  }
  const Napi::Object& raw() const { return object_; }
  const std::string& path() const { return path_; }

 private:
  Napi::Array array(const char* name) const;
  Napi::Object object_;
  std::string path_;
};

EngineSpec read_engine_spec(const Napi::Value& value);
PlacementSpec read_placement(const Napi::Value& value);
EncodePlan read_encode_plan(const Napi::Value& value);
StepPlan read_step_plan(const Napi::Value& value);

Napi::Value write_row(Napi::Env env, const RowResult& row);
Napi::Value write_step(Napi::Env env, const StepOutcome& outcome);
Napi::Value write_encode(Napi::Env env, const EncodeOutcome& outcome);
Napi::Value write_info(Napi::Env env, const EngineInfo& info);

// A JavaScript Error with `code` and, where a peer is to blame, `rank`.
Napi::Error make_error(Napi::Env env, const std::exception& error);

}  // namespace tessera
