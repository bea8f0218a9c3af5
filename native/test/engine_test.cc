#include <future>
#include <memory>

#include "test/tiny_model.h"

namespace tessera::testing {
namespace {

const std::vector<int> kPrompt = {5, 80, 33, 2, 61, 17, 90, 44, 12};

bool same(const HeadCandidate& a, const HeadCandidate& b) {
  return a.token_id == b.token_id && same_bits({a.raw, a.scaled}, {b.raw, b.scaled});
}

// Eight greedy tokens after the prompt, the prompt in pieces of `chunk`.
std::vector<HeadCandidate> generate(TinyGroup& group, int chunk) {
  std::vector<HeadCandidate> made;
  uint64_t step = 1;
  const int count = static_cast<int>(kPrompt.size());
  HeadCandidate best{};
  for (int first = 0; first < count; first += chunk) {
    const int end = std::min(first + chunk, count);
    best = group.step(
        tiny_step(step++, {kPrompt.begin() + first, kPrompt.begin() + end}, first, first == 0));
  }
  for (int i = 0; i < 8; ++i) {
    made.push_back(best);
    best = group.step(tiny_step(step++, {best.token_id}, count + i, false));
  }
  return made;
}

TEST("an engine: one rank and two ranks, whole and in chunks, give the same bits") {
  TinyGroup one(1);
  one.begin(1);
  const auto wanted = generate(one, 100);
  for (const int size : {1, 2})
    for (const int chunk : {1, 4, 100}) {
      TinyGroup group(size);
      group.begin(1);
      const auto got = generate(group, chunk);
      for (size_t i = 0; i < wanted.size(); ++i)
        EXPECT(same(got[i], wanted[i]), size, " ranks, chunks of ", chunk, ", token ", i);
    }
}

TEST("a block that was copied serves another sequence as its own would") {
  for (const CacheType type : {CacheType::kF32, CacheType::kBf16, CacheType::kInt8}) {
    PlacementSpec placement = tiny_placement();
    placement.kv_type = type;
    TinyGroup group(2);
    group.begin(1, placement);
    const HeadCandidate wanted = group.step(tiny_step(1, kPrompt, 0, true));
    const int count = static_cast<int>(kPrompt.size());
    StepPlan fork = tiny_step(2, {kPrompt.back()}, count - 1, false);
    fork.opened.push_back({8, count, {kPrompt.begin(), kPrompt.end() - 1}, {}});
    fork.slices[0].sequence_id = 8;
    fork.slices[0].block_ids = {4, 5};
    fork.copied_blocks = {{0, 4}};
    EXPECT(same(group.step(fork), wanted), "type ", static_cast<int>(type));
  }
}

TEST("a cache in bf16 and in int8 gives one answer at every width and chunk") {
  for (const CacheType type : {CacheType::kBf16, CacheType::kInt8}) {
    PlacementSpec placement = tiny_placement();
    placement.kv_type = type;
    placement.spin_us = 50;
    TinyGroup one(1), two(2);
    one.begin(1, placement);
    two.begin(1, placement);
    const auto a = generate(one, 3), b = generate(two, 100);
    for (size_t i = 0; i < a.size(); ++i) EXPECT(same(a[i], b[i]), "token ", i);
  }
}

TEST("a bf16 wire: both ranks agree") {
  PlacementSpec placement = tiny_placement();
  placement.kv_type = CacheType::kBf16;
  placement.wire_bf16 = true;
  TinyGroup rounded(2);
  rounded.begin(1, placement);
  EXPECT(generate(rounded, 100).size() == 8);
}

TEST("the same step again is answered from a cache; a gap is refused") {
  TinyGroup group(2);
  group.begin(1);
  const StepPlan plan = tiny_step(1, kPrompt, 0, true);
  const HeadCandidate first = group.step(plan);
  EXPECT(same(group.step(plan), first));
  EXPECT_ERROR("INVALID_ARGUMENT", "step_id: 3, must be 2",
               group.step(tiny_step(3, {1}, 9, false)));
  EXPECT(same(group.step(plan), first), "a refused plan changes nothing");
}

TEST("a new epoch forgets sequences; an older one is refused") {
  TinyGroup group(2);
  group.begin(1);
  group.step(tiny_step(1, kPrompt, 0, true));
  EXPECT(group.engine(0).sequences() == 1);
  group.begin(2);
  EXPECT(group.engine(0).sequences() == 0 && group.engine(1).last_step() == 0);
  EXPECT_ERROR("EPOCH_ENDED", "epoch 1", group.step(tiny_step(2, {1}, 9, false)));
  EXPECT_ERROR("INVALID_ARGUMENT", "not above", group.begin(2));
}

// Code and rank of the error that the first step ends with, on the engine's own thread.
std::future<std::string> failure_of_first_step(Engine& engine) {
  auto said = std::make_shared<std::promise<std::string>>();
  engine.post([&engine, said] {
    try {
      engine.step(tiny_step(1, kPrompt, 0, true));
      said->set_value("nothing");
    } catch (const Error& error) {
      said->set_value(error.code() + " " + std::to_string(error.rank()));
    }
  });
  return said->get_future();
}

TEST("a rank that does not send: the others name it, and its epoch has ended") {
  TinyGroup group(2);
  PlacementSpec placement = tiny_placement();
  placement.collective_deadline_ms = 50;
  group.begin(1, placement);
  group.hold(1);
  std::future<std::string> said = failure_of_first_step(group.engine(0));
  EXPECT(said.get() == "PEER_TIMEOUT 1");
  EXPECT_ERROR("EPOCH_ENDED", "epoch 1", group.all([](Engine& engine, int rank) {
    if (rank == 0) engine.step(tiny_step(1, kPrompt, 0, true));
  }));
  group.hold(-1);
  group.begin(2);
}

TEST("a lost rank wakes who waits, naming it") {
  TinyGroup group(2);
  group.begin(1);
  group.hold(1);
  std::future<std::string> said = failure_of_first_step(group.engine(0));
  group.engine(0).end_epoch(1, 1);
  EXPECT(said.get() == "PEER_LOST 1");
}

TEST("plans that cannot be are refused with field and value") {
  TinyGroup group(1);
  group.begin(1);
  const auto refused = [&](const char* part, const std::function<void(StepPlan&)>& change) {
    StepPlan plan = tiny_step(1, kPrompt, 0, true);
    change(plan);
    EXPECT_ERROR("INVALID_ARGUMENT", part, group.step(plan));
  };
  using Plan = StepPlan;
  refused("token_ids: 96", [](Plan& p) { p.slices[0].token_ids[0] = 96; });
  refused("token_ids: -1", [](Plan& p) { p.slices[0].token_ids[0] = -1; });
  refused("positions 2147483647", [](Plan& p) { p.slices[0].start_position = 2147483647; });
  refused("block_ids: 8", [](Plan& p) { p.slices[0].block_ids[0] = 8; });
  refused("blocks for position", [](Plan& p) { p.slices[0].block_ids.clear(); });
  refused("first_block: 1", [](Plan& p) { p.slices[0].first_block = 1; });
  refused("is not open", [](Plan& p) { p.opened.clear(); });
  refused("twice", [](Plan& p) { p.slices.push_back(p.slices[0]); });
  refused("twice", [](Plan& p) { p.opened.push_back(p.opened[0]); });
  refused("wanted.row: 9", [](Plan& p) { p.slices[0].wanted[0].row = 9; });
  refused("candidates", [](Plan& p) { p.slices[0].wanted[0].candidates = -1; });
  refused("scored_token_ids: 96", [](Plan& p) { p.slices[0].wanted[0].scored_token_ids = {96}; });
  refused("masks: run of 3 from 4", [](Plan& p) { p.masks = {{{2, 4}, {4, 3}}}; });
  refused("wanted.mask: 1, the plan has 0", [](Plan& p) { p.slices[0].wanted[0].mask = 1; });
  refused("wanted.mask: -1", [](Plan& p) { p.slices[0].wanted[0].mask = -1; });
  refused("copied_blocks: 0 to 99", [](Plan& p) { p.copied_blocks = {{0, 99}}; });
  refused("copied_blocks: -1 to 0", [](Plan& p) { p.copied_blocks = {{-1, 0}}; });
  refused("masks: run of 97", [](Plan& p) { p.masks = {{{0, 97}}}; });
  refused("image_rows: rows 8 + 4", [](Plan& p) { p.slices[0].image_rows = {{8, 1, 0, 4, 0}}; });
  refused("image_rows: rows 0 + 2147483647", [](Plan& p) {
    p.slices[0].image_rows = {{0, 1, 0, 2147483647, 0}};
  });
  refused("encoder_rank: 1", [](Plan& p) { p.slices[0].image_rows = {{0, 1, 0, 4, 1}}; });
  refused("embedding 1: was not encoded here", [](Plan& p) {
    p.slices[0].image_rows = {{0, 1, 0, 4, 0}};
  });
  refused("released_step: 1 at step 1", [](Plan& p) { p.released_step = 1; });
  refused("prompt_length: 129", [](Plan& p) { p.opened[0].prompt_length = 129; });
  refused("opened.token_ids: 96", [](Plan& p) { p.opened[0].token_ids = {96}; });
  refused("temperature: -1", [](Plan& p) { p.opened[0].sampling.temperature = -1; });
  refused("repetition_penalty: 0", [](Plan& p) { p.opened[0].sampling.repetition_penalty = 0; });
  refused("logit_bias: id 96", [](Plan& p) { p.opened[0].sampling.logit_bias = {{96, 1}}; });
  refused("bad_words: -3", [](Plan& p) { p.opened[0].sampling.bad_words = {{1, -3}}; });
  refused("wanted: 5 rows, limit 4", [](Plan& p) {
    for (int i = 0; i < 4; ++i) p.slices[0].wanted.push_back(p.slices[0].wanted[0]);
  });
  EXPECT(group.step(tiny_step(1, kPrompt, 0, true)).token_id >= 0, "nothing was changed");
}

TEST("more_candidates: while the logits are kept, not after their release") {
  TinyGroup group(1);
  group.begin(1);
  StepPlan plan = tiny_step(1, kPrompt, 0, true);
  plan.slices[0].wanted[0].candidates = 4;
  group.step(plan);
  RowResult more{};
  group.all([&](Engine& engine, int) { more = engine.more_candidates({1, 7, 8, 40}); });
  EXPECT(more.lanes.size() == 2 && more.lanes[0].candidates.size() == 40);
  EXPECT_ERROR("INVALID_ARGUMENT", "count: 0", group.all([](Engine& engine, int) {
    engine.more_candidates({1, 7, 8, 0});
  }));
  group.step(tiny_step(2, {3}, 9, false));
  EXPECT_ERROR("INVALID_ARGUMENT", "not kept", group.all([](Engine& engine, int) {
    engine.more_candidates({1, 7, 8, 4});
  }));
}

TEST("logits are kept over as many steps as may be in flight") {
  TinyGroup group(1);
  PlacementSpec placement = tiny_placement();
  placement.max_steps_in_flight = 2;
  group.begin(1, placement);
  StepPlan first = tiny_step(1, kPrompt, 0, true), second = tiny_step(2, {3}, 9, false);
  first.slices[0].wanted[0].candidates = second.slices[0].wanted[0].candidates = 4;
  second.released_step = 0;
  group.step(first);
  group.step(second);
  group.all([](Engine& engine, int) {
    engine.more_candidates({1, 7, 8, 8});
    engine.more_candidates({2, 7, 0, 8});
  });
  StepPlan third = tiny_step(3, {4}, 10, false);
  third.released_step = 0;
  EXPECT_ERROR("INVALID_ARGUMENT", "released_step: 0 at step 3", group.step(third));
}

TileInput tile(uint64_t id) {
  TileInput out{id, std::vector<uint8_t>(3 * kTinyTile * kTinyTile), {}};
  for (size_t i = 0; i < out.u8.size(); ++i) out.u8[i] = static_cast<uint8_t>(i * 5 + id * 31);
  return out;
}

// The prompt with rows 2 … 5 from embedding `id`, made by `encoder`.
StepPlan with_image(uint64_t id, int encoder) {
  StepPlan plan = tiny_step(1, kPrompt, 0, true);
  plan.slices[0].image_rows = {{2, id, 0, 4, encoder}};
  return plan;
}

void encode(TinyGroup& group, int rank, uint64_t id) {
  group.all([&](Engine& engine, int at) {
    if (at == rank) engine.encode({1, id, 0, {tile(id)}, {}});
  });
}

TEST("an image encoded by either rank gives the bits of one rank alone") {
  TinyGroup one(1);
  one.begin(1);
  encode(one, 0, 3);
  const HeadCandidate wanted = one.step(with_image(3, 0));
  TinyGroup plain(1);
  plain.begin(1);
  EXPECT(!same(plain.step(tiny_step(1, kPrompt, 0, true)), wanted), "the image is seen");
  for (const int encoder : {0, 1}) {
    TinyGroup two(2);
    two.begin(1);
    encode(two, encoder, 3);
    EXPECT(same(two.step(with_image(3, encoder)), wanted), "encoder ", encoder);
    EXPECT(two.engine(0).embeddings() == 1 && two.engine(1).embeddings() == 1);
    two.all([](Engine& engine, int) { engine.release({7}, {3}); });
    EXPECT(two.engine(0).embeddings() + two.engine(1).embeddings() == 0);
  }
}

TEST("a cut encoder: both ranks hold the embedding that one rank computes alone") {
  TinyGroup one(1);
  one.begin(1);
  encode(one, 0, 3);
  const HeadCandidate wanted = one.step(with_image(3, 0));
  TinyGroup two(2, TinyVision::kCut);
  two.begin(1);
  two.all([](Engine& engine, int) {
    const EncodeOutcome outcome = engine.encode({1, 5, 0, {tile(3)}, {}});
    EXPECT(outcome.exchange_bytes == 4 * kTinyHidden * sizeof(float));
  });
  EXPECT(two.engine(0).embeddings() == 1 && two.engine(1).embeddings() == 1);
  // Step 1 comes after encode 5: their collectives are counted apart.
  EXPECT(same(two.step(with_image(3, 0)), wanted));
  EXPECT_ERROR("INVALID_ARGUMENT", "encode_id: 5, must be above 5",
               two.all([](Engine& engine, int) {
                 engine.encode({1, 5, 0, {tile(4)}, {}});
               }));
  two.all([](Engine& engine, int) { engine.encode({1, 6, 0, {tile(4)}, {}}); });
}

TEST("a cut encoder whose peer does not come: it is named, and the epoch has ended") {
  TinyGroup two(2, TinyVision::kCut);
  two.begin(1);
  EXPECT_ERROR("PEER_TIMEOUT", "rank 1 did not send in time (encode 1, call 0)",
               two.all([](Engine& engine, int rank) {
                 if (rank == 0) engine.encode({1, 1, 50, {tile(3)}, {}});
               }));
  EXPECT_ERROR("EPOCH_ENDED", "epoch 1", two.all([](Engine& engine, int rank) {
    if (rank == 0) engine.step(tiny_step(1, kPrompt, 0, true));
  }));
}

TEST("ranks that only encode: their embeddings reach the others, and they take no steps") {
  TinyGroup one(1);
  one.begin(1);
  encode(one, 0, 3);
  const HeadCandidate wanted = one.step(with_image(3, 0));
  for (const int size : {1, 2})
    for (const int encoder : {size, size + 1}) {
      TinyGroup group(size, TinyVision::kWorkers, 2);
      group.begin(1);
      encode(group, encoder, 3);
      EXPECT(same(group.step(with_image(3, encoder)), wanted), size, " ranks, encoder ", encoder);
      for (int rank = 0; rank < size + 2; ++rank)
        EXPECT(group.engine(rank).embeddings() == (rank < size ? 1u : 0u), "rank ", rank);
      EXPECT(group.engine(encoder).info().cache_bytes == 0);
    }
  TinyGroup group(1, TinyVision::kWorkers, 1);
  group.begin(1);
  EXPECT_ERROR("INVALID_ARGUMENT", "tiles: rank 0 encodes none", encode(group, 0, 3));
  EXPECT_ERROR("INVALID_ARGUMENT", "rank 1 only encodes tiles",
               group.all([](Engine& engine, int rank) {
                 if (rank == 1) engine.step(tiny_step(1, kPrompt, 0, true));
               }));
  EXPECT_ERROR("INVALID_ARGUMENT", "encoder_rank: 2, the group has 2",
               group.step(with_image(3, 2)));
}

TEST("an encoder beyond the placement's, or with a program of steps, is refused") {
  const TinyWeights weights;
  EXPECT_ERROR("INVALID_ARGUMENT", "rank 1 of 1", {
    EngineSpec spec = tiny_spec(weights, 0, 1);
    spec.rank = 1;
    Engine engine(spec);
  });
  TinyGroup group(1, TinyVision::kWorkers, 1);
  EXPECT_ERROR("INVALID_ARGUMENT", "rank 1 is beyond 1 + 0",
               group.all([](Engine& engine, int) { engine.begin_epoch(1, tiny_placement()); }));
}

TEST("an embedding released before it comes leaves nothing, on its encoder and on its peers") {
  TinyGroup two(2);
  two.begin(1);
  two.all([](Engine& engine, int) { engine.release({}, {3}); });
  encode(two, 0, 3);
  EXPECT(two.engine(0).embeddings() == 0);
  std::vector<uint8_t> came;
  EXPECT(!two.engine(1).mailbox().take_embedding(3, &came));
  encode(two, 0, 4);
  EXPECT(two.engine(0).embeddings() == 1);
}

TEST("encodes beyond the limits are refused") {
  TinyGroup group(1);
  group.begin(1);
  EXPECT_ERROR("INVALID_ARGUMENT", "tiles: 3, limit 2", group.all([](Engine& engine, int) {
    engine.encode({1, 1, 0, {tile(1), tile(2), tile(3)}, {}});
  }));
  EXPECT_ERROR("INVALID_ARGUMENT", "values, must be 48", group.all([](Engine& engine, int) {
    engine.encode({1, 1, 0, {{1, std::vector<uint8_t>(47), {}}}, {}});
  }));
  for (uint64_t id = 1; id <= 3; ++id) encode(group, 0, id);
  EXPECT_ERROR("INVALID_ARGUMENT", "limit 3", encode(group, 0, 4));
}

TEST(
    "an engine that ends while a step waits: the step fails with EPOCH_ENDED, later calls with "
    "CLOSED") {
  const TinyWeights weights;
  auto engine = std::make_unique<Engine>(tiny_spec(weights, 0, 2));
  struct Silent : Exchange {
    void send(OutFrame) override {}
  } silent;
  engine->set_exchange(&silent);
  std::promise<std::string> said;
  Engine* at = engine.get();
  engine->post([&, at] {
    try {
      at->load([](uint64_t, uint64_t) {});
      at->begin_epoch(1, tiny_placement());
      at->step(tiny_step(1, kPrompt, 0, true));
      said.set_value("nothing");
    } catch (const Error& error) {
      said.set_value(error.code());
    }
  });
  engine->stop();
  EXPECT_ERROR("CLOSED", "closed", engine->post([] {}));
  engine.reset();
  const std::string code = said.get_future().get();
  EXPECT(code == "EPOCH_ENDED" || code == "CLOSED", code);
}

TEST("jobs that wait are bounded") {
  const TinyWeights weights;
  Engine engine(tiny_spec(weights, 0, 1));
  std::promise<void> go;
  auto gate = go.get_future().share();
  engine.post([gate] { gate.wait(); });
  std::string got;
  for (int i = 0; i < 2000 && got.empty(); ++i) try {
      engine.post([] {});
    } catch (const Error& error) {
      got = error.what();
    }
  go.set_value();
  EXPECT(got.find("limit 1024") != std::string::npos, got);
}

TEST("weights: missing, short, not finite or not zero where they must be") {
  TinyWeights weights;
  const auto loading = [&](const std::function<void(EngineSpec&)>& change) {
    EngineSpec spec = tiny_spec(weights, 0, 1);
    change(spec);
    Engine engine(spec);
    std::promise<void> done;
    engine.post([&] {
      try {
        engine.load([](uint64_t, uint64_t) {});
        done.set_value();
      } catch (...) {
        done.set_exception(std::current_exception());
      }
    });
    done.get_future().get();
  };
  loading([](EngineSpec&) {});
  EXPECT_ERROR("BAD_MODEL", "tensor o: missing",
               loading([](EngineSpec& spec) { spec.tensors.erase("o"); }));
  EXPECT_ERROR("BAD_MODEL", "ends at byte",
               loading([](EngineSpec& spec) { spec.tensors["o"].offset += 1 << 20; }));
  EXPECT_ERROR("BAD_MODEL", "type I8 is not supported",
               loading([](EngineSpec& spec) { spec.tensors["o"].dtype = "I8"; }));
  EXPECT_ERROR("BAD_MODEL", "does not hold rows",
               loading([](EngineSpec& spec) { spec.step.weights[3].pieces[0].row_start = 1; }));
  EXPECT_ERROR("BAD_MODEL", "dummy head is not zero", loading([](EngineSpec& spec) {
                 spec.step.weights[3].zeros = {{"o", 0, 1, 0, 64}};
               }));
  EXPECT_ERROR("BAD_MODEL", "cannot be opened",
               loading([](EngineSpec& spec) { spec.tensors["o"].path = "/nowhere/at/all"; }));
}

}  // namespace
}  // namespace tessera::testing
