#include "collective/all_reduce.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/check.h"
#include "ops/ops.h"

namespace tessera {

namespace {

// What a rank adds: a view of f32 that a peer sent, or its own values. The memory is changed.
using Part = std::span<float>;

// A sender's partial rounded to what the wire carries, its own use included.
void round_to_wire(const Context& context, const Group& group, std::span<float> values,
                   std::vector<uint16_t>& narrow) {
  if (!group.wire_bf16) return;
  narrow.resize(values.size());
  to_bf16(context, narrow.data(), values.data(), values.size());
  from_bf16(context, values.data(), narrow.data(), values.size());
}

// Sends f32 `values`, which hold wire values already.
void send_values(const Context& context, const Group& group, const std::vector<int>& peers,
                 const FrameKey& key, std::span<const float> values, bool bf16,
                 Clock::time_point deadline, CollectiveTimes& times) {
  std::vector<uint16_t>& narrow = group.scratch->narrow;
  if (!bf16)
    return send_tensor(group, peers, key, reinterpret_cast<const uint8_t*>(values.data()),
                       values.size_bytes(), deadline, times);
  narrow.resize(values.size());
  to_bf16(context, narrow.data(), values.data(), values.size());
  send_tensor(group, peers, key, reinterpret_cast<const uint8_t*>(narrow.data()),
              narrow.size() * sizeof(uint16_t), deadline, times);
}

// Waits for all of them at once: who sleeps is woken by the last.
void await_all(const Group& group, const FrameKey& key, Clock::time_point deadline,
               CollectiveTimes& times) {
  const Clock::time_point start = Clock::now();
  group.mailbox->await(group.peers, key, deadline);
  times.wait_ns += std::chrono::nanoseconds(Clock::now() - start).count();
}

std::vector<uint8_t> timed_take(const Group& group, int peer, const FrameKey& key,
                                size_t wanted_bytes, Clock::time_point deadline,
                                CollectiveTimes& times) {
  const Clock::time_point start = Clock::now();
  std::vector<uint8_t> bytes = group.mailbox->take(peer, key, deadline);
  times.wait_ns += std::chrono::nanoseconds(Clock::now() - start).count();
  CHECK_ARGUMENT(bytes.size() == wanted_bytes, "rank ", peer, " sent ", bytes.size(),
                 " bytes, must be ", wanted_bytes);
  return bytes;
}

// What `peer` sent under `key`, as f32: in the received memory itself, or widened into scratch.
Part take_part(const Context& context, const Group& group, int peer, const FrameKey& key,
               size_t count, Clock::time_point deadline, CollectiveTimes& times) {
  std::vector<uint8_t>& bytes = group.scratch->received[peer];
  bytes = timed_take(group, peer, key, count * (group.wire_bf16 ? 2 : 4), deadline, times);
  if (!group.wire_bf16) return {reinterpret_cast<float*>(bytes.data()), count};
  std::vector<float>& wide = group.scratch->wide[peer];
  wide.resize(count);
  from_bf16(context, wide.data(), reinterpret_cast<const uint16_t*>(bytes.data()), count);
  return {wide.data(), count};
}

// The tree (0+1)+(2+3) … over `own`, which is rounded already, and what every peer sent under
// `key`; the sum replaces `own`.
void gather_sum(const Context& context, const Group& group, const FrameKey& key,
                std::span<float> own, Clock::time_point deadline, CollectiveTimes& times) {
  std::array<Part, kMaxLanes> parts;
  parts[group.rank] = own;
  await_all(group, key, deadline, times);
  for (const int peer : group.peers)
    parts[peer] = take_part(context, group, peer, key, own.size(), deadline, times);
  for (int step = 1; step < group.size; step *= 2)
    for (int i = 0; i + step < group.size; i += 2 * step)
      add(context, parts[i].data(), parts[i + step].data(), own.size());
  if (group.rank != 0) std::copy(parts[0].begin(), parts[0].end(), own.begin());
  for (const int peer : group.peers)
    group.mailbox->recycle(std::move(group.scratch->received[peer]));
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
  for (const int peer : group.peers) {
    const Range range = owned(values.size(), peer, group.size);
    send_values(context, group, {peer}, key, values.subspan(range.first, range.count),
                group.wire_bf16, deadline, times);
  }
  const Range mine = owned(values.size(), group.rank, group.size);
  const std::span<float> own = values.subspan(mine.first, mine.count);
  gather_sum(context, group, key, own, deadline, times);
  key.item += 1;
  send_values(context, group, group.peers, key, own, false, deadline, times);
  await_all(group, key, deadline, times);
  for (const int peer : group.peers) {
    const Range range = owned(values.size(), peer, group.size);
    auto bytes = timed_take(group, peer, key, range.count * sizeof(float), deadline, times);
    if (range.count > 0) std::memcpy(values.data() + range.first, bytes.data(), bytes.size());
    group.mailbox->recycle(std::move(bytes));
  }
}

void send_frames(Exchange& exchange, const std::vector<int>& peers, const FrameKey& key,
                 const uint8_t* data, size_t bytes) {
  size_t offset = 0;
  do {
    const size_t part = std::min(kFramePayload, bytes - offset);
    OutFrame frame{peers, key, offset, bytes, std::vector<uint8_t>(kFrameHeadroom + part)};
    if (part > 0) std::memcpy(frame.buffer.data() + kFrameHeadroom, data + offset, part);
    exchange.send(std::move(frame));
    offset += part;
  } while (offset < bytes);
}

}  // namespace

Group::Group(int rank, int size, bool wire_bf16, Exchange* exchange, Mailbox* mailbox,
             CollectiveScratch* scratch)
    : rank(rank),
      size(size),
      wire_bf16(wire_bf16),
      exchange(exchange),
      mailbox(mailbox),
      scratch(scratch),
      links(mailbox->links()) {
  for (int peer = 0; peer < size; ++peer)
    if (peer != rank) peers.push_back(peer);
  scratch->received.resize(size);
  scratch->wide.resize(size);
}

void send_tensor(const Group& group, const std::vector<int>& peers, const FrameKey& key,
                 const uint8_t* data, size_t bytes, Clock::time_point deadline,
                 CollectiveTimes& times) {
  std::vector<int> near, far;
  for (const int peer : peers) {
    const bool shared =
        group.links != nullptr && key.kind != FrameKind::kEmbedding && group.links->reaches(peer);
    (shared ? near : far).push_back(peer);
  }
  times.sent_bytes += bytes * peers.size();
  if (!far.empty()) send_frames(*group.exchange, far, key, data, bytes);
  for (const int peer : near)
    times.wait_ns += group.links->send(*group.mailbox, peer, key, data, bytes, deadline);
}

void all_reduce_add(const Context& context, const Group& group, const CallId& id,
                    std::span<float> values, Clock::time_point deadline, CollectiveTimes& times) {
  if (group.size == 1) return;
  CHECK(group.exchange != nullptr, "rank ", group.rank, " has no exchange");
  const FrameKey key{id.kind, id.epoch, id.step, 2 * id.call};
  round_to_wire(context, group, values, group.scratch->narrow);
  if (values.size_bytes() > kDirectBytes)
    return by_owner(context, group, key, values, deadline, times);
  send_values(context, group, group.peers, key, values, group.wire_bf16, deadline, times);
  gather_sum(context, group, key, values, deadline, times);
}

}  // namespace tessera
