/** What is observed of a request once, when it ends. */
import { Histogram } from "prom-client";
import { ExemplarHistogram, type Exemplar, type OpenRegistry } from "./exemplar-histogram.js";

const CHOICES = [1, 2, 5, 10, 20];

/** Of a request that has ended; times in seconds, undefined for what it did not come to. */
export interface RequestFigures {
  e2e: number;
  queue: number | undefined;
  encode: number | undefined;
  prefill: number | undefined;
  decode: number | undefined;
  inference: number | undefined;
  /** Of the prompt; undefined: it was not scheduled. */
  prefillTokens: number | undefined;
  completionTokens: number;
  /** Of its longest choice. */
  mostTokens: number;
  choiceCount: number;
  maxTokens: number;
}

export class RequestMetrics {
  private readonly e2e: ExemplarHistogram;
  private readonly queue: ExemplarHistogram;
  private readonly encode: ExemplarHistogram;
  private readonly prefill: ExemplarHistogram;
  private readonly decode: ExemplarHistogram;
  private readonly inference: ExemplarHistogram;
  private readonly perToken: ExemplarHistogram;
  private readonly promptTokens: Histogram;
  private readonly prefillTokens: Histogram;
  private readonly generationTokens: Histogram;
  private readonly mostTokens: Histogram;
  private readonly choices: Histogram;
  private readonly maxTokens: Histogram;

  constructor(
    private readonly registry: OpenRegistry,
    edges: { latency: number[]; perToken: number[]; tokens: number[] },
  ) {
    const time = (name: string, help: string, buckets = edges.latency) =>
      new ExemplarHistogram({ name: `tessera_${name}_seconds`, help, buckets, registry });
    const { tokens } = edges;
    this.e2e = time("e2e_request_latency", "Accepted to done");
    this.queue = time("request_queue_time", "Accepted to first scheduled, encoding included");
    this.encode = time(
      "request_encode_time",
      "A request's tiles given out to embeddings ready; requests with pictures only",
    );
    this.prefill = time("request_prefill_time", "First scheduled to first token");
    this.decode = time("request_decode_time", "First token to done");
    this.inference = time("request_inference_time", "First scheduled to done");
    this.perToken = time(
      "request_time_per_output_token",
      "First token to done by the tokens of the longest choice after its first",
      edges.perToken,
    );
    this.promptTokens = this.count("prompt_tokens", "Prompt tokens of a request", tokens);
    this.prefillTokens = this.count(
      "prefill_kv_computed_tokens",
      "Prompt tokens that were not found in the prefix cache",
      tokens,
    );
    this.generationTokens = this.count(
      "generation_tokens",
      "Tokens made for a request, all choices",
      tokens,
    );
    this.mostTokens = this.count(
      "max_num_generation_tokens",
      "Tokens made for a request's longest choice",
      tokens,
    );
    this.choices = this.count("params_n", "Choices asked for", CHOICES);
    this.maxTokens = this.count("params_max_tokens", "Tokens asked for at most", tokens);
  }

  private count(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({
      name: `tessera_request_${name}`,
      help,
      buckets,
      registers: [this.registry],
    });
  }

  accepted(promptTokens: number): void {
    this.promptTokens.observe(promptTokens);
  }

  ended(figures: RequestFigures, exemplar: Exemplar): void {
    const { completionTokens, choiceCount } = figures;
    const times: [ExemplarHistogram, number | undefined][] = [
      [this.e2e, figures.e2e],
      [this.queue, figures.queue],
      [this.encode, figures.encode],
      [this.prefill, figures.prefill],
      [this.decode, figures.decode],
      [this.inference, figures.inference],
    ];
    for (const [histogram, value] of times)
      if (value !== undefined) histogram.observe(value, exemplar);
    const { mostTokens, prefillTokens } = figures;
    if (prefillTokens !== undefined) this.prefillTokens.observe(prefillTokens);
    if (figures.decode !== undefined && mostTokens > 1)
      this.perToken.observe(figures.decode / (mostTokens - 1), exemplar);
    this.generationTokens.observe(completionTokens);
    this.mostTokens.observe(mostTokens);
    this.choices.observe(choiceCount);
    this.maxTokens.observe(figures.maxTokens);
  }
}
