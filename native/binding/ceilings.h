// measureCeilings of native/src/engine.ts.
#pragma once

#include <napi.h>

namespace tessera {

void define_ceilings(Napi::Env env, Napi::Object exports);

}  // namespace tessera
