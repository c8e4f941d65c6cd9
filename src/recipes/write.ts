/**
 * Modifiers as a recipe: YAML that `parseRecipe` makes the same modifiers of.
 * @module
 */
import { Document, isMap, isSeq, type Node, visit } from "yaml";
import type { Modifier } from "./modifiers.ts";

/** One list of modifiers, every field said, defaults too. */
export function writeRecipe(modifiers: readonly Modifier[]): string {
  const lists = modifiers.map(({ modifier: _, place: __, ...fields }) => fields);
  const document = new Document({ modifiers: lists }, { aliasDuplicateObjects: false });
  const list = document.get("modifiers");
  if (!isSeq<Node>(list)) throw new Error("a list did not become a list");
  list.items.forEach((item, index) => item.tag = `!${modifiers[index].modifier}`);
  visit(document, {
    Seq(_, node) {
      if (node !== list) node.flow = true;
    },
    Map(key, node) {
      if (key !== null && isMap(node) && node.items.length === 0) node.flow = true;
    },
  });
  return document.toString({ lineWidth: 0 });
}
