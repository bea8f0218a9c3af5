#include "binding/links.h"

#include "binding/convert.h"
#include "core/check.h"

namespace tessera {

namespace {

// What the object's functions share; empty after close(). The engine has a share of its own.
struct HeldLinks {
  uint64_t epoch;
  std::shared_ptr<SharedLinks> links;

  SharedLinks& get() const {
    CHECK_CODE("CLOSED", links != nullptr, "the links are closed");
    return *links;
  }
};
using Holder = std::shared_ptr<HeldLinks>;

template <typename F>
void put(Napi::Object& out, const char* name, const Holder& holder, F work) {
  const auto call = [holder, work](const Napi::CallbackInfo& info) -> Napi::Value {
    try {
      return work(info, *holder);
    } catch (const Napi::Error&) {
      throw;
    } catch (const std::exception& error) {
      throw make_error(info.Env(), error);
    }
  };
  out.Set(name, Napi::Function::New(out.Env(), call, name));
}

Napi::Value open_peer(const Napi::CallbackInfo& info, HeldLinks& held) {
  const Nonce nonce = held.get().open(info[0].As<Napi::Number>().Int32Value(),
                                      info[1].As<Napi::String>().Utf8Value());
  return Napi::Buffer<uint8_t>::Copy(info.Env(), nonce.data(), nonce.size());
}

Napi::Value proves(const Napi::CallbackInfo& info, HeldLinks& held) {
  const auto nonce = info[1].As<Napi::Uint8Array>();
  const bool proven = held.get().proves(info[0].As<Napi::Number>().Int32Value(),
                                        {nonce.Data(), nonce.ByteLength()});
  return Napi::Boolean::New(info.Env(), proven);
}

Napi::Value start(const Napi::CallbackInfo& info, HeldLinks& held) {
  const auto engine = engine_of(info[0].As<Napi::Number>().Uint32Value());
  const Fields from(info[1], "sharing");
  const int spin_us = from.has("spinUs") ? from.integer("spinUs") : -1;
  held.get().start(from.integers("peers"), from.integer("cores"), spin_us);
  engine->link(held.epoch, held.links);
  return Napi::Number::New(info.Env(), held.links->spin_us());
}

Napi::Value close(const Napi::CallbackInfo& info, HeldLinks& held) {
  held.links.reset();
  return info.Env().Undefined();
}

Napi::Value share_memory(const Napi::CallbackInfo& info) {
  try {
    const Fields from(info[0], "sharing");
    SharedSettings settings;
    settings.dir = from.text("dir");
    settings.epoch = from.u64("epoch");
    settings.rank = from.integer("rank");
    settings.size = from.integer("size");
    settings.threads = from.integer("threads");
    const auto holder = std::make_shared<HeldLinks>(
        HeldLinks{settings.epoch, std::make_shared<SharedLinks>(settings)});
    Napi::Object out = Napi::Object::New(info.Env());
    out.Set("name", holder->links->name());
    put(out, "open", holder, open_peer);
    put(out, "proves", holder, proves);
    put(out, "start", holder, start);
    put(out, "close", holder, close);
    return out;
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw make_error(info.Env(), error);
  }
}

}  // namespace

void define_links(Napi::Env env, Napi::Object exports) {
  exports.Set("shareMemory", Napi::Function::New(env, share_memory));
}

}  // namespace tessera
