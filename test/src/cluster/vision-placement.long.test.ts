/** The vision encoder cut over many workers, and on workers beside several that hold the decoder. */
import { testWays } from "../harness/vision-ways.js";

for (const variant of ["d", "x", "h"])
  await testWays(`nvlm-${variant}-tiny`, [
    { workers: 4, vision: "tensor" },
    { workers: 8, vision: "tensor" },
    { workers: 2, visionWorkers: 2 },
    { workers: 4, visionWorkers: 1 },
  ]);
