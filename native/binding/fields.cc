#include "binding/convert.h"
#include "core/check.h"

namespace tessera {

Fields::Fields(Napi::Value value, std::string path) : path_(std::move(path)) {
  CHECK_ARGUMENT(value.IsObject(), path_, ": must be an object");
  object_ = value.As<Napi::Object>();
}

bool Fields::has(const char* name) const {
  const Napi::Value value = object_.Get(name);
  return !value.IsUndefined() && !value.IsNull();
}

Napi::Value Fields::at(const char* name) const {
  CHECK_ARGUMENT(has(name), path_, ".", name, ": is missing");
  return object_.Get(name);
}

double Fields::number(const char* name) const {
  const Napi::Value value = at(name);
  CHECK_ARGUMENT(value.IsNumber(), path_, ".", name, ": must be a number");
  return value.As<Napi::Number>().DoubleValue();
}

namespace {

// Of 32 bits.
bool is_whole(double value) {
  return value >= -2147483648.0 && value <= 2147483647.0 &&
         value == static_cast<double>(static_cast<int>(value));
}

}  // namespace

int Fields::integer(const char* name) const {
  const double value = number(name);
  CHECK_ARGUMENT(is_whole(value), path_, ".", name, ": must be a whole number of 32 bits");
  return static_cast<int>(value);
}

uint64_t Fields::u64(const char* name) const {
  const Napi::Value value = at(name);
  CHECK_ARGUMENT(value.IsBigInt(), path_, ".", name, ": must be a bigint");
  bool lossless;
  return value.As<Napi::BigInt>().Uint64Value(&lossless);
}

bool Fields::boolean(const char* name) const {
  const Napi::Value value = at(name);
  CHECK_ARGUMENT(value.IsBoolean(), path_, ".", name, ": must be true or false");
  return value.As<Napi::Boolean>().Value();
}

std::string Fields::text(const char* name) const {
  const Napi::Value value = at(name);
  CHECK_ARGUMENT(value.IsString(), path_, ".", name, ": must be a text");
  return value.As<Napi::String>().Utf8Value();
}

Napi::Array Fields::array(const char* name) const {
  const Napi::Value value = at(name);
  CHECK_ARGUMENT(value.IsArray(), path_, ".", name, ": must be an array");
  return value.As<Napi::Array>();
}

std::vector<int> Fields::integers(const char* name) const {
  const Napi::Array list = array(name);
  std::vector<int> out(list.Length());
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Value value = list.Get(i);
    CHECK_ARGUMENT(value.IsNumber() && is_whole(value.As<Napi::Number>().DoubleValue()), path_, ".",
                   name, "[", i, "]: must be a whole number of 32 bits");
    out[i] = value.As<Napi::Number>().Int32Value();
  }
  return out;
}

std::vector<uint64_t> Fields::u64s(const char* name) const {
  const Napi::Array list = array(name);
  std::vector<uint64_t> out(list.Length());
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Value value = list.Get(i);
    CHECK_ARGUMENT(value.IsBigInt(), path_, ".", name, "[", i, "]: must be a bigint");
    bool lossless;
    out[i] = value.As<Napi::BigInt>().Uint64Value(&lossless);
  }
  return out;
}

std::vector<std::string> Fields::texts(const char* name) const {
  if (!has(name)) return {};
  const Napi::Array list = array(name);
  std::vector<std::string> out;
  for (uint32_t i = 0; i < list.Length(); ++i) out.push_back(list.Get(i).ToString().Utf8Value());
  return out;
}

Fields Fields::object(const char* name) const { return Fields(at(name), path_ + "." + name); }

}  // namespace tessera
