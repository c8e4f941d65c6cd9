import assert from "node:assert/strict";
import { TeamChoice } from "./team.ts";

Deno.test("TeamChoice tries one worker and all in turns, then keeps the faster", () => {
  for (const [one, all, kept] of [[1, 2, 1], [2, 1, 3]]) {
    const choice = new TeamChoice(1e6, 3);
    const taken: number[] = [];
    for (let call = 0; call < 20; call++) {
      taken.push(choice.team);
      // A slow call, as the first often is, decides nothing.
      choice.note(call < 2 ? 100 : choice.team === 1 ? one : all);
    }
    assert.deepEqual(taken, [
      ...Array.from({ length: 16 }, (_, call) => call % 2 ? 3 : 1),
      kept,
      kept,
      kept,
      kept,
    ]);
  }
});

Deno.test("TeamChoice leaves a team that has become slow, and an outlier changes nothing", () => {
  const choice = new TeamChoice(1e6, 2);
  for (let call = 0; call < 16; call++) choice.note(choice.team === 2 ? 1 : 1.5);
  assert.equal(choice.team, 2);
  choice.note(4);
  assert.equal(choice.team, 2);
  for (let call = 0; call < 30; call++) choice.note(choice.team === 2 ? 5 : 1.5);
  assert.equal(choice.team, 1);
  // Once it is fast again, it is found out.
  let faster = 0;
  for (let call = 0; call < 400; call++) {
    if (choice.team === 2) faster++;
    choice.note(choice.team === 2 ? 1 : 1.5);
  }
  assert.ok(faster > 200, `${faster} of 400 calls`);
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
