/** The vision encoder cut over the workers, and on workers of its own; wider ones in vision-placement.long.test.ts. */
import { testWays } from "../harness/vision-ways.js";

for (const variant of ["d", "x", "h"])
  await testWays(`nvlm-${variant}-tiny`, [
    { workers: 2, vision: "tensor" },
    { workers: 1, visionWorkers: 2 },
  ]);
