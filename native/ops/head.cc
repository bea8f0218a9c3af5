// Parts of the head that are the same for every kind of CPU.
#include <algorithm>
#include <vector>

#include "core/philox.h"
#include "ops/ops.h"

namespace tessera {

float gumbel(uint64_t seed, uint32_t index, uint32_t choice, uint32_t token_id) {
  const auto words = philox({token_id / 4, index, choice, 0}, static_cast<uint32_t>(seed),
                            static_cast<uint32_t>(seed >> 32));
  return gumbel_of_word(words[token_id % 4]);
}

int head_top(const Context&, const float* values, int first_id, int count, int wanted,
             int32_t* ids) {
  static thread_local std::vector<int32_t> order;
  order.clear();
  for (int i = 0; i < count; ++i)
    if (values[i] != kNoLogit) order.push_back(i);
  const int kept = std::min<int>(wanted, static_cast<int>(order.size()));
  std::partial_sort(order.begin(), order.begin() + kept, order.end(), [&](int32_t a, int32_t b) {
    return values[a] != values[b] ? values[a] > values[b] : a < b;
  });
  for (int i = 0; i < kept; ++i) ids[i] = first_id + order[i];
  return kept;
}

}  // namespace tessera
