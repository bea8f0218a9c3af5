// The sum of every rank's partial in the fixed tree over ranks.
#pragma once

#include <span>

#include "collective/mailbox.h"
#include "core/context.h"

namespace tessera {

struct Group {
  int rank, size;
  bool wire_bf16;
  Exchange* exchange;  // null when size is 1
  Mailbox* mailbox;
};

struct CollectiveTimes {
  uint64_t wait_ns = 0;
  uint64_t collective_ns = 0;  // sending, waiting and adding
  uint64_t sent_bytes = 0;
};

std::vector<int> peers_of(const Group& group);

// Splits a tensor into frames of at most kFramePayload and sends it to `peers`.
void send_tensor(const Group& group, const std::vector<int>& peers, const FrameKey& key,
                 const uint8_t* data, size_t bytes, CollectiveTimes& times);

// In place. Up to kDirectBytes every rank sends its partial to all; beyond, each rank owns a range:
// partials go to the owners, sums come back. The same tree, the same bits. `call` counts the step's
// collectives.
inline constexpr size_t kDirectBytes = 64 << 10;
struct CallId {
  uint64_t epoch, step, call;
};
void all_reduce_add(const Context& context, const Group& group, const CallId& id,
                    std::span<float> values, Clock::time_point deadline, CollectiveTimes& times);

}  // namespace tessera
