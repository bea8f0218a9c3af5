// Ops that only move values, and how stored values are read.
#include <unistd.h>

#include <bit>
#include <cstdlib>
#include <fstream>
#include <limits>

#include "core/normalise.h"
#include "ops/ops.h"
#include "program/tensor_reader.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

TEST("bf16: rounds to the nearest, ties to even; NaN stays NaN, infinity infinity") {
  EXPECT(to_bf16(1.0f) == 0x3f80);
  EXPECT(to_bf16(std::bit_cast<float>(0x3f808000u)) == 0x3f80, "a tie to even");
  EXPECT(to_bf16(std::bit_cast<float>(0x3f818000u)) == 0x3f82, "a tie to even, up");
  EXPECT(to_bf16(std::bit_cast<float>(0x3f808001u)) == 0x3f81);
  EXPECT(std::isnan(from_bf16(to_bf16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT(std::isinf(from_bf16(to_bf16(std::numeric_limits<float>::max()))));
  const auto x = random_values(1001, 5);
  for (const Context& context : contexts()) {
    std::vector<uint16_t> narrow(x.size());
    std::vector<float> wide(x.size()), wanted(x.size());
    to_bf16(context, narrow.data(), x.data(), x.size());
    from_bf16(context, wide.data(), narrow.data(), x.size());
    for (size_t i = 0; i < x.size(); ++i) wanted[i] = from_bf16(to_bf16(x[i]));
    EXPECT(same_bits(wide, wanted));
  }
}

TEST("panels: output o, input k lies at panel o / 64, row k, column o mod 64; the rest is zero") {
  constexpr int kOutputs = 130, kInputs = 5;
  std::vector<uint16_t> rows(kOutputs * kInputs);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<uint16_t>(i + 1);
  std::vector<uint16_t> panels(panel_bytes(kOutputs, kInputs) / 2, 0);
  pack_panels(panels.data(), rows.data(), 0, 64, kInputs);
  pack_panels(panels.data(), rows.data() + 64 * kInputs, 64, 66, kInputs);
  for (int o = 0; o < 192; ++o)
    for (int k = 0; k < kInputs; ++k) {
      const uint16_t wanted = o < kOutputs ? rows[o * kInputs + k] : 0;
      EXPECT(panels[(o / 64 * kInputs + k) * 64 + o % 64] == wanted, o, " ", k);
    }
}

TEST("patchify: rows of (channel, row, column), u8 normalised and f32 as it is") {
  constexpr int kSize = 6, kPatch = 2, kGrid = 3;
  std::vector<uint8_t> bytes(3 * kSize * kSize);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7);
  std::vector<float> values(bytes.size());
  const auto& table = normalise_table();
  for (int c = 0; c < 3; ++c)
    for (int i = 0; i < kSize * kSize; ++i)
      values[c * kSize * kSize + i] = table[c][bytes[i * 3 + c]];
  for (const Context& context : contexts()) {
    std::vector<float> out(2 * kGrid * kGrid * 3 * kPatch * kPatch);
    const uint8_t* u8[] = {bytes.data(), nullptr};
    const float* f32[] = {nullptr, values.data()};
    patchify(context, {out.data(), u8, f32, kSize, kPatch});
    const size_t half = out.size() / 2;
    EXPECT(same_bits({out.begin(), out.begin() + half}, {out.begin() + half, out.end()}));
    for (int p = 0; p < kGrid * kGrid; ++p)
      for (int c = 0; c < 3; ++c)
        for (int i = 0; i < kPatch * kPatch; ++i) {
          const int y = p / kGrid * kPatch + i / kPatch, x = p % kGrid * kPatch + i % kPatch;
          EXPECT(out[(p * 3 + c) * kPatch * kPatch + i] == values[(c * kSize + y) * kSize + x]);
        }
  }
}

TEST("assemble_patches: the class first, each with its position") {
  const auto x = random_values(2 * 4 * 3, 1), one = random_values(3, 2);
  const auto position = to_bf16_list(random_values(5 * 3, 3));
  for (const Context& context : contexts()) {
    std::vector<float> out(2 * 5 * 3);
    assemble_patches(context, out.data(), x.data(), one.data(), position.data(), 2, 4, 3);
    for (int tile = 0; tile < 2; ++tile)
      for (int place = 0; place < 5; ++place)
        for (int i = 0; i < 3; ++i) {
          const float from = place == 0 ? one[i] : x[(tile * 4 + place - 1) * 3 + i];
          EXPECT(out[(tile * 5 + place) * 3 + i] == from + from_bf16(position[place * 3 + i]));
        }
  }
}

TEST("embed_tokens: rows of this rank's ids, zero for others, never −0") {
  std::vector<uint16_t> table = to_bf16_list(random_values(4 * 3, 1));
  table[0] = 0x8000;
  const int32_t ids[] = {10, 13, 9, 14, 11};
  for (const Context& context : contexts()) {
    std::vector<float> out(5 * 3, 7.0f);
    embed_tokens(context, out.data(), table.data(), ids, 5, 3, 10, 4);
    for (int r = 0; r < 5; ++r)
      for (int i = 0; i < 3; ++i) {
        const int row = ids[r] - 10;
        const float wanted = row < 0 || row > 3 ? 0.0f : from_bf16(table[row * 3 + i]);
        EXPECT(out[r * 3 + i] == wanted && !(wanted == 0 && std::signbit(out[r * 3 + i])));
      }
  }
}

// A file of `values` as they are stored.
template <typename T>
struct Stored {
  char path[32] = "/tmp/tessera-stored-XXXXXX";
  explicit Stored(const std::vector<T>& values) {
    close(mkstemp(path));
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(values.data()),
               static_cast<std::streamsize>(values.size() * sizeof(T)));
  }
  ~Stored() { unlink(path); }
};

template <typename T>
std::vector<uint16_t> read_row(const std::vector<T>& values, const char* dtype, bool* finite) {
  const Stored<T> stored(values);
  const auto count = static_cast<int64_t>(values.size());
  const TensorSource source{stored.path, dtype, 0, values.size() * sizeof(T), 1, count};
  const MappedFile file(stored.path);
  const TensorReader reader("t", source, file.at(source, "t"));
  std::vector<uint16_t> out(values.size());
  *finite = reader.read(out.data(), 0, 0, count);
  return out;
}

TEST("stored F32 is rounded, F16 is widened first, BF16 stays; what is not finite is noticed") {
  bool finite = false;
  const std::vector<float> wide = {1.0f, -2.5f, 1e-40f, 0.1f};
  EXPECT(read_row(wide, "F32", &finite) == to_bf16_list(wide) && finite);
  const std::vector<uint16_t> half = {0x3c00, 0xc100, 0x0001, 0x7bff, 0x8000};
  const std::vector<float> same = {1.0f, -2.5f, 0x1p-24f, 65504.0f, -0.0f};
  EXPECT(read_row(half, "F16", &finite) == to_bf16_list(same) && finite);
  const std::vector<uint16_t> narrow = {0x3f80, 0x8000, 0x0001};
  EXPECT(read_row(narrow, "BF16", &finite) == narrow && finite);
  read_row(std::vector<uint16_t>{0x3f80, 0x7f80}, "BF16", &finite);
  EXPECT(!finite);
  read_row(std::vector<uint16_t>{0x7e00}, "F16", &finite);
  EXPECT(!finite);
  read_row(std::vector<float>{std::numeric_limits<float>::max()}, "F32", &finite);
  EXPECT(!finite, "rounds to infinity");
}

}  // namespace
}  // namespace tessera::testing
