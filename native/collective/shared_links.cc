#include "collective/shared_links.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "core/check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tessera {

namespace {

constexpr uint64_t kMagic = 0x31414d4853534554;  // of this layout
constexpr size_t kHeadBytes = 4096;
// A tensor's piece: while the reader copies one, the next is written.
constexpr size_t kPieceBytes = 32 << 10;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Bits of ranks that a sleeper waits for; 0: nobody sleeps. A futex of several processes.
using Word = std::atomic<uint32_t>;

// Until the word is not `seen` any more, a wake, a signal, or the deadline.
void futex_wait(Word& word, uint32_t seen, Clock::time_point deadline) {
  const auto since = deadline.time_since_epoch();
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(since);
  const timespec until{static_cast<time_t>(whole.count()),
                       static_cast<long>(std::chrono::nanoseconds(since - whole).count())};
  // WAIT_BITSET takes an absolute time of the monotonic clock, as Clock's are.
  ::syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, seen, &until, nullptr, FUTEX_BITSET_MATCH_ANY);
}

void futex_wake(Word& word) { ::syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0); }

void rouse(Word& word) {
  if (word.load() != 0 && word.exchange(0) != 0) futex_wake(word);
}

Error damaged(int peer, const Error& cause) {
  return {cause.code(), "rank " + std::to_string(peer) + ", " + cause.what(), peer};
}

}  // namespace

// Stands at the beginning of a shared file; the rings' data follow.
struct SharedLinks::Head {
  uint64_t magic, epoch;
  uint32_t rank, size, threads;
  std::array<Nonce, kMaxLanes> nonces;       // by peer
  alignas(kRingLine) Word waits_for;         // of the rank that made it
  alignas(kRingLine) std::atomic<int> core;  // that its executor was on when last seen
  RingState rings[kMaxLanes];                // by sender
};

SharedLinks::SharedLinks(const SharedSettings& settings) : settings_(settings) {
  static_assert(sizeof(Head) <= kHeadBytes);
  const auto& [dir, epoch, rank, size, threads, ring_bytes] = settings_;
  CHECK_ARGUMENT(size >= 1 && size <= kMaxLanes && rank >= 0 && rank < size, "rank ", rank, " of ",
                 size);
  CHECK_ARGUMENT(ring_bytes % kRingLine == 0 && ring_bytes >= 4 * kRingLine, "ring of ", ring_bytes,
                 " bytes");
  own_ = SharedFile::create(dir, kHeadBytes + ring_bytes * (size - 1));
  Head& head = *new (own_->data()) Head{};
  head.epoch = epoch;
  head.rank = rank;
  head.size = size;
  head.threads = threads;
  for (Nonce& nonce : head.nonces) random_bytes(nonce.data(), nonce.size());
  head.core = -1;
  head.magic = kMagic;
}

SharedLinks::~SharedLinks() = default;

SharedLinks::Head& SharedLinks::head_of(const SharedFile& file) const {
  return *reinterpret_cast<Head*>(file.data());
}

Ring SharedLinks::ring(const SharedFile& file, int owner, int sender) const {
  const size_t slot = sender < owner ? sender : sender - 1;
  return {&head_of(file).rings[sender], file.data() + kHeadBytes + slot * settings_.ring_bytes,
          settings_.ring_bytes};
}

Nonce SharedLinks::open(int peer, const std::string& name) {
  const auto& [dir, epoch, rank, size, threads, ring_bytes] = settings_;
  CHECK_ARGUMENT(peer >= 0 && peer < size && peer != rank, "peer ", peer, " of rank ", rank);
  auto file = SharedFile::open(dir, name, own_->bytes());
  const Head& head = head_of(*file);
  CHECK_CODE("NO_SHARED_MEMORY",
             head.magic == kMagic && head.epoch == epoch && static_cast<int>(head.rank) == peer &&
                 static_cast<int>(head.size) == size,
             name, " is no shared file of rank ", peer, " of ", size, " in epoch ", epoch);
  peers_[peer] = {std::move(file), {}, {}, false};
  return head.nonces[rank];
}

bool SharedLinks::proves(int peer, std::span<const uint8_t> nonce) const {
  CHECK_ARGUMENT(peer >= 0 && peer < settings_.size, "peer ", peer, " of ", settings_.size);
  const Nonce& own = head_of(*own_).nonces[peer];
  return std::equal(own.begin(), own.end(), nonce.begin(), nonce.end());
}

void SharedLinks::start(const std::vector<int>& peers, int cores, int asked_spin_us) {
  const int rank = settings_.rank;
  uint64_t threads = settings_.threads;
  for (const int i : peers) {
    CHECK_ARGUMENT(i >= 0 && i < settings_.size && peers_[i].file != nullptr, "peer ", i,
                   ": its file is not open");
    Peer& peer = peers_[i];
    peer.to = ring(*peer.file, i, rank);
    peer.from = ring(*own_, rank, i);
    peer.started = true;
    threads += head_of(*peer.file).threads;
  }
  for (Peer& peer : peers_)
    if (!peer.started) peer.file.reset();
  started_ = peers;
  const bool alone = threads <= static_cast<uint64_t>(std::max(cores, 0));
  spin_us_ = asked_spin_us >= 0 ? asked_spin_us : alone ? kSharedSpinUs : 0;
  own_->remove_name();
}

bool SharedLinks::anything() const {
  for (const int peer : started_)
    if (!peers_[peer].from.empty()) return true;
  return false;
}

void SharedLinks::deliver_all(Mailbox& mailbox) {
  for (const int peer : started_) deliver_from(mailbox, peer);
}

void SharedLinks::deliver_from(Mailbox& mailbox, int peer) {
  Ring& ring = peers_[peer].from;
  while (!ring.empty()) {
    std::optional<Ring::Front> front;
    try {
      front = ring.front();
    } catch (const Error& error) {
      throw damaged(peer, error);
    }
    const RingFrame& frame = front->frame;
    CHECK_ARGUMENT(frame.kind == static_cast<uint32_t>(FrameKind::kCollective) ||
                       frame.kind == static_cast<uint32_t>(FrameKind::kEncodeCollective),
                   "rank ", peer, ", ring: a frame of kind ", frame.kind);
    const FrameKey key{static_cast<FrameKind>(frame.kind), frame.epoch, frame.sequence, frame.item};
    mailbox.deliver(peer, key, frame.offset, frame.total, front->first.data(), front->first.size());
    if (!front->second.empty())
      mailbox.deliver(peer, key, frame.offset + front->first.size(), frame.total,
                      front->second.data(), front->second.size());
    if (ring.pop(*front)) rouse(head_of(*peers_[peer].file).waits_for);
  }
}

// Takes this rank's bit; whoever takes the last one wakes the sleeper.
void SharedLinks::announce(int peer) {
  Word& word = head_of(*peers_[peer].file).waits_for;
  const uint32_t bit = 1u << settings_.rank;
  if ((word.load() & bit) == 0) return;
  if (word.fetch_and(~bit) == bit) futex_wake(word);
}

uint64_t SharedLinks::send(Mailbox& mailbox, int peer, const FrameKey& key, const uint8_t* data,
                           size_t bytes, Clock::time_point deadline) {
  const size_t piece = std::min(kPieceBytes, settings_.ring_bytes / 4);
  tell_core();
  uint64_t waited = 0;
  size_t offset = 0;
  do {
    const size_t part = std::min(piece, bytes - offset);
    if (!peers_[peer].to.has_room(part)) waited += await_room(mailbox, peer, key, part, deadline);
    peers_[peer].to.write({static_cast<uint32_t>(key.kind), static_cast<uint32_t>(part), key.epoch,
                           key.sequence, key.item, offset, bytes},
                          data + offset);
    offset += part;
  } while (offset < bytes);
  // A sleeper wakes for the whole tensor, or when the ring is full; who polls has begun to read.
  announce(peer);
  return waited;
}

uint64_t SharedLinks::await_room(Mailbox& mailbox, int peer, const FrameKey& key, size_t bytes,
                                 Clock::time_point deadline) {
  const Clock::time_point start = Clock::now();
  Ring& ring = peers_[peer].to;
  while (true) {
    // Who waits for this rank's room may be whom this rank waits for.
    deliver_all(mailbox);
    const uint64_t seen = mailbox.arrivals();
    mailbox.check_running();
    if (ring.has_room(bytes)) break;
    ring.set_producer_waits(true);
    if (ring.has_room(bytes)) break;
    rouse(head_of(*peers_[peer].file).waits_for);
    if (!wait(kNobody | 1u << peer, deadline,
              [&] { return ring.has_room(bytes) || mailbox.arrivals() != seen; }))
      throw Error(
          "PEER_TIMEOUT",
          "rank " + std::to_string(peer) + " did not read in time (" + place_name(key) + ")", peer);
  }
  ring.set_producer_waits(false);
  return std::chrono::nanoseconds(Clock::now() - start).count();
}

// The core this thread is on, for peers to know.
int SharedLinks::tell_core() {
  const int core = ::sched_getcpu();
  std::atomic<int>& told = head_of(*own_).core;
  if (told.load(std::memory_order_relaxed) != core) told.store(core, std::memory_order_relaxed);
  return core;
}

// Whether a rank of `mask` is on the core: it runs when this one sleeps, not while it polls.
bool SharedLinks::is_on(int core, uint32_t mask) const {
  for (const int peer : started_)
    if ((mask >> peer & 1) != 0 &&
        head_of(*peers_[peer].file).core.load(std::memory_order_relaxed) == core)
      return true;
  return false;
}

bool SharedLinks::wait(uint32_t mask, Clock::time_point deadline,
                       const std::function<bool()>& changed) {
  const auto ready = [&] { return anything() || changed(); };
  const Clock::time_point polled = Clock::now() + std::chrono::microseconds(spin_us_);
  const int core = tell_core();
  while (!is_on(core, mask) && Clock::now() < polled) {
    if (ready()) return true;
    relax();
  }
  Word& word = head_of(*own_).waits_for;
  word.store(mask);
  bool came = ready();
  while (!came && Clock::now() < deadline) {
    const uint32_t now = word.load();
    if (now == 0) break;
    futex_wait(word, now, deadline);
    came = ready();
  }
  const bool woken = word.exchange(0) == 0;
  return came || woken;
}

void SharedLinks::wake() { rouse(head_of(*own_).waits_for); }

}  // namespace tessera
