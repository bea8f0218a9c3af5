// Names of FrameKind in JavaScript.
#pragma once

#include <string>

#include "collective/mailbox.h"
#include "core/check.h"

namespace tessera {

inline const char* kind_text(FrameKind kind) {
  switch (kind) {
    case FrameKind::kEmbedding:
      return "embedding";
    case FrameKind::kEncodeCollective:
      return "encodeCollective";
    case FrameKind::kCollective:
      break;
  }
  return "collective";
}

inline FrameKind read_kind(const std::string& text) {
  for (const FrameKind kind :
       {FrameKind::kCollective, FrameKind::kEmbedding, FrameKind::kEncodeCollective})
    if (text == kind_text(kind)) return kind;
  throw Error("INVALID_ARGUMENT", "frame.kind: " + text + " is unknown");
}

}  // namespace tessera
