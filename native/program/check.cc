#include "core/check.h"

#include "ops/ops.h"
#include "program/program.h"

namespace tessera {

namespace {

const char* per_name(Per per) {
  switch (per) {
    case Per::kToken:
      return "token";
    case Per::kWanted:
      return "wanted";
    case Per::kTile:
      return "tile";
    case Per::kStream:
      break;
  }
  return "stream";
}

// Checks one op of a program; every message names the op and the field.
class OpCheck {
 public:
  OpCheck(const Program& program, const EngineSpec& spec, const Op& op)
      : program_(program), spec_(spec), op_(op) {}

  void run() const {
    if (reads_x()) width(op_.x, "x");
    if (writes_out()) width(op_.out, "out");
    rows();
    switch (op_.kind) {
      case OpKind::kLinear:
        return linear();
      case OpKind::kRmsNorm:
      case OpKind::kLayerNorm:
        return norm();
      case OpKind::kResidual:
        return residual();
      case OpKind::kRmsNormHeads:
        return heads_norm();
      case OpKind::kSumSquaresHeads:
        return heads_sum();
      case OpKind::kScaleHeads:
        return heads_scale();
      case OpKind::kVisionAttention:
      case OpKind::kRope:
      case OpKind::kWriteCache:
      case OpKind::kAttention:
        return attention();
      case OpKind::kWriteCrossCache:
      case OpKind::kCrossAttention:
        return cross();
      case OpKind::kNormEachHead:
        return each_head();
      case OpKind::kGatedResidual:
        return residual();
      case OpKind::kHead:
        return head();
      default:
        return layout();
    }
  }

  bool reads_x() const { return op_.kind != OpKind::kPatchify && op_.kind != OpKind::kEmbedTokens; }
  bool writes_out() const {
    switch (op_.kind) {
      case OpKind::kRmsNormHeads:
      case OpKind::kScaleHeads:
      case OpKind::kStoreEmbeddings:
      case OpKind::kSpliceImages:
      case OpKind::kRope:
      case OpKind::kWriteCache:
      case OpKind::kHead:
      case OpKind::kWriteCrossCache:
      case OpKind::kNormEachHead:
        return false;
      default:
        return true;
    }
  }

 private:
  // Rows of what an op reads and writes, for each token, wanted row or tile.
  void rows() const {
    const int grid = op_.kind == OpKind::kPatchify && op_.patch_size > 0
                         ? op_.tile_size / op_.patch_size
                         : op_.grid;
    switch (op_.kind) {
      case OpKind::kPatchify:
        return shape(op_.out, Per::kTile, grid * grid);
      case OpKind::kAssemblePatches:
        shape(op_.x, Per::kTile, program_.buffers[op_.x].rows);
        return shape(op_.out, Per::kTile, program_.buffers[op_.x].rows + 1);
      case OpKind::kPixelShuffle:
        CHECK_ARGUMENT(grid > 0 && grid % 2 == 0, op_.name, ".grid: ", grid, ", must be even");
        shape(op_.x, Per::kTile, grid * grid + 1);
        return shape(op_.out, Per::kTile, grid / 2 * (grid / 2));
      case OpKind::kStoreEmbeddings:
        return shape(op_.x, Per::kTile, spec_.embedding_rows);
      case OpKind::kRmsNormHeads:
        return shape(op_.x, Per::kTile, program_.buffers[op_.x].rows);
      case OpKind::kScaleHeads:
        width(op_.sums, "sums");
        shape(op_.x, Per::kTile, program_.buffers[op_.x].rows);
        return shape(op_.sums, Per::kTile, program_.buffers[op_.x].rows);
      case OpKind::kVisionAttention:
        shape(op_.x, Per::kTile, program_.buffers[op_.x].rows);
        return same_rows();
      case OpKind::kEmbedTokens:
        return shape(op_.out, text_or_stream(op_.out), 1);
      case OpKind::kSpliceImages:
        return shape(op_.x, text_or_stream(op_.x), 1);
      case OpKind::kNormEachHead:
        return shape(op_.x, text_or_stream(op_.x), 1);
      case OpKind::kWriteCrossCache:
        return shape(op_.x, Per::kStream, 1);
      case OpKind::kCrossAttention:
        shape(op_.x, Per::kToken, 1);
        return shape(op_.out, Per::kToken, 1);
      case OpKind::kRope:
      case OpKind::kWriteCache:
        return shape(op_.x, Per::kToken, 1);
      case OpKind::kAttention:
        shape(op_.x, Per::kToken, 1);
        return shape(op_.out, Per::kToken, 1);
      case OpKind::kGatherRows:
        shape(op_.x, Per::kToken, 1);
        return shape(op_.out, Per::kWanted, 1);
      case OpKind::kHead:
        return shape(op_.x, Per::kWanted, 1);
      default:
        return same_rows();
    }
  }
  // Token ids and images stand in the text and in streams.
  Per text_or_stream(int id) const {
    return program_.buffers[id].per == Per::kStream ? Per::kStream : Per::kToken;
  }
  void shape(int id, Per per, int rows) const {
    const BufferSpec& buffer = program_.buffers[id];
    CHECK_ARGUMENT(buffer.per == per && buffer.rows == rows, op_.name, ": buffer ", buffer.name,
                   " has ", buffer.rows, " rows per ", per_name(buffer.per), ", must have ", rows,
                   " per ", per_name(per));
  }
  void same_rows() const {
    const BufferSpec& x = program_.buffers[op_.x];
    shape(op_.out, x.per, x.rows);
  }
  int width(int id, const char* field) const {
    CHECK_ARGUMENT(id >= 0 && id < static_cast<int>(program_.buffers.size()), op_.name, ".", field,
                   ": buffer ", id, " of ", program_.buffers.size());
    return program_.buffers[id].width;
  }
  const WeightSpec& weight(int id, WeightKind kind, const char* field) const {
    CHECK_ARGUMENT(id >= 0 && id < static_cast<int>(program_.weights.size()), op_.name, ".", field,
                   ": weight ", id, " of ", program_.weights.size());
    CHECK_ARGUMENT(program_.weights[id].kind == kind, op_.name, ".", field, ": weight ",
                   program_.weights[id].name, " is of another kind");
    return program_.weights[id];
  }
  void same(int64_t value, int64_t wanted, const char* what) const {
    CHECK_ARGUMENT(value == wanted, op_.name, " ", op_.label, ": ", what, " is ", value,
                   ", must be ", wanted);
  }
  void vector(int id, int length, const char* field) const {
    same(weight(id, WeightKind::kVector, field).outputs, length, field);
  }
  const WeightSpec& table(int id, int columns) const {
    const WeightSpec& spec = weight(id, WeightKind::kTable, "table");
    same(spec.inputs, columns, "table width");
    return spec;
  }
  void linear() const {
    const WeightSpec& spec = weight(op_.weight, WeightKind::kLinear, "weight");
    // A rank's lanes of wider rows.
    if (op_.part)
      CHECK_ARGUMENT(op_.column >= 0 && op_.column <= width(op_.x, "x") - spec.inputs, op_.name,
                     " ", op_.label, ": columns ", op_.column, " + ", spec.inputs, " of ",
                     width(op_.x, "x"));
    else
      same(spec.inputs, width(op_.x, "x"), "inputs");
    same(spec.outputs, width(op_.out, "out"), "outputs");
    if (op_.bias >= 0) vector(op_.bias, spec.outputs, "bias");
    CHECK_ARGUMENT(!(op_.partial && (op_.bias >= 0 || op_.gelu)), op_.name,
                   ": a partial sum takes neither bias nor epilogue");
    const size_t lanes = spec.lane_starts.empty() ? 0 : spec.lane_starts.size() - 1;
    CHECK_ARGUMENT(lanes == 1 || lanes == 2 || lanes == 4 || lanes == 8, spec.name, ": ", lanes,
                   " lanes, must be 1, 2, 4 or 8");
    same(spec.lane_starts.front(), 0, "first lane");
    same(spec.lane_starts.back(), spec.inputs, "end of the last lane");
    for (size_t i = 0; i < lanes; ++i)
      CHECK_ARGUMENT(spec.lane_starts[i] <= spec.lane_starts[i + 1], spec.name, ": lanes fall");
  }
  void norm() const {
    const int dim = width(op_.x, "x");
    same(width(op_.out, "out"), dim, "out width");
    vector(op_.weight, dim, "weight");
    if (op_.kind == OpKind::kLayerNorm) vector(op_.bias, dim, "bias");
  }
  void residual() const {
    const int dim = width(op_.x, "y");
    same(width(op_.out, "h"), dim, "h width");
    if (op_.bias >= 0) vector(op_.bias, dim, "bias");
    if (op_.scale_weight >= 0) vector(op_.scale_weight, dim, "scale");
    if (op_.kind == OpKind::kGatedResidual && op_.weight >= 0) vector(op_.weight, 1, "gate");
  }
  void cross() const {
    head_dim();
    const bool write = op_.kind == OpKind::kWriteCrossCache;
    same(op_.kv_heads, spec_.cross.kv_heads, "kvHeads");
    same(op_.head_dim, spec_.cross.head_dim, "headDim");
    CHECK_ARGUMENT(op_.layer >= 0 && op_.layer < spec_.cross.layers, op_.name,
                   ".layer: ", op_.layer, " of ", spec_.cross.layers);
    if (write) return same(width(op_.x, "x"), 2 * op_.kv_heads * op_.head_dim, "x width");
    CHECK_ARGUMENT(op_.kv_heads > 0 && op_.heads % op_.kv_heads == 0, op_.name,
                   ".heads: ", op_.heads, " is no multiple of kvHeads ", op_.kv_heads);
    same(width(op_.x, "x"), op_.heads * op_.head_dim, "x width");
    same(width(op_.out, "out"), op_.heads * op_.head_dim, "out width");
  }
  void each_head() const {
    head_dim();
    vector(op_.weight, op_.head_dim, "weight");
    CHECK_ARGUMENT(op_.heads > 0 && op_.column >= 0 &&
                       op_.column + op_.heads * op_.head_dim <= width(op_.x, "x"),
                   op_.name, ": columns beyond x");
  }
  void head_dim() const {
    CHECK_ARGUMENT(op_.head_dim >= 16 && op_.head_dim <= 256 && op_.head_dim % 16 == 0, op_.name,
                   ".headDim: ", op_.head_dim, ", must be a multiple of 16 up to 256");
  }
  void heads_norm() const {
    head_dim();
    same(static_cast<int>(op_.group_starts.size()), kMaxLanes + 1, "groupStarts");
    const int dim = op_.group_starts.back() * op_.head_dim;
    vector(op_.weight, dim, "weight");
    CHECK_ARGUMENT(op_.column >= 0 && op_.column + dim <= width(op_.x, "x"), op_.name,
                   ": columns beyond x");
  }
  void columns(int heads) const {
    CHECK_ARGUMENT(
        heads > 0 && op_.column >= 0 && op_.column <= width(op_.x, "x") - heads * op_.head_dim,
        op_.name, ": columns beyond x");
  }
  void sum_column(int buffer) const {
    CHECK_ARGUMENT(op_.sum_column >= 0 && op_.sum_column < width(buffer, "sums"), op_.name,
                   ".sumColumn: ", op_.sum_column, " of ", width(buffer, "sums"));
  }
  void heads_sum() const {
    head_dim();
    const int groups = static_cast<int>(op_.group_starts.size()) - 1;
    CHECK_ARGUMENT(groups == 1 || groups == 2 || groups == 4 || groups == 8, op_.name, ": ", groups,
                   " groups, must be 1, 2, 4 or 8");
    same(op_.group_starts.front(), 0, "first group");
    for (int i = 0; i < groups; ++i)
      CHECK_ARGUMENT(op_.group_starts[i] <= op_.group_starts[i + 1], op_.name, ": groups fall");
    columns(op_.group_starts.back());
    sum_column(op_.out);
  }
  void heads_scale() const {
    head_dim();
    columns(op_.heads);
    sum_column(op_.sums);
    vector(op_.weight, op_.heads * op_.head_dim, "weight");
    CHECK_ARGUMENT(op_.total_heads >= op_.heads, op_.name, ".totalHeads: ", op_.total_heads,
                   ", the rank has ", op_.heads);
  }
  void attention() const {
    head_dim();
    const bool vision = op_.kind == OpKind::kVisionAttention;
    const int kv = vision ? op_.heads : op_.kv_heads;
    CHECK_ARGUMENT(kv > 0 && op_.heads % kv == 0, op_.name, ".heads: ", op_.heads,
                   " is no multiple of kvHeads ", kv);
    same(width(op_.x, "qkv"), (op_.heads + 2 * kv) * op_.head_dim, "qkv width");
    if (op_.out >= 0) same(width(op_.out, "out"), op_.heads * op_.head_dim, "out width");
    if (vision || op_.kind == OpKind::kRope) return;
    same(kv, spec_.kv_heads, "kvHeads");
    same(op_.head_dim, spec_.head_dim, "headDim");
    CHECK_ARGUMENT(op_.layer >= 0 && op_.layer < spec_.layers, op_.name, ".layer: ", op_.layer,
                   " of ", spec_.layers);
  }
  void head() const {
    for (const VocabularyLane& lane : op_.lanes)
      CHECK_ARGUMENT(lane.column >= 0 && lane.count >= 0 && lane.first_id >= 0 &&
                         lane.count <= width(op_.x, "logits") - lane.column &&
                         lane.count <= spec_.vocabulary - lane.first_id,
                     "head: lane ", lane.lane, " lies outside the logits");
  }
  void layout() const {
    switch (op_.kind) {
      case OpKind::kPatchify:
        CHECK_ARGUMENT(op_.patch_size > 0 && op_.tile_size == spec_.tile_size &&
                           op_.tile_size % op_.patch_size == 0,
                       "patchify: patches of ", op_.patch_size, " in tiles of ", op_.tile_size);
        return same(width(op_.out, "out"), 3 * op_.patch_size * op_.patch_size, "out width");
      case OpKind::kAssemblePatches:
        vector(op_.weight, width(op_.out, "out"), "classEmbedding");
        same(width(op_.x, "x"), width(op_.out, "out"), "x width");
        return same(table(op_.bias, width(op_.out, "out")).outputs, program_.buffers[op_.out].rows,
                    "places");
      case OpKind::kPixelShuffle:
        return same(width(op_.out, "out"), 4 * width(op_.x, "x"), "out width");
      case OpKind::kGatherRows:
        return same(width(op_.out, "out"), width(op_.x, "x"), "out width");
      case OpKind::kSiluMul:
        return same(width(op_.x, "x"), 2 * width(op_.out, "out"), "x width");
      case OpKind::kEmbedTokens:
        CHECK_ARGUMENT(op_.first_id >= 0, op_.name, ".firstId: ", op_.first_id);
        table(op_.weight, width(op_.out, "out"));
        return;
      default:
        return same(width(op_.x, "x"), spec_.embedding_width, "width");
    }
  }

  const Program& program_;
  const EngineSpec& spec_;
  const Op& op_;
};

}  // namespace

namespace {

// Buffers as they are written; what is read must have been.
class Order {
 public:
  explicit Order(const Program& program) : program_(program), written_(program.buffers.size()) {}
  void read(int id, const std::string& by) const {
    CHECK_ARGUMENT(id >= 0 && id < static_cast<int>(written_.size()), by, ": buffer ", id, " of ",
                   written_.size());
    CHECK_ARGUMENT(written_[id], by, ": buffer ", program_.buffers[id].name,
                   " is read before it is written");
  }
  void write(int id) { written_[id] = true; }

 private:
  const Program& program_;
  std::vector<bool> written_;
};

void check_order(const Program& program, const EngineSpec& spec, const Segment& segment,
                 Order& order) {
  for (const Op& op : segment.ops) {
    const OpCheck check(program, spec, op);
    if (check.reads_x()) order.read(op.x, op.name);
    if (op.kind == OpKind::kScaleHeads) order.read(op.sums, op.name);
    const bool adds = op.kind == OpKind::kResidual || op.kind == OpKind::kGatedResidual;
    if (adds) order.read(op.out, op.name);
    if (check.writes_out()) order.write(op.out);
  }
  if (segment.all_reduce >= 0) order.read(segment.all_reduce, "all_reduce_add");
}

}  // namespace

void check_program(const Program& program, const EngineSpec& spec, const std::set<Per>& kinds) {
  constexpr int kMaxWidth = 1 << 24;
  for (const BufferSpec& buffer : program.buffers) {
    CHECK_ARGUMENT(buffer.rows > 0 && buffer.width > 0 && buffer.rows <= kMaxWidth &&
                       buffer.width <= kMaxWidth,
                   "buffer ", buffer.name, ": ", buffer.rows, " × ", buffer.width);
    CHECK_ARGUMENT(kinds.contains(buffer.per), "buffer ", buffer.name, ": rows per ",
                   per_name(buffer.per), " have no place in this program");
  }
  for (const WeightSpec& weight : program.weights)
    CHECK_ARGUMENT(weight.outputs > 0 && weight.inputs > 0, "weight ", weight.name, ": ",
                   weight.outputs, " × ", weight.inputs);
  Order order(program);
  for (const Segment& segment : program.segments) {
    for (const Op& op : segment.ops) OpCheck(program, spec, op).run();
    check_order(program, spec, segment, order);
  }
}

}  // namespace tessera
