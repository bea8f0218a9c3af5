#include "binding/image.h"

#include "binding/convert.h"
#include "core/check.h"
#include "core/normalise.h"
#include "image/resize.h"

namespace tessera {

namespace {

class ResizeWorker : public Napi::AsyncWorker {
 public:
  ResizeWorker(Napi::Env env, RgbImage image, int width, int height)
      : Napi::AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        image_(std::move(image)),
        width_(width),
        height_(height) {}
  Napi::Promise promise() const { return deferred_.Promise(); }
  void Execute() override { image_ = resize_bicubic(image_, width_, height_); }
  void OnOK() override {
    Napi::Object out = Napi::Object::New(Env());
    out.Set("width", image_.width);
    out.Set("height", image_.height);
    out.Set("data", Napi::Buffer<uint8_t>::Copy(Env(), image_.data.data(), image_.data.size()));
    deferred_.Resolve(out);
  }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  RgbImage image_;
  int width_, height_;
};

Napi::Value resize(const Napi::CallbackInfo& info) {
  try {
    const Fields from(info[0], "image");
    const Fields size(info[1], "size");
    const auto data = from.at("data").As<Napi::Uint8Array>();
    RgbImage image{from.integer("width"),
                   from.integer("height"),
                   {data.Data(), data.Data() + data.ByteLength()}};
    check_image(image);
    CHECK_ARGUMENT(size.integer("width") > 0 && size.integer("height") > 0,
                   "size: must be above 0");
    auto* worker = new ResizeWorker(info.Env(), std::move(image), size.integer("width"),
                                    size.integer("height"));
    worker->Queue();
    return worker->promise();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw make_error(info.Env(), error);
  }
}

Napi::Value normalise(const Napi::CallbackInfo& info) {
  const auto tile = info[0].As<Napi::Uint8Array>();
  const size_t area = tile.ByteLength() / 3;
  Napi::Float32Array out = Napi::Float32Array::New(info.Env(), 3 * area);
  const NormaliseTable& table = normalise_table();
  for (size_t i = 0; i < area; ++i)
    for (size_t c = 0; c < 3; ++c) out[c * area + i] = table[c][tile[3 * i + c]];
  return out;
}

}  // namespace

void define_image(Napi::Env env, Napi::Object exports) {
  exports.Set("resizeBicubic", Napi::Function::New(env, resize));
  exports.Set("normalise", Napi::Function::New(env, normalise));
}

}  // namespace tessera
