#include "bench/measure.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

TEST("ceilings are rates above zero on any number of threads") {
  for (const int threads : {1, 3}) {
    const bench::MeasuredCeilings measured = bench::measure_ceilings(threads, size_t{1} << 20);
    EXPECT(std::isfinite(measured.read_bytes_per_second) && measured.read_bytes_per_second > 0);
    EXPECT(std::isfinite(measured.flops_per_second) && measured.flops_per_second > 0);
  }
}

}  // namespace
}  // namespace tessera::testing
