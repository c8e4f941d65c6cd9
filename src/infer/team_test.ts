import assert from "node:assert/strict";
import { TeamChoice } from "./team.ts";

Deno.test("TeamChoice tries one worker and all in turns, then keeps the faster", () => {
  for (const [one, all, kept] of [[1, 2, 1], [2, 1, 3]]) {
    const choice = new TeamChoice(1e6, 3);
    const taken: number[] = [];
    for (let call = 0; call < 12; call++) {
      taken.push(choice.team);
      // A slow call, as the first often is, decides nothing.
      choice.note(call < 2 ? 100 : choice.team === 1 ? one : all);
    }
    assert.deepEqual(taken, [1, 3, 1, 3, 1, 3, 1, 3, kept, kept, kept, kept]);
  }
});

Deno.test("TeamChoice leaves a team that has become slow, and an outlier changes nothing", () => {
  const choice = new TeamChoice(1e6, 2);
  for (let call = 0; call < 8; call++) choice.note(choice.team === 2 ? 1 : 1.5);
  assert.equal(choice.team, 2);
  choice.note(4);
  assert.equal(choice.team, 2);
  for (let call = 0; call < 20; call++) choice.note(choice.team === 2 ? 5 : 1.5);
  assert.equal(choice.team, 1);
});

Deno.test("TeamChoice gives large runs to all workers, and has no choice with one", () => {
  for (const [multiplyAdds, workers] of [[1e9, 2], [1, 1]]) {
    const choice = new TeamChoice(multiplyAdds, workers);
    for (let call = 0; call < 10; call++) {
      assert.equal(choice.team, workers);
      choice.note(1);
    }
  }
});
