/**
 * The words of the review grammar. A slot of a pattern in `grammar.ts` is filled from the list of its name; words of
 * opinion have a positive and a negative list, and no word is in both.
 * @module
 */

/** +1 or −1. */
export type Polarity = 1 | -1;

/** What reviews are about; a review stays within one domain. */
export const domains = ["film", "product", "restaurant"] as const;

/** One of the domains. */
export type Domain = typeof domains[number];

/** Words that carry the opinion, by slot and polarity. */
export const opinions = {
  adjective: {
    positive: [
      "amazing",
      "beautiful",
      "brilliant",
      "charming",
      "delightful",
      "enjoyable",
      "excellent",
      "exciting",
      "fantastic",
      "good",
      "great",
      "impressive",
      "lovely",
      "memorable",
      "outstanding",
      "perfect",
      "pleasant",
      "refreshing",
      "remarkable",
      "satisfying",
      "splendid",
      "superb",
      "thoughtful",
      "wonderful",
    ],
    negative: [
      "annoying",
      "awful",
      "awkward",
      "bad",
      "bland",
      "boring",
      "clumsy",
      "disappointing",
      "dreadful",
      "dull",
      "forgettable",
      "horrible",
      "lousy",
      "mediocre",
      "messy",
      "painful",
      "poor",
      "sloppy",
      "tedious",
      "terrible",
      "unpleasant",
      "useless",
      "weak",
      "worthless",
    ],
  },
  liked: {
    positive: ["admired", "adored", "appreciated", "enjoyed", "liked", "loved", "praised"],
    negative: ["despised", "detested", "disliked", "hated", "loathed", "regretted", "resented"],
  },
  like: {
    positive: ["admire", "adore", "appreciate", "enjoy", "like", "love", "praise"],
    negative: ["despise", "detest", "dislike", "hate", "loathe", "regret", "resent"],
  },
} as const;

/** Slots that hold an opinion. */
export type OpinionSlot = keyof typeof opinions;

/** Words and phrases without an opinion that fit everywhere. */
export const neutral = {
  intensifier: [
    "absolutely",
    "deeply",
    "extremely",
    "incredibly",
    "really",
    "so",
    "thoroughly",
    "truly",
    "very",
  ],
  downtoner: ["a bit", "a little", "fairly", "mildly", "quite", "rather", "slightly", "somewhat"],
  opener: [
    "all in all",
    "as far as I can tell",
    "for what it is worth",
    "for me",
    "frankly",
    "in my opinion",
    "in the end",
    "on the whole",
    "this time",
    "to be honest",
  ],
} as const;

/** Words and phrases without an opinion that belong to a domain. */
export const local: Readonly<
  Record<"subject" | "rival" | "fact", Readonly<Record<Domain, readonly string[]>>>
> = {
  subject: {
    film: [
      "the acting",
      "the camera work",
      "the cast",
      "the dialogue",
      "the director",
      "the ending",
      "the film",
      "the lead actor",
      "the music",
      "the opening scene",
      "the plot",
      "the second half",
    ],
    product: [
      "the battery",
      "the box",
      "the camera",
      "the design",
      "the keyboard",
      "the lens",
      "the manual",
      "the screen",
      "the software",
      "the sound",
      "the support team",
      "this gadget",
    ],
    restaurant: [
      "the bread",
      "the chef",
      "the coffee",
      "the decor",
      "the dessert",
      "the fish",
      "the lunch menu",
      "the meal",
      "the room",
      "the service",
      "the soup",
      "the waiter",
    ],
  },
  rival: {
    film: ["the book", "the first film", "the remake", "the trailer"],
    product: ["my old one", "the earlier version", "the advert", "the competition"],
    restaurant: ["the place next door", "my own cooking", "the food at home", "the other branch"],
  },
  fact: {
    film: [
      "it runs for two hours",
      "it was shot in Portugal",
      "we saw it on a Tuesday",
      "there are three songs in it",
      "the story is set in a small town",
      "it came out last spring",
      "my sister chose it",
      "we sat in the front row",
    ],
    product: [
      "it weighs nine ounces",
      "it comes in green and black",
      "I ordered it on a Monday",
      "it was delivered by van",
      "it has two buttons on the side",
      "the cable is a metre long",
      "my brother owns one too",
      "I keep it on my desk",
    ],
    restaurant: [
      "it opens at six",
      "we sat near the window",
      "they have twelve tables",
      "it is on the corner of our street",
      "we went there on a Friday",
      "the owner comes from Madrid",
      "we paid by card",
      "there is a car park behind it",
    ],
  },
};
