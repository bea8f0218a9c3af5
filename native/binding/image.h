// resizeBicubic and normalise of native/src/image.ts.
#pragma once

#include <napi.h>

namespace tessera {

void define_image(Napi::Env env, Napi::Object exports);

}  // namespace tessera
