// (u8 / 255 − mean) / std in f32, per channel: ImageNet's constants, as torchvision computes them.
#pragma once

#include <array>

namespace tessera {

using NormaliseTable = std::array<std::array<float, 256>, 3>;

const NormaliseTable& normalise_table();

}  // namespace tessera
