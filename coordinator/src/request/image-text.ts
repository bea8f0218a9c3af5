/** How many token ids an image's text takes, by a tokenizer or as the public one. */
import type { ImageText } from "@tessera/model";
import { tileTags } from "./prompt.js";
import type { Tokenizer } from "./tokenizer.js";

/** Of NVLM-D-72B's tokenizer: a digit is an id of its own; `<Image>` before a tag costs one (its bracket merges). */
function publicCount(text: string): number {
  if (text === "</Image>\n") return 3;
  const digits = /\d+/.exec(text)?.[0].length ?? 1;
  return (text.startsWith("<Image>") ? 1 : 0) + 4 + digits;
}

/** `patches`: tiles of the image, thumbnail counted. Without a tokenizer the public one's counts. */
export function imageText(patches: number, tokenizer?: Tokenizer): ImageText {
  const count = (text: string) =>
    tokenizer === undefined ? publicCount(text) : tokenizer.encode(text, { special: false }).length;
  const block = (tags: string[]) => [
    ...tags.map((tag, i) => count(i === 0 ? `<Image>${tag}` : tag)),
    count("</Image>\n"),
  ];
  const tags = tileTags(patches);
  return {
    ids: { all: block(tags), thumbnail: block(tags.slice(-1)) },
    tagIds: tags.map(count),
  };
}
