#include "image/resize.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace tessera {

namespace {

constexpr int kPrecisionBits = 32 - 8 - 2;
constexpr double kSupport = 2.0;

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

// Weights of one output: source pixels [first, first + weights).
struct Window {
  int first;
  std::vector<int> weights;  // fixed point
};

std::vector<Window> windows(int in, int out) {
  const double scale = static_cast<double>(in) / out;
  const double filter = std::max(scale, 1.0);
  const double support = kSupport * filter;
  std::vector<Window> list(out);
  for (int i = 0; i < out; ++i) {
    const double center = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(center - support + 0.5));
    const int last = std::min(in, static_cast<int>(center + support + 0.5));
    std::vector<double> weights(last - first);
    double sum = 0.0;
    for (int x = 0; x < last - first; ++x) {
      weights[x] = bicubic((x + first - center + 0.5) * (1.0 / filter));
      sum += weights[x];
    }
    list[i].first = first;
    for (double weight : weights) {
      if (sum != 0.0) weight /= sum;
      const double fixed = weight * (1 << kPrecisionBits);
      list[i].weights.push_back(static_cast<int>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return list;
}

uint8_t clip(int value) {
  return static_cast<uint8_t>(std::clamp(value >> kPrecisionBits, 0, 255));
}

// One pass over `lines` lines: pixel p of a line lies at line · line_step + p · pixel_step.
struct Steps {
  size_t line, pixel;
};
void pass(uint8_t* out, Steps to, const uint8_t* in, Steps from, int lines,
          const std::vector<Window>& list) {
  for (int line = 0; line < lines; ++line) {
    for (size_t i = 0; i < list.size(); ++i) {
      const uint8_t* source = in + line * from.line + list[i].first * from.pixel;
      int sum[3] = {1 << (kPrecisionBits - 1), 1 << (kPrecisionBits - 1),
                    1 << (kPrecisionBits - 1)};
      for (size_t k = 0; k < list[i].weights.size(); ++k)
        for (int c = 0; c < 3; ++c) sum[c] += source[k * from.pixel + c] * list[i].weights[k];
      for (int c = 0; c < 3; ++c) out[line * to.line + i * to.pixel + c] = clip(sum[c]);
    }
  }
}

}  // namespace

void check_image(const RgbImage& image) {
  CHECK_ARGUMENT(image.width > 0 && image.height > 0 &&
                     image.data.size() == static_cast<size_t>(3) * image.width * image.height,
                 "image: ", image.data.size(), " bytes for ", image.width, " × ", image.height);
}

RgbImage resize_bicubic(const RgbImage& image, int width, int height) {
  RgbImage current = image;
  if (width != image.width) {
    RgbImage next{width, image.height, std::vector<uint8_t>(size_t{3} * width * image.height)};
    pass(next.data.data(), {size_t{3} * width, 3}, current.data.data(),
         {size_t{3} * current.width, 3}, image.height, windows(image.width, width));
    current = std::move(next);
  }
  if (height != image.height) {
    RgbImage next{width, height, std::vector<uint8_t>(size_t{3} * width * height)};
    pass(next.data.data(), {3, size_t{3} * width}, current.data.data(), {3, size_t{3} * width},
         width, windows(image.height, height));
    current = std::move(next);
  }
  return current;
}

}  // namespace tessera
