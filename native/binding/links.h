// shareMemory of native/src/engine.ts.
#pragma once

#include <napi.h>

#include <memory>

#include "engine/engine.h"

namespace tessera {

// The engine of a handle. Throws CLOSED.
std::shared_ptr<Engine> engine_of(uint32_t handle);

void define_links(Napi::Env env, Napi::Object exports);

}  // namespace tessera
