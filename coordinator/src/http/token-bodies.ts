/** Bodies of /tokenize and /detokenize. */
import { ServeError } from "@tessera/proto";
import { asObject, Body, refuseUnknown, type Json } from "@tessera/proto/openai";

export type AskedTokens = { strings: boolean } & (
  | { model: string | undefined; prompt: string }
  /** What of a chat body makes the prompt. */
  | { chat: Json }
);

const OF_PROMPT = ["model", "prompt", "add_special_tokens", "return_token_strs"];
const OF_CHAT = [
  "model",
  "messages",
  "tools",
  "add_generation_prompt",
  "continue_final_message",
  "add_special_tokens",
  "return_token_strs",
];

/** @throws ServeError INVALID_ARGUMENT */
export function readTokenize(value: unknown): AskedTokens {
  const json = asObject(value, "body");
  const body = new Body(json);
  const strings = body.flag("return_token_strs") === true;
  // The model's text has no token at its beginning or end, whatever this says.
  body.flag("add_special_tokens");
  if (json["messages"] !== undefined) {
    if (json["prompt"] !== undefined) throw ServeError.field("prompt", "is given beside messages");
    refuseUnknown(json, OF_CHAT);
    const { add_special_tokens: _special, return_token_strs: _strings, ...chat } = json;
    return { strings, chat };
  }
  refuseUnknown(json, OF_PROMPT);
  const prompt = body.text("prompt");
  if (prompt === undefined) throw ServeError.field("prompt", "is missing, and so are messages");
  return { strings, model: body.text("model"), prompt };
}

/** @throws ServeError INVALID_ARGUMENT */
export function readDetokenize(value: unknown): { model: string | undefined; tokens: number[] } {
  const json = asObject(value, "body");
  refuseUnknown(json, ["model", "tokens"]);
  const body = new Body(json);
  if (json["tokens"] === undefined) throw ServeError.field("tokens", "is missing");
  return { model: body.text("model"), tokens: body.ids("tokens") };
}
