// The door: engines by handle, promises settled from the engine's thread, frames to and from the
// exchange thread.
#include <napi.h>

#include "binding/ceilings.h"
#include "binding/convert.h"
#include "binding/frame_kind.h"
#include "binding/image.h"
#include "binding/links.h"
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
  out.Set("kind", kind_text(frame->key.kind));
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
  void attach(SendFunction send, napi_env env) {
    std::lock_guard lock(mutex_);
    if (attached_) throw Error("INVALID_ARGUMENT", "the exchange is attached already");
    send_ = send;
    env_ = env;
    attached_ = true;
  }
  // When `env` is what attached it: its functions end with it.
  void detach_from(napi_env env) {
    std::lock_guard lock(mutex_);
    if (attached_ && env_ == env) release();
  }
  void detach() {
    std::lock_guard lock(mutex_);
    if (attached_) release();
  }
  void send(OutFrame frame) override {
    std::lock_guard lock(mutex_);
    if (!attached_) throw Error("CLOSED", "the exchange is not attached");
    auto owned = std::make_unique<OutFrame>(std::move(frame));
    if (send_.NonBlockingCall(owned.get()) != napi_ok)
      throw Error("CLOSED", "the exchange thread takes no more frames");
    owned.release();
  }

 private:
  void release() {
    send_.Release();
    attached_ = false;
  }

  std::mutex mutex_;
  SendFunction send_;
  napi_env env_ = nullptr;
  bool attached_ = false;
};

// An engine and its way out. Jobs hold neither: the engine outlives them, since it waits for its
// thread when it ends; frames from the exchange thread hold it for the length of a call.
struct Held {
  Held(EngineSpec spec, napi_env env)
      : env(env), engine(std::make_unique<Engine>(std::move(spec))) {
    engine->set_exchange(&exchange);
  }
  napi_env env;  // where it was opened
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

uint32_t enter(std::shared_ptr<Held> held) {
  std::lock_guard lock(registry_mutex);
  registry[next_handle] = std::move(held);
  return next_handle++;
}

// Null when it was taken before.
std::shared_ptr<Held> remove(uint32_t handle) {
  std::lock_guard lock(registry_mutex);
  const auto node = registry.extract(handle);
  return node.empty() ? nullptr : std::move(node.mapped());
}

// A thread of JavaScript ends: before its functions are gone, exchanges it attached let go of them,
// and engines it opened stop.
void end_with(napi_env env) {
  std::vector<std::shared_ptr<Held>> left;
  {
    std::lock_guard lock(registry_mutex);
    for (auto at = registry.begin(); at != registry.end();) {
      const auto here = at++;
      here->second->exchange.detach_from(env);
      if (here->second->env != env) continue;
      left.push_back(std::move(here->second));
      registry.erase(here);
    }
  }
  for (const auto& held : left) held->exchange.detach();
  for (const auto& held : left) held->engine->stop();
}

// Engines that end on threads of their own, by where they were opened.
class Endings {
 public:
  void begin(napi_env env) {
    std::lock_guard lock(mutex_);
    ++count_[env];
  }
  void end(napi_env env) {
    std::lock_guard lock(mutex_);
    if (--count_[env] == 0) count_.erase(env);
    changed_.notify_all();
  }
  void wait(napi_env env) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !count_.contains(env); });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<napi_env, int> count_;
};
Endings endings;

// Stops an engine and waits for its thread, on a thread of its own; then calls `done` there.
void end_engine(std::shared_ptr<Held> held, std::function<void()> done) {
  held->exchange.detach();
  held->engine->stop();
  const napi_env env = held->env;
  endings.begin(env);
  std::thread([held = std::move(held), done = std::move(done), env]() mutable {
    held.reset();
    done();
    endings.end(env);
  }).detach();
}

// Before the functions that native threads call are gone: whoever calls them has ended. Node runs
// an environment's hooks from the last to the first, so this one is put behind every function made.
void end_hook(void* env) {
  end_with(static_cast<napi_env>(env));
  endings.wait(static_cast<napi_env>(env));
}
void hook_last(napi_env env) {
  napi_remove_env_cleanup_hook(env, end_hook, env);
  napi_add_env_cleanup_hook(env, end_hook, env);
}
SettleFunction settle_function(Napi::Env env, const char* name) {
  SettleFunction made = SettleFunction::New(env, name, 0, 1);
  hook_last(env);
  return made;
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
      SettleFunction settle = settle_function(env, "tessera");
      Engine* engine = held->engine.get();
      const auto run = [engine, deferred, settle, job = std::move(job), write]() mutable {
        Settle* done;
        try {
          auto result = std::make_shared<decltype(job(*engine))>(job(*engine));
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
      };
      try {
        engine->post(run);
      } catch (...) {
        settle.Release();
        throw;
      }
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
          [engine = held->engine.get(), sequences = from.u64s("sequenceIds"),
           embeddings = from.u64s("embeddingIds")] { engine->release(sequences, embeddings); });
      return info.Env().Undefined();
    });
  }
  Napi::Value stats(const Napi::CallbackInfo& info) {
    return guarded(info, [&] {
      const auto held = find(handle_);
      Napi::Object out = Napi::Object::New(info.Env());
      out.Set("sequences", static_cast<double>(held->engine->sequences()));
      out.Set("embeddings", static_cast<double>(held->engine->embeddings()));
      out.Set("streams", static_cast<double>(held->engine->streams()));
      out.Set("lastStepId", Napi::BigInt::New(info.Env(), held->engine->last_step()));
      return out;
    });
  }
  Napi::Value close(const Napi::CallbackInfo& info) {
    return guarded(info, [&] {
      const auto deferred = std::make_shared<Napi::Promise::Deferred>(info.Env());
      auto held = remove(handle_);
      if (held == nullptr) {
        deferred->Resolve(info.Env().Undefined());
        return deferred->Promise();
      }
      SettleFunction settle = settle_function(info.Env(), "tessera close");
      end_engine(std::move(held), [deferred, settle]() mutable {
        auto* done = new Settle([deferred](Napi::Env env) { deferred->Resolve(env.Undefined()); });
        if (settle.NonBlockingCall(done) != napi_ok) delete done;
        settle.Release();
      });
      return deferred->Promise();
    });
  }

  uint32_t handle_;
};

// What the loading of an engine needs on both threads.
struct Loading {
  uint32_t handle;
  Engine* engine;
  Napi::Promise::Deferred deferred;
  Napi::FunctionReference progress;
  SettleFunction settle;

  void tell(Settle work) {
    auto* owned = new Settle(std::move(work));
    if (settle.NonBlockingCall(owned) != napi_ok) delete owned;
  }
};

// On the JavaScript thread: the engine's object, or the reason why there is none.
void settle_loading(Napi::Env env, const std::shared_ptr<Loading>& loading,
                    const std::exception_ptr& failure) {
  loading->progress.Reset();
  if (failure == nullptr) {
    auto* constructor = env.GetInstanceData<Napi::FunctionReference>();
    return loading->deferred.Resolve(constructor->New({Napi::Number::New(env, loading->handle)}));
  }
  if (auto held = remove(loading->handle)) end_engine(std::move(held), [] {});
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& caught) {
    loading->deferred.Reject(make_error(env, caught).Value());
  }
}

// Runs on the engine's thread.
void load_engine(const std::shared_ptr<Loading>& loading) {
  std::exception_ptr failure;
  try {
    loading->engine->load([&](uint64_t done, uint64_t total) {
      loading->tell([loading, done, total](Napi::Env env) {
        loading->progress.Call({Napi::Number::New(env, static_cast<double>(done)),
                                Napi::Number::New(env, static_cast<double>(total))});
      });
    });
  } catch (...) {
    failure = std::current_exception();
  }
  loading->tell([loading, failure](Napi::Env env) { settle_loading(env, loading, failure); });
  loading->settle.Release();
}

// Loads on the engine's thread and settles a promise with the engine's object.
Napi::Value open_engine(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    auto held = std::make_shared<Held>(read_engine_spec(info[0]), napi_env{env});
    Engine* engine = held->engine.get();
    const auto loading = std::make_shared<Loading>(Loading{
        enter(std::move(held)), engine, Napi::Promise::Deferred::New(env),
        Napi::Persistent(info[1].As<Napi::Function>()), settle_function(env, "tessera load")});
    engine->post([loading] { load_engine(loading); });
    return loading->deferred.Promise();
  });
}

void detach_exchange(uint32_t handle) {
  std::lock_guard lock(registry_mutex);
  const auto found = registry.find(handle);
  if (found != registry.end()) found->second->exchange.detach();
}

Napi::Value attach_exchange(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const uint32_t handle = info[0].As<Napi::Number>().Uint32Value();
    const auto held = find(handle);
    SendFunction send =
        SendFunction::New(info.Env(), info[1].As<Napi::Function>(), "tessera exchange", 0, 1);
    hook_last(info.Env());
    try {
      held->exchange.attach(send, info.Env());
    } catch (...) {
      send.Release();
      throw;
    }
    // By handle: JavaScript may keep the function longer than the engine lives.
    return Napi::Function::New(info.Env(),
                               [handle](const Napi::CallbackInfo&) { detach_exchange(handle); });
  });
}

Napi::Value deliver(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto held = find(info[0].As<Napi::Number>().Uint32Value());
    const Fields from(info[1], "frame");
    const FrameKind kind = read_kind(from.text("kind"));
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
  hook_last(env);
  env.SetInstanceData(new Napi::FunctionReference(Napi::Persistent(EngineObject::define(env))));
  exports.Set("openEngine", Napi::Function::New(env, open_engine));
  exports.Set("attachExchange", Napi::Function::New(env, attach_exchange));
  exports.Set("deliver", Napi::Function::New(env, deliver));
  exports.Set("cpuKind", Napi::Function::New(env, cpu_kind));
  define_image(env, exports);
  define_links(env, exports);
  define_ceilings(env, exports);
  return exports;
}

}  // namespace

std::shared_ptr<Engine> engine_of(uint32_t handle) {
  const auto held = find(handle);
  return {held, held->engine.get()};
}

}  // namespace tessera

static Napi::Object tessera_init(Napi::Env env, Napi::Object exports) {
  return tessera::init(env, exports);
}
NODE_API_MODULE(tessera, tessera_init)
