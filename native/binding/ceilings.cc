#include "binding/ceilings.h"

#include "bench/measure.h"
#include "binding/convert.h"
#include "core/check.h"

namespace tessera {

namespace {

// Beyond every cache of today's processors, and soon read.
constexpr size_t kReadBytes = size_t{512} << 20;
constexpr int kMaxThreads = 1024;

class MeasureWorker : public Napi::AsyncWorker {
 public:
  MeasureWorker(Napi::Env env, int threads)
      : Napi::AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)), threads_(threads) {}
  Napi::Promise promise() const { return deferred_.Promise(); }
  void Execute() override { measured_ = bench::measure_ceilings(threads_, kReadBytes); }
  void OnOK() override {
    Napi::Object out = Napi::Object::New(Env());
    out.Set("readBytesPerSecond", measured_.read_bytes_per_second);
    out.Set("flopsPerSecond", measured_.flops_per_second);
    deferred_.Resolve(out);
  }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  bench::MeasuredCeilings measured_{};
  int threads_;
};

Napi::Value measure(const Napi::CallbackInfo& info) {
  try {
    const Fields from(info[0], "options");
    const int threads = from.integer("threads");
    CHECK_ARGUMENT(threads >= 1 && threads <= kMaxThreads, "threads ", threads, ": must be 1…",
                   kMaxThreads);
    auto* worker = new MeasureWorker(info.Env(), threads);
    worker->Queue();
    return worker->promise();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw make_error(info.Env(), error);
  }
}

}  // namespace

void define_ceilings(Napi::Env env, Napi::Object exports) {
  exports.Set("measureCeilings", Napi::Function::New(env, measure));
}

}  // namespace tessera
