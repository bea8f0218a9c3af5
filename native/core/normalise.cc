#include "core/normalise.h"

namespace tessera {

const NormaliseTable& normalise_table() {
  static const NormaliseTable table = [] {
    constexpr float kMean[3] = {0.485f, 0.456f, 0.406f};
    constexpr float kStd[3] = {0.229f, 0.224f, 0.225f};
    NormaliseTable values;
    for (int c = 0; c < 3; ++c)
      for (int v = 0; v < 256; ++v)
        values[c][v] = (static_cast<float>(v) / 255.0f - kMean[c]) / kStd[c];
    return values;
  }();
  return table;
}

}  // namespace tessera
