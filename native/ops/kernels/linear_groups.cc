// Linear over int8 and int4 panels. Rows of activations are turned to integers once, then a task is
// one panel of 64 outputs. A group's dot products are exact whatever their order; its value enters
// the lane's sum by one fma, groups rising, whatever the blocking.
#include "core/check.h"
#include "ops/kernels/dot.h"
#include "ops/kernels/integers.h"
#include "ops/kernels/linear_sums.h"

namespace tessera::TESSERA_NS {

namespace {

#if defined(TESSERA_KIND_AVX512)
// Dots and sums of a tile fit the registers. Up to kWholeRows rows it is as wide as the panel.
constexpr int kTileRows = 6;
constexpr int kTileVecs = 2;
constexpr int kWholeRows = 3;
#elif defined(TESSERA_KIND_AVX2)
constexpr int kTileRows = 4;
constexpr int kTileVecs = 1;
constexpr int kWholeRows = 1;
#else
constexpr int kTileRows = 2;
constexpr int kTileVecs = 1;
constexpr int kWholeRows = 1;
#endif
constexpr int kQuads = kGroupInputs / 4;
// A block of a panel is 17 KiB (int8) and serves all rows of a chunk.
constexpr int kBlockGroups = 8;
// Ahead of the group in use, where weights are read once.
constexpr size_t kPrefetchBytes = 8192;
constexpr size_t kLine = 64;
// Activations are turned to integers by a thread alone up to so many groups, else in tasks.
constexpr size_t kOwnGroups = 512;
constexpr int kTaskGroups = 16;
constexpr size_t kScaleBytes = kPanelOutputs * sizeof(uint16_t);

// Groups of one lane against rows of one chunk.
struct Part {
  const uint8_t* weights;
  size_t bytes;  // of a group
  int groups;
  const int8_t* q;  // of the first row and group
  const float* scales;
  const int32_t* totals;
  size_t rows;  // of the chunk: from a group to the next
};

Part rows_from(Part part, int row) {
  part.q += row * kGroupInputs;
  part.scales += row;
  part.totals += row;
  return part;
}

Part groups_from(Part part, int first, int count) {
  part.weights += first * part.bytes;
  part.groups = count;
  const size_t skipped = first * part.rows;
  part.q += skipped * kGroupInputs;
  part.scales += skipped;
  part.totals += skipped;
  return part;
}

void prefetch_group(const uint8_t* group, size_t bytes) {
  for (size_t i = 0; i < bytes; i += kLine) __builtin_prefetch(group + kPrefetchBytes + i);
}

// The dot products of group `g`, rows against outputs from vector `first` on.
template <typename Dot, int kRows, int kCount>
[[gnu::always_inline]] inline void group_dots(typename Dot::Sums (&dots)[kRows][kCount],
                                              const Part& part, int g, int first) {
  const uint8_t* group = part.weights + g * part.bytes;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kCount; ++v) dots[r][v] = Dot::start(part.totals[g * part.rows + r]);
#pragma GCC unroll 8
  for (int quad = 0; quad < kQuads; ++quad) {
    typename Dot::Weights w[kCount];
    for (int v = 0; v < kCount; ++v) w[v] = Dot::load(group, quad, first + v);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const int8_t* x = part.q + (g * part.rows + r) * kGroupInputs + quad * 4;
      for (int v = 0; v < kCount; ++v) Dot::add(dots[r][v], w[v], x);
    }
  }
}

// sums[r][16 v …] += the groups' values, for kCount vectors from `first` on.
template <typename Dot, int kRows, int kCount, bool kAhead>
void tile(float* sums, const Part& part, int first) {
  V16 held[kRows][kCount];
  const auto at = [&](int r, int v) { return sums + r * kPanelOutputs + v * 16; };
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kCount; ++v) held[r][v] = load(at(r, v));
  for (int g = 0; g < part.groups; ++g) {
    const uint8_t* group = part.weights + g * part.bytes;
    if (kAhead && first == 0) prefetch_group(group, part.bytes);
    typename Dot::Sums dots[kRows][kCount];
    group_dots<Dot, kRows, kCount>(dots, part, g, first);
    V16 scale[kCount];
    for (int v = 0; v < kCount; ++v)
      scale[v] =
          load_f16(group + part.bytes - kScaleBytes + (first + v) * kScaleBytes / kPanelVecs);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const size_t place = g * part.rows + r;
      const V16 own = splat(part.scales[place]);
#pragma GCC unroll 4
      for (int v = 0; v < kCount; ++v) {
        const V16 value = Dot::values(dots[r][v], part.totals[place]);
        held[r][v] = fma(value, own * scale[v], held[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kCount; ++v) store(at(r, v), held[r][v]);
}

template <typename Dot, int kRows, bool kAhead>
void tile_columns(float* sums, const Part& part) {
  constexpr int kCount = kRows <= kWholeRows ? kPanelVecs : kTileVecs;
  for (int v = 0; v < kPanelVecs; v += kCount)
    tile<Dot, kRows, kCount, kAhead>(sums + v * 16, part, v);
}

// Up to kRows rows.
template <typename Dot, bool kAhead, int kRows = kTileRows>
void few_rows(float* sums, const Part& part, int rows) {
  if constexpr (kRows > 1)
    if (rows < kRows) return few_rows<Dot, kAhead, kRows - 1>(sums, part, rows);
  tile_columns<Dot, kRows, kAhead>(sums, part);
}

// Few rows read the weights once, from memory; many read them block by block, again and again.
template <typename Dot>
void panel_rows(float* sums, const Part& part, int rows) {
  if (rows == 1) return few_rows<Dot, true>(sums, part, rows);
  for (int g = 0; g < part.groups; g += kBlockGroups) {
    const Part block = groups_from(part, g, std::min(kBlockGroups, part.groups - g));
    if (rows <= kTileRows) {
      few_rows<Dot, true>(sums, block, rows);
      continue;
    }
    // Each tile asks for its share of the next block: 1.1 times as fast at 192 rows (Zen 5).
    const size_t whole = kBlockGroups * part.bytes;
    const size_t share = (whole * kTileRows / rows / kLine + 1) * kLine;
    const uint8_t* next = block.weights + whole;
    for (int r = 0; r < rows; r += kTileRows) {
      for (size_t i = 0; i < share; i += kLine) __builtin_prefetch(next + i, 0, 2);
      next += share;
      few_rows<Dot, false>(sums + r * kPanelOutputs, rows_from(block, r),
                           std::min(kTileRows, rows - r));
    }
  }
}

int group_count(const Panels& lane) { return (lane.inputs + kGroupInputs - 1) / kGroupInputs; }

Integers integers_of(const LinearArgs& args, int rows) {
  size_t groups = 0;
  for (const Panels& lane : args.lanes) groups += group_count(lane);
  const size_t count = rows * groups;
  auto* q = reinterpret_cast<int8_t*>(args.scratch);
  auto* scales = reinterpret_cast<float*>(q + count * kGroupInputs);
  return {q, scales, reinterpret_cast<int32_t*>(scales + count), static_cast<size_t>(rows)};
}

// A lane's groups of all rows, `first` of the lanes before it.
void quantise_lane(const Context& context, const Integers& to, const LinearArgs& args, size_t lane,
                   size_t first, int first_row) {
  const int inputs = args.lanes[lane].inputs, groups = group_count(args.lanes[lane]);
  const float* x = args.x + first_row * args.x_stride + args.lane_starts[lane];
  const auto quantise = [&](int begin, int end) {
    for (int g = begin; g < end; ++g)
      for (size_t row = 0; row < to.rows; ++row)
        quantise_part(to, (first + g) * to.rows + row, x + row * args.x_stride + g * kGroupInputs,
                      inputs - g * kGroupInputs);
  };
  if (groups * to.rows <= kOwnGroups) return quantise(0, groups);
  context.pool->parallel_for((groups + kTaskGroups - 1) / kTaskGroups, [&](int task) {
    quantise(task * kTaskGroups, std::min(groups, (task + 1) * kTaskGroups));
  });
}

void quantise_rows(const Context& context, const Integers& to, const LinearArgs& args,
                   int first_row) {
  size_t first = 0;
  for (size_t lane = 0; lane < args.lanes.size(); ++lane) {
    quantise_lane(context, to, args, lane, first, first_row);
    first += group_count(args.lanes[lane]);
  }
}

void panel_sums(LaneSums& sums, const Integers& x, const LinearArgs& args, int panel, int rows) {
  size_t first = 0;
  for (size_t i = 0; i < args.lanes.size(); ++i) {
    const Panels& lane = args.lanes[i];
    const size_t bytes = group_bytes(lane.type);
    const int groups = group_count(lane);
    const Part part{lane.groups + panel * groups * bytes,
                    bytes,
                    groups,
                    x.q + first * x.rows * kGroupInputs,
                    x.scales + first * x.rows,
                    x.totals + first * x.rows,
                    x.rows};
    float* to = sums.of[i][0];
    std::fill_n(to, static_cast<size_t>(rows) * kPanelOutputs, 0.0f);
    if (lane.type == WeightType::kInt8) {
      panel_rows<Int8Dot>(to, part, rows);
    } else {
      panel_rows<Int4Dot>(to, part, rows);
    }
    first += groups;
  }
}

}  // namespace

void linear_groups(const Context& context, const LinearArgs& args) {
  CHECK(args.scratch != nullptr || args.rows == 0, "a quantised linear of ", args.rows,
        " rows without scratch");
  const int panels = (args.lanes[0].outputs + kPanelOutputs - 1) / kPanelOutputs;
  for (int first = 0; first < args.rows; first += kChunkRows) {
    const int rows = std::min(kChunkRows, args.rows - first);
    const Integers x = integers_of(args, rows);
    quantise_rows(context, x, args, first);
    context.pool->parallel_for(panels, [&](int panel) {
      LaneSums& sums = own_sums();
      panel_sums(sums, x, args, panel, rows);
      fold_lanes(sums, static_cast<int>(args.lanes.size()), rows);
      finish_panel(sums, args, panel, first, rows);
    });
  }
}

}  // namespace tessera::TESSERA_NS
