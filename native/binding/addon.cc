// The door: engines by handle, promises settled from the engine's thread, frames to and from the
// exchange thread.
#include <napi.h>

#include "binding/convert.h"
#include "binding/image.h"
#include "core/check.h"

namespace tessera {

namespace {

using Settle = std::function<void(Napi::Env)>;

void run_settle(Napi::Env env, Napi::Function, std::nullptr_t*, Settle* settle) {
  if (env != nullptr) (*settle)(env);
  delete settle;
}
using SettleFunction = Napi::TypedThreadSafeFunction<std::nullptr_t, Settle, run_settle>;

void run_send(Napi::Env env, Napi::Function callback, std::nullptr_t*, OutFrame* frame) {
  const std::unique_ptr<OutFrame> owned(frame);
  if (env == nullptr || callback == nullptr) return;
  Napi::Object out = Napi::Object::New(env);
  Napi::Array peers = Napi::Array::New(env, frame->peers.size());
  for (uint32_t i = 0; i < frame->peers.size(); ++i) peers.Set(i, frame->peers[i]);
  out.Set("peers", peers);
  out.Set("kind", frame->key.kind == FrameKind::kCollective ? "collective" : "embedding");
  out.Set("epoch", Napi::BigInt::New(env, frame->key.epoch));
  out.Set("sequence", Napi::BigInt::New(env, frame->key.sequence));
  out.Set("item", Napi::BigInt::New(env, frame->key.item));
  out.Set("offset", static_cast<double>(frame->offset));
  out.Set("total", static_cast<double>(frame->total));
  auto* bytes = new std::vector<uint8_t>(std::move(frame->buffer));
  out.Set("buffer",
          Napi::Buffer<uint8_t>::New(
              env, bytes->data(), bytes->size(),
              [](Napi::Env, uint8_t*, std::vector<uint8_t>* held) { delete held; }, bytes));
  callback.Call({out});
}
using SendFunction = Napi::TypedThreadSafeFunction<std::nullptr_t, OutFrame, run_send>;

// Sends through the function the exchange thread attached.
class AttachedExchange : public Exchange {
 public:
  void attach(SendFunction send) {
    std::lock_guard lock(mutex_);
    send_ = send;
    attached_ = true;
  }
  void detach() {
    std::lock_guard lock(mutex_);
    if (attached_) send_.Release();
    attached_ = false;
  }
  void send(OutFrame frame) override {
    std::lock_guard lock(mutex_);
    if (!attached_) throw Error("CLOSED", "the exchange is not attached");
    auto* owned = new OutFrame(std::move(frame));
    if (send_.NonBlockingCall(owned) != napi_ok) delete owned;
  }

 private:
  std::mutex mutex_;
  SendFunction send_;
  bool attached_ = false;
};

struct Held {
  explicit Held(EngineSpec spec) : engine(std::make_unique<Engine>(std::move(spec))) {
    engine->set_exchange(&exchange);
  }
  AttachedExchange exchange;
  std::unique_ptr<Engine> engine;
};

std::mutex registry_mutex;
std::map<uint32_t, std::shared_ptr<Held>> registry;
uint32_t next_handle = 1;

std::shared_ptr<Held> find(uint32_t handle) {
  std::lock_guard lock(registry_mutex);
  const auto found = registry.find(handle);
  if (found == registry.end()) throw Error("CLOSED", "the engine is closed");
  return found->second;
}

// Turns C++ errors into JavaScript ones at the border.
template <typename F>
Napi::Value guarded(const Napi::CallbackInfo& info, F f) {
  try {
    return f();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw make_error(info.Env(), error);
  }
}

class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Engine",
                       {InstanceAccessor<&EngineObject::handle>("handle"),
                        InstanceMethod<&EngineObject::info>("info"),
                        InstanceMethod<&EngineObject::begin_epoch>("beginEpoch"),
                        InstanceMethod<&EngineObject::end_epoch>("endEpoch"),
                        InstanceMethod<&EngineObject::encode>("encode"),
                        InstanceMethod<&EngineObject::step>("step"),
                        InstanceMethod<&EngineObject::more_candidates>("moreCandidates"),
                        InstanceMethod<&EngineObject::release>("release"),
                        InstanceMethod<&EngineObject::stats>("stats"),
                        InstanceMethod<&EngineObject::close>("close")});
  }
  explicit EngineObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineObject>(info) {
    handle_ = info[0].As<Napi::Number>().Uint32Value();
  }

 private:
  // Runs `job` on the engine's thread; `write` makes the promise's value from what it returns.
  template <typename Job, typename Write>
  Napi::Value promise(const Napi::CallbackInfo& info, Job job, Write write) {
    return guarded(info, [&]() -> Napi::Value {
      const auto held = find(handle_);
      const Napi::Env env = info.Env();
      auto deferred = std::make_shared<Napi::Promise::Deferred>(env);
      SettleFunction settle = SettleFunction::New(env, "tessera", 0, 1);
      held->engine->post([held, deferred, settle, job = std::move(job), write]() mutable {
        Settle* done;
        try {
          auto result = std::make_shared<decltype(job(*held->engine))>(job(*held->engine));
          done = new Settle(
              [deferred, result, write](Napi::Env env) { deferred->Resolve(write(env, *result)); });
        } catch (...) {
          done = new Settle([deferred, error = std::current_exception()](Napi::Env env) {
            try {
              std::rethrow_exception(error);
            } catch (const std::exception& caught) {
              deferred->Reject(make_error(env, caught).Value());
            }
          });
        }
        if (settle.NonBlockingCall(done) != napi_ok) delete done;
        settle.Release();
      });
      return deferred->Promise();
    });
  }

  Napi::Value handle(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), handle_);
  }
  Napi::Value info(const Napi::CallbackInfo& info) {
    return guarded(info, [&] { return write_info(info.Env(), find(handle_)->engine->info()); });
  }
  Napi::Value begin_epoch(const Napi::CallbackInfo& info) {
    return guarded(info, [&] {
      bool lossless;
      const uint64_t epoch = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
      return promise(
          info,
          [epoch, placement = read_placement(info[1])](Engine& engine) {
            engine.begin_epoch(epoch, placement);
            return engine.info();
          },
          write_info);
    });
  }
  Napi::Value end_epoch(const Napi::CallbackInfo& info) {
    return guarded(info, [&] {
      bool lossless;
      const uint64_t epoch = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
      const int lost = info[1].IsNumber() ? info[1].As<Napi::Number>().Int32Value() : -1;
      find(handle_)->engine->end_epoch(epoch, lost);
      return info.Env().Undefined();
    });
  }
  Napi::Value encode(const Napi::CallbackInfo& info) {
    return guarded(info, [&] {
      return promise(
          info, [plan = read_encode_plan(info[0])](Engine& engine) { return engine.encode(plan); },
          write_encode);
    });
  }
  Napi::Value step(const Napi::CallbackInfo& info) {
    return guarded(info, [&] {
      return promise(
          info, [plan = read_step_plan(info[0])](Engine& engine) { return engine.step(plan); },
          write_step);
    });
  }
  Napi::Value more_candidates(const Napi::CallbackInfo& info) {
    return guarded(info, [&] {
      const Fields from(info[0], "query");
      const CandidateQuery query{from.u64("stepId"), from.u64("sequenceId"), from.integer("row"),
                                 from.integer("count")};
      return promise(
          info, [query](Engine& engine) { return engine.more_candidates(query); }, write_row);
    });
  }
  Napi::Value release(const Napi::CallbackInfo& info) {
    return guarded(info, [&] {
      const Fields from(info[0], "ids");
      const auto held = find(handle_);
      held->engine->post(
          [held, sequences = from.u64s("sequenceIds"), embeddings = from.u64s("embeddingIds")] {
            held->engine->release(sequences, embeddings);
          });
      return info.Env().Undefined();
    });
  }
  Napi::Value stats(const Napi::CallbackInfo& info) {
    return guarded(info, [&] {
      const auto held = find(handle_);
      Napi::Object out = Napi::Object::New(info.Env());
      out.Set("sequences", static_cast<double>(held->engine->sequences()));
      out.Set("embeddings", static_cast<double>(held->engine->embeddings()));
      out.Set("lastStepId", Napi::BigInt::New(info.Env(), held->engine->last_step()));
      return out;
    });
  }
  Napi::Value close(const Napi::CallbackInfo& info) {
    return guarded(info, [&] {
      auto deferred = Napi::Promise::Deferred::New(info.Env());
      std::shared_ptr<Held> held;
      {
        std::lock_guard lock(registry_mutex);
        const auto found = registry.find(handle_);
        if (found != registry.end()) held = found->second;
        registry.erase(handle_);
      }
      if (held != nullptr) {
        held->exchange.detach();
        // Joined off this thread: the engine's last job holds a reference and may not join itself.
        std::thread([held = std::move(held)]() mutable {
          while (held.use_count() > 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
          held.reset();
        }).detach();
      }
      deferred.Resolve(info.Env().Undefined());
      return deferred.Promise();
    });
  }

  uint32_t handle_;
};

// Loads on the engine's thread and settles a promise with the engine's object.
Napi::Value open_engine(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    auto held = std::make_shared<Held>(read_engine_spec(info[0]));
    auto deferred = std::make_shared<Napi::Promise::Deferred>(env);
    auto progress =
        std::make_shared<Napi::FunctionReference>(Napi::Persistent(info[1].As<Napi::Function>()));
    SettleFunction settle = SettleFunction::New(env, "tessera", 0, 1);
    held->engine->post([held, deferred, progress, settle]() mutable {
      Settle* done;
      try {
        held->engine->load([&](uint64_t loaded, uint64_t total) {
          auto* tell = new Settle([progress, loaded, total](Napi::Env env) {
            progress->Call({Napi::Number::New(env, static_cast<double>(loaded)),
                            Napi::Number::New(env, static_cast<double>(total))});
          });
          if (settle.NonBlockingCall(tell) != napi_ok) delete tell;
        });
        done = new Settle([held, deferred, progress](Napi::Env env) {
          uint32_t handle;
          {
            std::lock_guard lock(registry_mutex);
            handle = next_handle++;
            registry[handle] = held;
          }
          auto* constructor = env.GetInstanceData<Napi::FunctionReference>();
          deferred->Resolve(constructor->New({Napi::Number::New(env, handle)}));
        });
      } catch (const std::exception&) {
        done = new Settle([deferred, progress, error = std::current_exception()](Napi::Env env) {
          try {
            std::rethrow_exception(error);
          } catch (const std::exception& caught) {
            deferred->Reject(make_error(env, caught).Value());
          }
        });
      }
      progress.reset();
      if (settle.NonBlockingCall(done) != napi_ok) delete done;
      settle.Release();
    });
    // The last reference may not be the job's own: an engine does not join its own thread.
    std::thread([held = std::move(held)]() mutable {
      while (held.use_count() > 1) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        std::lock_guard lock(registry_mutex);
        for (const auto& [handle, kept] : registry)
          if (kept == held) return;
      }
    }).detach();
    return deferred->Promise();
  });
}

Napi::Value attach_exchange(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const uint32_t handle = info[0].As<Napi::Number>().Uint32Value();
    const auto held = find(handle);
    held->exchange.attach(
        SendFunction::New(info.Env(), info[1].As<Napi::Function>(), "tessera exchange", 0, 1));
    return Napi::Function::New(info.Env(),
                               [held](const Napi::CallbackInfo&) { held->exchange.detach(); });
  });
}

Napi::Value deliver(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto held = find(info[0].As<Napi::Number>().Uint32Value());
    const Fields from(info[1], "frame");
    const FrameKind kind =
        from.text("kind") == "embedding" ? FrameKind::kEmbedding : FrameKind::kCollective;
    const auto payload = from.at("payload").As<Napi::Uint8Array>();
    held->engine->mailbox().deliver(
        from.integer("peer"), {kind, from.u64("epoch"), from.u64("sequence"), from.u64("item")},
        static_cast<uint64_t>(from.number("offset")), static_cast<uint64_t>(from.number("total")),
        payload.Data(), payload.ByteLength());
    return info.Env().Undefined();
  });
}

Napi::Value cpu_kind(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    return Napi::String::New(info.Env(), cpu_kind_name(detect_cpu_kind()));
  });
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Napi::FunctionReference(Napi::Persistent(EngineObject::define(env))));
  exports.Set("openEngine", Napi::Function::New(env, open_engine));
  exports.Set("attachExchange", Napi::Function::New(env, attach_exchange));
  exports.Set("deliver", Napi::Function::New(env, deliver));
  exports.Set("cpuKind", Napi::Function::New(env, cpu_kind));
  define_image(env, exports);
  return exports;
}

}  // namespace

}  // namespace tessera

static Napi::Object tessera_init(Napi::Env env, Napi::Object exports) {
  return tessera::init(env, exports);
}
NODE_API_MODULE(tessera, tessera_init)
