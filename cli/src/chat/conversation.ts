/** A conversation with a cluster: its turns so far, and the next answer. */
import { readFile } from "node:fs/promises";
import { Role, TesseraError, type GenerateInput, type TesseraClient } from "@tessera/client";

type Message = NonNullable<GenerateInput["messages"]>[number];
type Part = {
  content: { case: "text"; value: string } | { case: "image"; value: { data: Uint8Array } };
};

export interface ChatSettings {
  system?: string | undefined;
  maxTokens?: number | undefined;
  temperature?: number | undefined;
}

export interface Answer {
  text: string;
  tokens: number;
  promptTokens: number;
  firstMs: number;
  totalMs: number;
  /** Its reader ended it. */
  aborted: boolean;
}

/** @throws Error naming the file when it cannot be read or is no accepted picture. */
export async function readPicture(file: string): Promise<Uint8Array> {
  const { checkImage, IMAGE_LIMITS } = await import("@tessera/coordinator/request");
  const data = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    const why = error.code === "ENOENT" ? "there is no such file" : error.message;
    throw new Error(`${file}: ${why}`, { cause: error });
  });
  checkImage(data, { field: file, mediaType: "", limits: IMAGE_LIMITS });
  return data;
}

export class Conversation {
  private turns: Message[] = [];
  private pictures: Uint8Array[] = [];

  constructor(
    private readonly client: TesseraClient,
    private readonly settings: ChatSettings,
  ) {}

  /** Shown with the next question. */
  attach(picture: Uint8Array): void {
    this.pictures.push(picture);
  }
  get attachedCount(): number {
    return this.pictures.length;
  }

  /** Forgets all turns and pictures. */
  reset(): void {
    this.turns = [];
    this.pictures = [];
  }

  private request(question: Message): GenerateInput {
    const { system, maxTokens, temperature } = this.settings;
    const first: Message[] =
      system === undefined
        ? []
        : [{ role: Role.SYSTEM, parts: [{ content: { case: "text", value: system } }] }];
    return {
      messages: [...first, ...this.turns, question],
      ...(maxTokens === undefined ? {} : { maxTokens }),
      ...(temperature === undefined ? {} : { sampling: { temperature } }),
    };
  }

  /**
   * Streams the answer to `text` and the attached pictures. What was read of an aborted answer stays in the
   * conversation; a question that fails is forgotten with its pictures. @throws TesseraError
   */
  async ask(text: string, show: (piece: string) => void, signal: AbortSignal): Promise<Answer> {
    const images = this.pictures.map((data): Part => ({
      content: { case: "image", value: { data } },
    }));
    const parts: Part[] = [...images, { content: { case: "text", value: text } }];
    const question: Message = { role: Role.USER, parts };
    this.pictures = [];
    const answer: Answer = {
      text: "",
      tokens: 0,
      promptTokens: 0,
      firstMs: 0,
      totalMs: 0,
      aborted: false,
    };
    const start = performance.now();
    try {
      for await (const { kind } of this.client.generate(this.request(question), { signal })) {
        if (kind.case === "started") answer.promptTokens = kind.value.promptTokens;
        if (kind.case === "done") answer.tokens = kind.value.usage?.completionTokens ?? 0;
        if (kind.case !== "delta") continue;
        if (answer.text === "") answer.firstMs = performance.now() - start;
        answer.text += kind.value.text;
        show(kind.value.text);
      }
    } catch (error) {
      if (!(error instanceof TesseraError) || error.code !== "ABORTED") throw error;
      answer.aborted = true;
    }
    answer.totalMs = performance.now() - start;
    if (!answer.aborted || answer.text !== "") this.keep(question, answer.text);
    return answer;
  }

  private keep(question: Message, answer: string): void {
    const parts = [{ content: { case: "text" as const, value: answer } }];
    this.turns.push(question, { role: Role.ASSISTANT, parts });
  }
}

/** How long an answer took, for people. */
export function describeAnswer(answer: Answer): string {
  if (answer.aborted) return `(ended after ${(answer.totalMs / 1e3).toFixed(1)} s)`;
  const rate = answer.tokens / (answer.totalMs / 1e3);
  return (
    `(${answer.tokens} tokens, ${rate.toFixed(0)} tokens/s, ` +
    `first after ${answer.firstMs.toFixed(0)} ms, ${answer.promptTokens} prompt tokens)`
  );
}
