// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) and Gumbel
// noise from its words.
#pragma once

#include <array>
#include <cstdint>

#include "core/math.h"

namespace tessera {

inline constexpr uint32_t kPhiloxMultiply[2] = {0xD2511F53u, 0xCD9E8D57u};
inline constexpr uint32_t kPhiloxKeyStep[2] = {0x9E3779B9u, 0xBB67AE85u};
inline constexpr int kPhiloxRounds = 10;

inline std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t a = uint64_t{kPhiloxMultiply[0]} * counter[0];
    const uint64_t b = uint64_t{kPhiloxMultiply[1]} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ k1, static_cast<uint32_t>(a)};
    k0 += kPhiloxKeyStep[0];
    k1 += kPhiloxKeyStep[1];
  }
  return counter;
}

// −log(−log u) of u = ((word >> 9) + ½) · 2⁻²³; rises with word >> 9.
inline float gumbel_of_word(uint32_t word) {
  const float u = (static_cast<float>(word >> 9) + 0.5f) * 0x1p-23f;
  return -log_f32(-log_f32(u));
}

}  // namespace tessera
