/** From spawning the processes to a group that serves. */
import type { BenchContext } from "../context.js";
import { figure, type Figure } from "../figure.js";
import { benchModels, type BenchModel } from "../models.js";
import { startBench } from "../serve.js";
import { median } from "../statistics.js";

const WORKERS = [1, 2];

async function startSeconds(model: BenchModel, workers: number): Promise<number> {
  const start = performance.now();
  const bench = await startBench(model, workers);
  const seconds = (performance.now() - start) / 1e3;
  await bench.stop();
  return seconds;
}

export async function start({ rounds, models, log }: BenchContext): Promise<Figure[]> {
  const cases = benchModels(models).flatMap((model) =>
    WORKERS.map((workers) => ({ model, workers, seconds: [] as number[] })),
  );
  for (let round = 0; round < rounds; round++)
    for (const { model, workers, seconds } of cases)
      seconds.push(await startSeconds(model, workers));
  return cases.map(({ model, workers, seconds }) => {
    log(`${model.name}.${workers}w: ${seconds.map((s) => s.toFixed(2)).join(", ")} s`);
    return figure({
      name: `start.${model.name}.${workers}w`,
      value: median(seconds),
      unit: "s",
      measure: `from spawning the coordinator and the workers to ready; weights are in the page cache`,
    });
  });
}
