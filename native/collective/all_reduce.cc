#include "collective/all_reduce.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "ops/ops.h"

namespace tessera {

namespace {

// A partial as it goes over the wire, and back.
std::vector<uint8_t> to_wire(const Context& context, bool bf16, std::span<const float> values) {
  std::vector<uint8_t> bytes(values.size() * (bf16 ? 2 : 4));
  if (bf16) {
    to_bf16(context, reinterpret_cast<uint16_t*>(bytes.data()), values.data(), values.size());
  } else if (!values.empty()) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
  }
  return bytes;
}

std::vector<float> from_wire(const Context& context, bool bf16, const std::vector<uint8_t>& bytes,
                             size_t count, int peer) {
  CHECK_ARGUMENT(bytes.size() == count * (bf16 ? 2 : 4), "rank ", peer, " sent ", bytes.size(),
                 " bytes for ", count, " values");
  std::vector<float> values(count);
  if (bf16) {
    from_bf16(context, values.data(), reinterpret_cast<const uint16_t*>(bytes.data()), count);
  } else if (count > 0) {
    std::memcpy(values.data(), bytes.data(), bytes.size());
  }
  return values;
}

std::vector<uint8_t> timed_take(const Group& group, int peer, const FrameKey& key,
                                Clock::time_point deadline, CollectiveTimes& times) {
  const Clock::time_point start = Clock::now();
  std::vector<uint8_t> bytes = group.mailbox->take(peer, key, deadline);
  times.wait_ns += std::chrono::nanoseconds(Clock::now() - start).count();
  return bytes;
}

// Adds the parts of all ranks by the tree (0+1)+(2+3) …; the sum is in parts[0].
void sum_tree(const Context& context, std::vector<std::vector<float>>& parts) {
  for (size_t step = 1; step < parts.size(); step *= 2)
    for (size_t i = 0; i + step < parts.size(); i += 2 * step)
      add(context, parts[i].data(), parts[i + step].data(), parts[i].size());
}

// The tree over `own` and what every peer sent under `key`.
std::vector<float> gather_sum(const Context& context, const Group& group, const FrameKey& key,
                              std::span<const float> own, Clock::time_point deadline,
                              CollectiveTimes& times) {
  std::vector<std::vector<float>> parts(group.size);
  const auto mine = to_wire(context, group.wire_bf16, own);
  parts[group.rank] = from_wire(context, group.wire_bf16, mine, own.size(), group.rank);
  for (const int peer : peers_of(group)) {
    const auto bytes = timed_take(group, peer, key, deadline, times);
    parts[peer] = from_wire(context, group.wire_bf16, bytes, own.size(), peer);
  }
  sum_tree(context, parts);
  return std::move(parts[0]);
}

struct Range {
  size_t first, count;
};

// The part of `count` values a rank owns, in units of 16.
Range owned(size_t count, int rank, int size) {
  const size_t units = (count + 15) / 16;
  const size_t first = std::min(count, units * rank / size * 16);
  return {first, std::min(count, units * (rank + 1) / size * 16) - first};
}

void by_owner(const Context& context, const Group& group, FrameKey key, std::span<float> values,
              Clock::time_point deadline, CollectiveTimes& times) {
  for (const int peer : peers_of(group)) {
    const Range range = owned(values.size(), peer, group.size);
    const auto bytes = to_wire(context, group.wire_bf16, values.subspan(range.first, range.count));
    send_tensor(group, {peer}, key, bytes.data(), bytes.size(), times);
  }
  const Range mine = owned(values.size(), group.rank, group.size);
  const std::vector<float> sum =
      gather_sum(context, group, key, values.subspan(mine.first, mine.count), deadline, times);
  key.item += 1;
  send_tensor(group, peers_of(group), key, reinterpret_cast<const uint8_t*>(sum.data()),
              sum.size() * sizeof(float), times);
  std::copy(sum.begin(), sum.end(), values.begin() + mine.first);
  for (const int peer : peers_of(group)) {
    const Range range = owned(values.size(), peer, group.size);
    const auto bytes = timed_take(group, peer, key, deadline, times);
    const auto part = from_wire(context, false, bytes, range.count, peer);
    std::copy(part.begin(), part.end(), values.begin() + range.first);
  }
}

}  // namespace

std::vector<int> peers_of(const Group& group) {
  std::vector<int> peers;
  for (int peer = 0; peer < group.size; ++peer)
    if (peer != group.rank) peers.push_back(peer);
  return peers;
}

void send_tensor(const Group& group, const std::vector<int>& peers, const FrameKey& key,
                 const uint8_t* data, size_t bytes, CollectiveTimes& times) {
  size_t offset = 0;
  do {
    const size_t part = std::min(kFramePayload, bytes - offset);
    OutFrame frame{peers, key, offset, bytes, std::vector<uint8_t>(kFrameHeadroom + part)};
    if (part > 0) std::memcpy(frame.buffer.data() + kFrameHeadroom, data + offset, part);
    times.sent_bytes += part * peers.size();
    group.exchange->send(std::move(frame));
    offset += part;
  } while (offset < bytes);
}

void all_reduce_add(const Context& context, const Group& group, const CallId& id,
                    std::span<float> values, Clock::time_point deadline, CollectiveTimes& times) {
  if (group.size == 1) return;
  CHECK(group.exchange != nullptr, "rank ", group.rank, " has no exchange");
  const FrameKey key{FrameKind::kCollective, id.epoch, id.step, 2 * id.call};
  if (values.size() * sizeof(float) > kDirectBytes)
    return by_owner(context, group, key, values, deadline, times);
  const auto bytes = to_wire(context, group.wire_bf16, values);
  send_tensor(group, peers_of(group), key, bytes.data(), bytes.size(), times);
  const auto sum = gather_sum(context, group, key, values, deadline, times);
  std::copy(sum.begin(), sum.end(), values.begin());
}

}  // namespace tessera
