/**
 * Flags beside `--recipe`: those that were typed must have something to say.
 * @module
 */
import { checkBesideRecipe } from "../finetune/beside_recipe.ts";
import type { FinetuneSettings } from "../finetune/options.ts";
import { recipeOf } from "../finetune/run_modifiers.ts";
import type { Command } from "./command.ts";

/** Throws `InputError` for a typed flag that the recipe overrules, and for a recipe that cannot be read. */
export async function checkRecipeFlags(command: Command, settings: FinetuneSettings): Promise<void> {
  if (settings.recipe === undefined) return;
  const typed = command.options.filter((option) =>
    command.getOptionValueSource(option.attributeName()) === "cli"
  );
  const given = typed.map((option) =>
    [option.long!, command.getOptionValue(option.attributeName())] as const
  );
  checkBesideRecipe(settings.recipe, await recipeOf(settings.recipe, settings.recipeArguments), given);
}
