export { GrammarEngine, type GrammarEngineOptions, type GrammarStats } from "./engine.js";
export { GRAMMAR_LIMITS, type GrammarLimits } from "./limits.js";
export { vocabularyOf } from "./vocabulary.js";
