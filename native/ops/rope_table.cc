#include "core/math.h"
#include "ops/ops.h"

namespace tessera {

void rope_table(float* table, int positions, int head_dim, double theta) {
  const int half = head_dim / 2;
  const double log_theta = log_f64(theta);
  for (int i = 0; i < half; ++i) {
    const float inv_freq = static_cast<float>(exp_f64(-log_theta * (2.0 * i) / head_dim));
    for (int p = 0; p < positions; ++p) {
      const float angle = static_cast<float>(p) * inv_freq;
      double sin, cos;
      sin_cos_f64(angle, &sin, &cos);
      float* row = table + static_cast<size_t>(p) * head_dim;
      row[i] = static_cast<float>(cos);
      row[half + i] = static_cast<float>(sin);
    }
  }
}

}  // namespace tessera
