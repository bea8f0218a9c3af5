/** Events → a whole answer. */
import { clone, create } from "@bufbuild/protobuf";
import {
  ChoiceSchema,
  GenerateOnceResponseSchema,
  ToolCallSchema,
  type Choice,
  type Event,
  type GenerateOnceResponse,
  type ToolCall,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { Reader } from "./event-log.js";

/** The first piece of a call has its id and name; all have more of its arguments. */
function addCall(choice: Choice, piece: ToolCall): void {
  const known = choice.toolCalls.find(({ index }) => index === piece.index);
  // A copy: the piece is the event's.
  if (known === undefined) choice.toolCalls.push(clone(ToolCallSchema, piece));
  else known.arguments += piece.arguments;
}

export class Collector {
  readonly response: GenerateOnceResponse = create(GenerateOnceResponseSchema);

  private choice(index: number): Choice {
    const known = this.response.choices.find((choice) => choice.index === index);
    if (known !== undefined) return known;
    const fresh = create(ChoiceSchema, { index });
    this.response.choices.push(fresh);
    return fresh;
  }
  take(event: Event): void {
    const { kind } = event;
    if (kind.case === "started") this.response.started = kind.value;
    if (kind.case === "delta") {
      const choice = this.choice(kind.value.choice);
      choice.text += kind.value.text;
      choice.tokenIds.push(...kind.value.tokenIds);
      choice.logprobs.push(...kind.value.logprobs);
      for (const piece of kind.value.toolCalls) addCall(choice, piece);
    }
    if (kind.case === "finished") this.choice(kind.value.choice).finished = kind.value;
    if (kind.case !== "done") return;
    if (kind.value.usage !== undefined) this.response.usage = kind.value.usage;
    if (kind.value.timings !== undefined) this.response.timings = kind.value.timings;
    this.response.choices.sort((a, b) => a.index - b.index);
  }
}

/** A reader that takes all at once. */
export function collecting(collector: Collector, signal: AbortSignal): Reader {
  const take = (event: Event) => {
    collector.take(event);
    return true;
  };
  return { take, drained: () => Promise.resolve(), signal };
}
