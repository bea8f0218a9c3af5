// Bicubic resize as Pillow ≤ 10.4 (src/libImaging/Resample.c): horizontal pass first, u8 between
// the passes.
#pragma once

#include <cstdint>
#include <vector>

namespace tessera {

struct RgbImage {
  int width, height;
  std::vector<uint8_t> data;  // [height, width, 3]
};

// Throws INVALID_ARGUMENT when sizes and bytes do not agree.
void check_image(const RgbImage& image);
RgbImage resize_bicubic(const RgbImage& image, int width, int height);

}  // namespace tessera
