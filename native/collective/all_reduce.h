// The sum of every rank's partial in the fixed tree over ranks.
#pragma once

#include <span>

#include "collective/mailbox.h"
#include "collective/shared_links.h"
#include "core/context.h"

namespace tessera {

// Memory that collectives use again and again; one a rank.
struct CollectiveScratch {
  std::vector<std::vector<uint8_t>> received;  // by peer
  std::vector<std::vector<float>> wide;        // by peer, with a bf16 wire
  std::vector<uint16_t> narrow;
};

struct Group {
  Group(int rank, int size, bool wire_bf16, Exchange* exchange, Mailbox* mailbox,
        CollectiveScratch* scratch);

  int rank, size;
  bool wire_bf16;
  Exchange* exchange;  // null when size is 1
  Mailbox* mailbox;
  CollectiveScratch* scratch;
  std::shared_ptr<SharedLinks> links;  // the mailbox's
  std::vector<int> peers;              // every rank but this one
};

struct CollectiveTimes {
  uint64_t wait_ns = 0;
  uint64_t collective_ns = 0;  // sending, waiting and adding
  uint64_t sent_bytes = 0;
};

// Sends a tensor to `peers`: through shared memory where it reaches them, embeddings excepted, else
// in frames of at most kFramePayload through the exchange.
void send_tensor(const Group& group, const std::vector<int>& peers, const FrameKey& key,
                 const uint8_t* data, size_t bytes, Clock::time_point deadline,
                 CollectiveTimes& times);

// In place. Up to kDirectBytes every rank sends its partial to all; beyond, each rank owns a range:
// partials go to the owners, sums come back in f32. The same tree, the same bits. A bf16 wire
// rounds each rank's partial once, its own use included. `call` counts the collectives of the step
// or encode.
inline constexpr size_t kDirectBytes = 64 << 10;
struct CallId {
  FrameKind kind;  // of a step, or of an encode
  uint64_t epoch, step, call;
};
void all_reduce_add(const Context& context, const Group& group, const CallId& id,
                    std::span<float> values, Clock::time_point deadline, CollectiveTimes& times);

}  // namespace tessera
