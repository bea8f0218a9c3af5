/** Messages or token ids → a prompt to render, and its images. */
import { MAX_IMAGE_TILES } from "@tessera/model";
import {
  ImageDetail,
  Role,
  type GenerateRequest,
  type Image,
  type Message,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { checkEntries, checkIds, quote, type Check, type CheckContext } from "./check-context.js";
import { checkImage } from "./image-decode.js";
import type { Turn, TurnPart } from "./prompt.js";
import { TOOL_NAME, type PromptCall } from "./tool-prompt.js";

export interface CheckedImage {
  data: Uint8Array;
  field: string;
  maxTiles: number;
}

/** `auto` and `high` cut as the reference does, by the picture's shape. */
const DETAILS = {
  [ImageDetail.UNSPECIFIED]: "auto",
  [ImageDetail.AUTO]: "auto",
  [ImageDetail.LOW]: "low",
  [ImageDetail.HIGH]: "high",
} as const;
const ROLES = {
  [Role.SYSTEM]: "system",
  [Role.USER]: "user",
  [Role.ASSISTANT]: "assistant",
  [Role.TOOL]: "tool",
} as const;

function checkImagePart(
  check: Check,
  image: Image,
  field: string,
  context: CheckContext,
): CheckedImage {
  check.attempt(() =>
    checkImage(image.data, {
      field: `${field}.data`,
      mediaType: image.mediaType,
      limits: context.limits.image,
    }),
  );
  const maxTiles = image.options?.maxTiles ?? context.defaultMaxTiles;
  check.range(`${field}.options.max_tiles`, maxTiles, 1, MAX_IMAGE_TILES);
  const detail = image.options?.detail ?? ImageDetail.UNSPECIFIED;
  if (!(detail in DETAILS))
    check.fail(`${field}.options.detail`, `is ${detail}, must be auto, low or high`);
  const low = detail === ImageDetail.LOW;
  if (low && (image.options?.maxTiles ?? 1) > 1)
    check.fail(`${field}.options.max_tiles`, `is ${maxTiles} beside detail low, which has 1`);
  return { data: image.data, field: `${field}.data`, maxTiles: low ? 1 : maxTiles };
}

function isJsonObject(text: string): boolean {
  try {
    const json: unknown = JSON.parse(text);
    return typeof json === "object" && json !== null && !Array.isArray(json);
  } catch {
    return false;
  }
}

/** Goes through a request's messages in order. */
class MessageCheck {
  readonly images: CheckedImage[] = [];
  /** Of the assistant's calls so far. */
  private readonly callIds = new Set<string>();

  constructor(
    private readonly check: Check,
    private readonly context: CheckContext,
  ) {}

  turn(message: Message, index: number): Turn {
    const field = `messages[${index}]`;
    const role = ROLES[message.role as keyof typeof ROLES] as Turn["role"] | undefined;
    if (role === undefined)
      this.check.fail(
        `${field}.role`,
        `is ${message.role}, must be system, user, assistant or tool`,
      );
    if (role === "system" && index > 0)
      this.check.fail(`${field}.role`, "is system, which only the first message may be");
    this.answered(message, field, role);
    const parts = this.parts(message, field, role);
    return { role: role ?? "user", parts, calls: this.calls(message, field, role) };
  }

  private parts(message: Message, field: string, role: Turn["role"] | undefined): TurnPart[] {
    return message.parts.flatMap((part, p): TurnPart[] => {
      const at = `${field}.parts[${p}]`;
      if (part.content.case === "text") return [{ kind: "text", text: part.content.value }];
      if (part.content.case === undefined) {
        this.check.fail(at, "is empty");
        return [];
      }
      if (role !== "user") this.check.fail(`${at}.image`, "is not in a message of role user");
      const { check, context, images } = this;
      images.push(checkImagePart(check, part.content.value, `${at}.image`, context));
      return [
        { kind: "image", image: images.length - 1 },
        { kind: "text", text: "\n" },
      ];
    });
  }

  private calls(message: Message, field: string, role: Turn["role"] | undefined): PromptCall[] {
    const { check, callIds } = this;
    const { toolCalls } = message;
    const at = `${field}.tool_calls`;
    if (toolCalls.length > 0 && role !== "assistant")
      check.fail(at, `are in a message of role ${role ?? message.role}, must be of assistant`);
    if (!checkEntries(check, at, toolCalls.length, this.context.limits.maxToolCalls)) return [];
    const here = new Set<string>();
    return toolCalls.map(({ id, name, arguments: text }, i) => {
      this.callId(`${at}[${i}].id`, id, here);
      callIds.add(id);
      if (!TOOL_NAME.test(name))
        check.fail(`${at}[${i}].name`, `is ${quote(name)}, must be 1…64 of a-z A-Z 0-9 _ -`);
      if (text.trim() !== "" && !isJsonObject(text))
        check.fail(`${at}[${i}].arguments`, `are ${quote(text)}, must be a JSON object`);
      return { name, arguments: text };
    });
  }

  /** `here`: the ids of the same message; another may have the same, as clients that count from 0 in each do. */
  private callId(field: string, id: string, here: Set<string>): void {
    const { maxToolCallIdLength: limit } = this.context.limits;
    if (id.length < 1 || id.length > limit)
      this.check.fail(field, `has ${id.length} characters, must have 1…${limit}`);
    else if (here.has(id)) this.check.fail(field, `is ${quote(id)}, which was there before`);
    here.add(id);
  }

  private answered(message: Message, field: string, role: Turn["role"] | undefined): void {
    const { toolCallId: id } = message;
    const at = `${field}.tool_call_id`;
    if (role !== "tool") {
      if (id !== undefined) this.check.fail(at, "is given in a message that is not of role tool");
    } else if (id === undefined || id === "") {
      this.check.fail(at, "is missing, a message of role tool must have it");
    } else if (!this.callIds.has(id)) {
      this.check.fail(at, `is ${quote(id)}, which no earlier call of the assistant has`);
    }
  }
}

export interface CheckedTurns {
  turns: Turn[];
  /** The last turn is the assistant's and is gone on with. */
  open: boolean;
}

function checkOpen(check: Check, request: GenerateRequest): boolean {
  const field = "continue_final_message";
  const last = request.messages.at(-1);
  if (request.continueFinalMessage !== true) return false;
  if (last?.role !== Role.ASSISTANT)
    check.fail(field, "is true, and the last message is not the assistant's");
  else if (last.toolCalls.length > 0)
    check.fail(field, "is true, and the last message has tool_calls");
  return true;
}

export function checkPrompt(
  check: Check,
  request: GenerateRequest,
  context: CheckContext,
): { prompt: CheckedTurns | { tokenIds: number[] }; images: CheckedImage[] } {
  const { messages, tokenIds } = request;
  if (messages.length === 0 && tokenIds.length === 0)
    check.fail("messages", "are empty, and so are token_ids");
  if (messages.length > 0 && tokenIds.length > 0)
    check.fail("token_ids", "are given beside messages");
  checkIds(check, "token_ids", tokenIds, context);
  const open = checkOpen(check, request);
  if (tokenIds.length > 0) return { prompt: { tokenIds: [...tokenIds] }, images: [] };
  const inOrder = new MessageCheck(check, context);
  const turns = messages.map((message, index) => inOrder.turn(message, index));
  const { images } = inOrder;
  if (images.length > context.limits.maxImages)
    check.fail("messages", `have ${images.length} images, limit ${context.limits.maxImages}`);
  return { prompt: { turns, open }, images };
}
