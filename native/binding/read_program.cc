#include <unordered_map>

#include "binding/convert.h"
#include "core/check.h"

namespace tessera {

namespace {

const std::unordered_map<std::string, OpKind> kOps = {
    {"patchify", OpKind::kPatchify},
    {"linear", OpKind::kLinear},
    {"assemble_patches", OpKind::kAssemblePatches},
    {"rms_norm", OpKind::kRmsNorm},
    {"layer_norm", OpKind::kLayerNorm},
    {"rms_norm_heads", OpKind::kRmsNormHeads},
    {"sum_squares_heads", OpKind::kSumSquaresHeads},
    {"scale_heads", OpKind::kScaleHeads},
    {"vision_attention", OpKind::kVisionAttention},
    {"residual", OpKind::kResidual},
    {"pixel_shuffle", OpKind::kPixelShuffle},
    {"store_embeddings", OpKind::kStoreEmbeddings},
    {"embed_tokens", OpKind::kEmbedTokens},
    {"splice_images", OpKind::kSpliceImages},
    {"rope", OpKind::kRope},
    {"write_cache", OpKind::kWriteCache},
    {"attention", OpKind::kAttention},
    {"silu_mul", OpKind::kSiluMul},
    {"gather_rows", OpKind::kGatherRows},
    {"head", OpKind::kHead},
    {"write_cross_cache", OpKind::kWriteCrossCache},
    {"cross_attention", OpKind::kCrossAttention},
    {"norm_each_head", OpKind::kNormEachHead},
    {"gated_residual", OpKind::kGatedResidual},
};

const std::unordered_map<std::string, Per> kPers = {{"token", Per::kToken},
                                                    {"wanted", Per::kWanted},
                                                    {"tile", Per::kTile},
                                                    {"stream", Per::kStream}};

TensorPiece read_piece(const Fields& from) {
  const auto number = [&](const char* name) { return static_cast<int64_t>(from.number(name)); };
  return {from.text("tensor"), number("rowStart"), number("rowCount"), number("colStart"),
          number("colCount")};
}

WeightSpec read_weight(const Fields& from) {
  WeightSpec weight{};
  const std::string kind = from.text("kind");
  weight.name = from.text("name");
  weight.pieces = from.list<TensorPiece>("pieces", read_piece);
  if (from.has("zeros")) weight.zeros = from.list<TensorPiece>("zeros", read_piece);
  if (kind == "linear") {
    weight.kind = WeightKind::kLinear;
    weight.outputs = from.integer("outputs");
    weight.inputs = from.integer("inputs");
    weight.lane_starts = from.integers("laneStarts");
  } else if (kind == "vector") {
    weight.kind = WeightKind::kVector;
    weight.outputs = from.integer("length");
    weight.inputs = 1;
  } else {
    CHECK_ARGUMENT(kind == "table", from.path(), ".kind: ", kind, " is unknown");
    weight.kind = WeightKind::kTable;
    weight.outputs = from.integer("rows");
    weight.inputs = from.integer("width");
  }
  CHECK_ARGUMENT(weight.outputs > 0 && weight.inputs > 0, from.path(), ": an empty weight");
  return weight;
}

// The first of `names` that is set; −1 when none is.
int id_of(const Fields& from, std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (from.has(name)) return from.integer(name);
  return -1;
}

void read_numbers(const Fields& from, Op& op) {
  const auto whole = [&](const char* name, int& to) {
    if (from.has(name)) to = from.integer(name);
  };
  whole("heads", op.heads);
  whole("kvHeads", op.kv_heads);
  whole("headDim", op.head_dim);
  whole("layer", op.layer);
  whole("column", op.column);
  whole("tileSize", op.tile_size);
  whole("patchSize", op.patch_size);
  whole("grid", op.grid);
  whole("firstId", op.first_id);
  whole("sumColumn", op.sum_column);
  whole("totalHeads", op.total_heads);
  whole("sums", op.sums);
  if (from.has("eps")) op.eps = from.number("eps");
  if (from.has("theta")) op.theta = from.number("theta");
  op.part = from.has("column");
  if (from.has("share")) op.share = from.boolean("share");
  if (from.has("partial")) op.partial = from.boolean("partial");
  if (from.has("epilogue")) op.gelu = from.text("epilogue") == "gelu";
  if (from.has("order")) op.v2 = from.text("order") == "v2";
  if (from.has("groupStarts")) op.group_starts = from.integers("groupStarts");
}

Op read_op(const Fields& from) {
  Op op{};
  op.name = from.text("op");
  const auto found = kOps.find(op.name);
  CHECK_ARGUMENT(found != kOps.end(), from.path(), ".op: ", op.name, " is unknown");
  op.kind = found->second;
  if (from.has("label")) op.label = from.text("label");
  const bool residual = op.kind == OpKind::kResidual || op.kind == OpKind::kGatedResidual;
  op.x = residual ? id_of(from, {"y"}) : id_of(from, {"x", "qkv", "logits", "h"});
  op.out = residual ? id_of(from, {"h"}) : id_of(from, {"out"});
  op.weight = id_of(from, {"weight", "classEmbedding", "table", "gate"});
  op.on_sight = from.has("onSight") && from.boolean("onSight");
  op.bias = id_of(from, {"bias", "position"});
  read_numbers(from, op);
  if (residual) {
    op.scale_weight = id_of(from, {"scale"});
  } else if (from.has("scale")) {
    op.scale = from.number("scale");
  }
  if (from.has("lanes"))
    op.lanes = from.list<VocabularyLane>("lanes", [](const Fields& lane) {
      return VocabularyLane{lane.integer("lane"), lane.integer("firstId"), lane.integer("count"),
                            lane.integer("column")};
    });
  return op;
}

Program read_program(const Fields& from) {
  Program program;
  program.buffers = from.list<BufferSpec>("buffers", [](const Fields& buffer) {
    const std::string per = buffer.text("per");
    const auto found = kPers.find(per);
    CHECK_ARGUMENT(found != kPers.end(), buffer.path(), ".per: ", per, " is unknown");
    return BufferSpec{buffer.text("name"), found->second, buffer.integer("rows"),
                      buffer.integer("width")};
  });
  program.weights = from.list<WeightSpec>("weights", read_weight);
  program.segments = from.list<Segment>("segments", [](const Fields& segment) {
    Segment out{segment.list<Op>("ops", read_op), -1};
    if (!segment.has("collective")) return out;
    const Fields collective = segment.object("collective");
    out.all_reduce = collective.integer("buffer");
    out.all_reduce_on_sight = collective.has("onSight") && collective.boolean("onSight");
    return out;
  });
  return program;
}

}  // namespace

EngineSpec read_engine_spec(const Napi::Value& value) {
  const Fields from(value, "spec");
  EngineSpec spec{};
  spec.encode = read_program(from.object("encode"));
  spec.step = read_program(from.object("step"));
  if (from.has("stream")) {
    spec.stream = read_program(from.object("stream"));
    spec.stream.weights = spec.step.weights;
  }
  if (from.has("crossCache")) {
    const Fields cross = from.object("crossCache");
    spec.cross = {cross.integer("layers"), cross.integer("kvHeads"), cross.integer("headDim")};
  }
  const Fields tensors = from.object("tensors");
  const Napi::Array names = tensors.raw().GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = names.Get(i).ToString().Utf8Value();
    const Fields source = tensors.object(name.c_str());
    spec.tensors[name] = {source.text("path"),
                          source.text("dtype"),
                          static_cast<uint64_t>(source.number("offset")),
                          static_cast<uint64_t>(source.number("bytes")),
                          static_cast<int64_t>(source.number("rows")),
                          static_cast<int64_t>(source.number("cols"))};
  }
  spec.rank = from.integer("rank");
  spec.size = from.integer("size");
  spec.threads = from.integer("threads");
  const Fields cache = from.object("cache");
  spec.layers = cache.integer("layers");
  spec.kv_heads = cache.integer("kvHeads");
  spec.head_dim = cache.integer("headDim");
  spec.embedding_rows = from.object("embedding").integer("rows");
  spec.embedding_width = from.object("embedding").integer("width");
  spec.tile_size = from.object("tile").integer("size");
  spec.vocabulary = from.integer("vocabulary");
  return spec;
}

namespace {

CacheType read_cache_type(const Fields& from) {
  const std::string type = from.text("kvType");
  if (type == "f32") return CacheType::kF32;
  if (type == "bf16") return CacheType::kBf16;
  CHECK_ARGUMENT(type == "int8", "placement.kvType: \"", type, "\", must be f32, bf16 or int8");
  return CacheType::kInt8;
}

}  // namespace

PlacementSpec read_placement(const Napi::Value& value) {
  const Fields from(value, "placement");
  return {read_cache_type(from),
          from.text("wireType") == "bf16",
          from.integer("blockCount"),
          from.integer("maxBatchedTokens"),
          from.integer("maxSequences"),
          from.integer("maxWantedRows"),
          from.integer("maxTiles"),
          from.integer("maxEmbeddings"),
          from.integer("maxModelLen"),
          from.integer("maxStepsInFlight"),
          from.integer("selectableIds"),
          from.integer("collectiveDeadlineMs"),
          from.has("spinUs") ? from.integer("spinUs") : 0,
          from.has("maxStreamRows") ? from.integer("maxStreamRows") : 0,
          from.has("crossBlockCount") ? from.integer("crossBlockCount") : 0,
          from.has("encoders") ? from.integer("encoders") : 0};
}

}  // namespace tessera
