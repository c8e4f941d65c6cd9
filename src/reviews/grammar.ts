/**
 * A grammar of short reviews whose sentiment comes from how they are put together, not from which words they use.
 *
 * A review is a frame around a main clause, and a clause holds one word of opinion. The tables below are the whole
 * grammar: the generator fills their patterns, the parser matches them, and their `rule` says what the construction
 * does to the label. Slots are written `{adjective}`; `vocabulary.ts` lists what may fill them.
 *
 *     "Although the acting was superb, there was nothing lovely about the plot."
 *      frame "Although {aside}, {main}": the main clause decides; its "nothing … about" turns "lovely" round: negative
 * @module
 */
import type { RandomStream } from "../core/random.ts";
import {
  type Domain,
  domains,
  local,
  neutral,
  opinions,
  type OpinionSlot,
  type Polarity,
} from "./vocabulary.ts";

/** A clause around one word of opinion. */
export interface ClausePattern {
  readonly pattern: string;
  /** Polarity of the clause, times that of its word. */
  readonly sign: Polarity;
}

/** Clauses that do the same thing to the label. */
export interface ClauseRule {
  readonly name: string;
  readonly rule: string;
  /** How often this rule is drawn, relative to the others. */
  readonly weight: number;
  /** Where its clauses may stand: anywhere, as the main clause only, or only where there is no aside. */
  readonly place: "anywhere" | "main" | "alone";
  readonly clauses: readonly ClausePattern[];
}

/** A sentence around a main clause, which alone decides the label. */
export interface FrameRule {
  readonly name: string;
  readonly rule: string;
  readonly weight: number;
  readonly patterns: readonly string[];
}

/** What a clause does with its word. */
export const clauseRules: readonly ClauseRule[] = [
  {
    name: "statement",
    rule: "the word's polarity holds",
    weight: 8,
    place: "anywhere",
    clauses: [
      { pattern: "{subject} was {adjective}", sign: 1 },
      { pattern: "I found {subject} {adjective}", sign: 1 },
      { pattern: "I {liked} {subject}", sign: 1 },
      { pattern: "there was something {adjective} about {subject}", sign: 1 },
    ],
  },
  {
    name: "degree",
    rule: "more or less of it, the same polarity",
    weight: 4,
    place: "anywhere",
    clauses: [
      { pattern: "{subject} was {intensifier} {adjective}", sign: 1 },
      { pattern: "{subject} was {downtoner} {adjective}", sign: 1 },
      { pattern: "{subject} was {adjective} from start to finish", sign: 1 },
    ],
  },
  {
    name: "negation",
    rule: "the word's polarity is turned round",
    weight: 4,
    place: "main",
    clauses: [
      { pattern: "{subject} was not {adjective}", sign: -1 },
      { pattern: "{subject} was not {adjective} at all", sign: -1 },
      { pattern: "{subject} was not {intensifier} {adjective}", sign: -1 },
      { pattern: "{subject} was hardly {adjective}", sign: -1 },
      { pattern: "{subject} was never {adjective}", sign: -1 },
      { pattern: "{subject} was far from {adjective}", sign: -1 },
      { pattern: "{subject} was anything but {adjective}", sign: -1 },
      { pattern: "there was nothing {adjective} about {subject}", sign: -1 },
      { pattern: "I did not {like} {subject}", sign: -1 },
      { pattern: "I did not {like} {subject} at all", sign: -1 },
    ],
  },
  {
    name: "double negation",
    rule: "turned round twice: the word's polarity holds",
    weight: 1.5,
    place: "main",
    clauses: [
      { pattern: "nobody can deny that {subject} was {adjective}", sign: 1 },
      { pattern: "{subject} was never less than {adjective}", sign: 1 },
      { pattern: "{subject} was nothing short of {adjective}", sign: 1 },
    ],
  },
  {
    name: "comparison",
    rule: "more, or as much, keeps the polarity; less, or not as much, turns it round",
    weight: 2,
    place: "main",
    clauses: [
      { pattern: "{subject} was more {adjective} than {rival}", sign: 1 },
      { pattern: "{subject} was every bit as {adjective} as {rival}", sign: 1 },
      { pattern: "{subject} was less {adjective} than {rival}", sign: -1 },
      { pattern: "{subject} was not as {adjective} as {rival}", sign: -1 },
    ],
  },
  {
    name: "expectation",
    rule: "an expectation that came true keeps the polarity, one that did not turns it round",
    weight: 1,
    place: "alone",
    clauses: [
      { pattern: "I expected {subject} to be {adjective}, and I was right", sign: 1 },
      { pattern: "I expected {subject} to be {adjective}, and I was wrong", sign: -1 },
    ],
  },
];

/**
 * What a sentence does with its clauses. `{aside}` is a clause of the opposite polarity, so that both polarities are
 * there and only their places tell which counts; a frame's own `{adjective}` is opposite too.
 *
 * The weights and the list of constructions are tuned so that a two-layer encoder of hidden size 128, starting from
 * random weights, learns the rules from 8000 reviews in ten epochs; `reviews.ts` has the figures.
 */
export const frameRules: readonly FrameRule[] = [
  {
    name: "plain",
    rule: "the clause decides",
    weight: 6,
    patterns: ["{main}", "{opener}, {main}"],
  },
  {
    name: "irrelevant fact",
    rule: "facts have no polarity: the clause decides",
    weight: 3,
    patterns: ["{fact}, and {main}", "{main}, and {fact}", "{opener}, {main}, and {fact}"],
  },
  {
    name: "concession",
    rule: "what is conceded does not count, wherever it stands",
    weight: 1.5,
    patterns: [
      "although {aside}, {main}",
      "{main}, even though {aside}",
    ],
  },
  {
    name: "contrast",
    rule: "the clause after the turn decides",
    weight: 1.5,
    patterns: ["{aside}, but {main}", "{opener}, {aside}, but {main}", "{aside}, and still {main}"],
  },
  {
    name: "hedge",
    rule: "what was expected or said before does not count",
    weight: 1,
    patterns: [
      "I expected {subject} to be {adjective}, yet {main}",
      "everyone told me that {aside}, but {main}",
      "I used to think that {aside}, but now I know that {main}",
    ],
  },
];

/** Words a review has at least and at most. */
export const reviewWords = { minimum: 6, maximum: 30 } as const;

/** Draws a review of that polarity. The lengths of `reviewWords` hold. */
export function makeReview(random: RandomStream, polarity: Polarity): string {
  for (;;) {
    const domain = pick(random, domains);
    const draft: Draft = { random, domain, subjects: random.shuffle([...local.subject[domain]]) };
    const frame = pick(random, pickWeighted(random, frameRules).patterns);
    const contrast = frame.includes("{aside}") || frame.includes("{adjective}");
    const body = frame.replace(slotPattern, (_, slot: string) => {
      if (slot === "main") return makeClause(draft, contrast ? contrastRules : clauseRules, polarity);
      if (slot === "aside") return makeClause(draft, asideRules, opposite(polarity));
      return fill(draft, slot, opposite(polarity));
    });
    const words = body.split(" ").length;
    if (words >= reviewWords.minimum && words <= reviewWords.maximum) {
      return `${body[0].toUpperCase()}${body.slice(1)}.`;
    }
  }
}

/** How the grammar reads a review. */
export interface Reading {
  readonly polarity: Polarity;
  /** Name of the frame's rule. */
  readonly frame: string;
  /** Name of the main clause's rule. */
  readonly clause: string;
}

/**
 * Finds the polarity of a review by parsing it. Throws RangeError for text outside the grammar and for text that it
 * reads in two ways, neither of which `makeReview` makes.
 */
export function parseReview(text: string): Reading {
  const body = text.trim().replace(/\.$/, "").toLowerCase();
  const readings = frameMatchers.flatMap(({ matcher, name }): Reading[] => {
    const groups = matcher.exec(body)?.groups;
    if (!groups || (groups.aside !== undefined && parseClause(groups.aside).length === 0)) return [];
    return parseClause(groups.main).map((clause) => ({ ...clause, frame: name }));
  });
  if (readings.length === 1) return readings[0];
  throw new RangeError(`The grammar reads ${JSON.stringify(text)} in ${readings.length} ways, wanted 1`);
}

/** A review in the making. */
interface Draft {
  readonly random: RandomStream;
  readonly domain: Domain;
  /** Subjects it has not used yet: two clauses about one thing would contradict each other. */
  readonly subjects: string[];
}

function makeClause(draft: Draft, rules: readonly ClauseRule[], polarity: Polarity): string {
  const { pattern, sign } = pick(draft.random, pickWeighted(draft.random, rules).clauses);
  const word = sign === 1 ? polarity : opposite(polarity);
  return pattern.replace(slotPattern, (_, slot: string) => fill(draft, slot, word));
}

function fill({ random, domain, subjects }: Draft, slot: string, polarity: Polarity): string {
  if (slot === "subject") return subjects.pop()!;
  if (slot in opinions) {
    return pick(random, opinions[slot as OpinionSlot][polarity === 1 ? "positive" : "negative"]);
  }
  if (slot in local) return pick(random, local[slot as keyof typeof local][domain]);
  return pick<string>(random, neutral[slot as keyof typeof neutral]);
}

const contrastRules: readonly ClauseRule[] = clauseRules.filter(({ place }) => place !== "alone");
const asideRules: readonly ClauseRule[] = clauseRules.filter(({ place }) => place === "anywhere");

const slotPattern = /\{(\w+)\}/g;

function opposite(polarity: Polarity): Polarity {
  return polarity === 1 ? -1 : 1;
}

function pick<T>(random: RandomStream, items: readonly T[]): T {
  return items[random.below(items.length)];
}

function pickWeighted<T extends { readonly weight: number }>(random: RandomStream, items: readonly T[]): T {
  let rest = random.uniform() * items.reduce((sum, { weight }) => sum + weight, 0);
  return items.find(({ weight }) => (rest -= weight) < 0) ?? items[items.length - 1];
}

/** A regular expression for a pattern: clauses match anything, other slots what may fill them. */
function matcherOf(pattern: string): RegExp {
  const source = pattern.toLowerCase().replace(
    /\{(\w+)\}/g,
    (_, slot: string) =>
      slot === "main" || slot === "aside" ? `(?<${slot}>.+)` : `(?<${slot}>${fillers(slot).join("|")})`,
  );
  return new RegExp(`^${source}$`);
}

function fillers(slot: string): string[] {
  const lists = slot in opinions
    ? Object.values(opinions[slot as OpinionSlot])
    : slot in local
    ? Object.values(local[slot as keyof typeof local])
    : [neutral[slot as keyof typeof neutral]];
  return lists.flat().map((phrase) => phrase.toLowerCase());
}

const frameMatchers = frameRules.flatMap(({ name, patterns }) =>
  patterns.map((pattern) => ({ matcher: matcherOf(pattern), name }))
);

const clauseMatchers = clauseRules.flatMap(({ name, clauses }) =>
  clauses.map(({ pattern, sign }) => ({ matcher: matcherOf(pattern), sign, name }))
);

const wordPolarity: ReadonlyMap<string, Polarity> = new Map(
  Object.values(opinions).flatMap(({ positive, negative }): [string, Polarity][] => [
    ...positive.map((word): [string, Polarity] => [word, 1]),
    ...negative.map((word): [string, Polarity] => [word, -1]),
  ]),
);

/** Every reading of a clause. */
function parseClause(text: string): { polarity: Polarity; clause: string }[] {
  return clauseMatchers.flatMap(({ matcher, sign, name }) => {
    const groups = matcher.exec(text)?.groups;
    const word = groups && (groups.adjective ?? groups.liked ?? groups.like);
    if (word === undefined) return [];
    const polarity = wordPolarity.get(word)!;
    return [{ polarity: sign === 1 ? polarity : opposite(polarity), clause: name }];
  });
}

/** Every word of the grammar, in lower case, sorted. */
export function reviewVocabulary(): string[] {
  const patterns = [
    ...clauseRules.flatMap(({ clauses }) => clauses.map(({ pattern }) => pattern)),
    ...frameRules.flatMap(({ patterns }) => patterns),
  ].map((pattern) => pattern.replace(/\{\w+\}/g, " "));
  const slots = [...Object.keys(opinions), ...Object.keys(local), ...Object.keys(neutral)];
  const text = [...patterns, ...slots.flatMap(fillers)].join(" ").toLowerCase();
  return [...new Set(text.match(/[a-z]+/g))].sort();
}
