// Ops that only move values: panels, patches, pixel shuffle, embedding rows, bf16.
#include <algorithm>
#include <cstring>

#include "core/bf16.h"
#include "core/normalise.h"
#include "ops/ops.h"

namespace tessera {

size_t panel_bytes(int outputs, int inputs, WeightType type) {
  const size_t panels = (static_cast<size_t>(outputs) + kPanelOutputs - 1) / kPanelOutputs;
  if (type == WeightType::kBf16) return panels * kPanelOutputs * inputs * sizeof(uint16_t);
  const size_t groups = (static_cast<size_t>(inputs) + kGroupInputs - 1) / kGroupInputs;
  return panels * groups * group_bytes(type);
}

void pack_panels(uint16_t* panels, const uint16_t* rows, int first, int count, int inputs) {
  for (int i = 0; i < count; ++i) {
    const int output = first + i;
    uint16_t* to = panels + static_cast<size_t>(output / kPanelOutputs) * inputs * kPanelOutputs +
                   output % kPanelOutputs;
    const uint16_t* from = rows + static_cast<size_t>(i) * inputs;
    for (int k = 0; k < inputs; ++k) to[static_cast<size_t>(k) * kPanelOutputs] = from[k];
  }
}

namespace {

// One patch as a row (channel, row, column); pixel(channel, y, x) reads the tile.
template <typename Pixel>
void patch_row(float* out, int patch, int y0, int x0, Pixel pixel) {
  for (int c = 0; c < 3; ++c)
    for (int y = 0; y < patch; ++y)
      for (int x = 0; x < patch; ++x) *out++ = pixel(c, y0 + y, x0 + x);
}

}  // namespace

void patchify(const Context& context, const PatchifyArgs& args) {
  const int size = args.tile_size, patch = args.patch_size, grid = size / patch;
  const int tiles = static_cast<int>(args.u8_tiles.size());
  const NormaliseTable& table = normalise_table();
  context.pool->parallel_for(tiles * grid, [&](int task) {
    const int tile = task / grid, row = task % grid;
    const uint8_t* bytes = args.u8_tiles[tile];
    const float* values = args.f32_tiles[tile];
    for (int column = 0; column < grid; ++column) {
      float* out = args.out + (static_cast<size_t>(task) * grid + column) * 3 * patch * patch;
      if (bytes != nullptr) {
        patch_row(out, patch, row * patch, column * patch, [&](int c, int y, int x) {
          return table[c][bytes[(static_cast<size_t>(y) * size + x) * 3 + c]];
        });
      } else {
        patch_row(out, patch, row * patch, column * patch, [&](int c, int y, int x) {
          return values[(static_cast<size_t>(c) * size + y) * size + x];
        });
      }
    }
  });
}

void assemble_patches(const Context& context, float* out, const float* x,
                      const float* class_embedding, const uint16_t* position, int tiles,
                      int patches, int width) {
  context.pool->parallel_for(tiles * (patches + 1), [&](int task) {
    const int tile = task / (patches + 1), place = task % (patches + 1);
    const float* from = place == 0 ? class_embedding
                                   : x + (static_cast<size_t>(tile) * patches + place - 1) * width;
    const uint16_t* shift = position + static_cast<size_t>(place) * width;
    float* to = out + static_cast<size_t>(task) * width;
    for (int i = 0; i < width; ++i) to[i] = from[i] + from_bf16(shift[i]);
  });
}

void pixel_shuffle(const Context& context, float* out, const float* x, int tiles, int grid,
                   int width, bool v2) {
  const int half = grid / 2;
  context.pool->parallel_for(tiles * half * half, [&](int task) {
    const int tile = task / (half * half), token = task % (half * half);
    const int row = v2 ? token / half : token % half;
    const int column = v2 ? token % half : token / half;
    float* to = out + static_cast<size_t>(task) * 4 * width;
    const float* from = x + (static_cast<size_t>(tile) * (grid * grid + 1) + 1) * width;
    for (int i = 0; i < 4; ++i) {
      const int source = (2 * row + i / 2) * grid + 2 * column + i % 2;
      std::memcpy(to + static_cast<size_t>(i) * width, from + static_cast<size_t>(source) * width,
                  width * sizeof(float));
    }
  });
}

void embed_tokens(const Context& context, float* out, const uint16_t* table, const int32_t* ids,
                  int rows, int width, int first_id, int rows_in_table) {
  context.pool->parallel_for(rows, [&](int r) {
    float* to = out + static_cast<size_t>(r) * width;
    const int row = ids[r] - first_id;
    if (row < 0 || row >= rows_in_table) {
      std::fill_n(to, width, 0.0f);
      return;
    }
    const uint16_t* from = table + static_cast<size_t>(row) * width;
    for (int i = 0; i < width; ++i) to[i] = from_bf16(from[i]) + 0.0f;
  });
}

void to_bf16(const Context&, uint16_t* out, const float* x, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = to_bf16(x[i]);
}

void from_bf16(const Context&, float* out, const uint16_t* x, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = from_bf16(x[i]);
}

}  // namespace tessera
