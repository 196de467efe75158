// A moderation of several texts.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI();

const moderation = await client.moderations.create({
  model: 'omni-moderation-latest',
  input: ['I want to bake a cake.', 'It rained.'],
});

assert.deepEqual(moderation.results.map((one) => one.flagged), [false, false]);
assert.equal(typeof moderation.results[0].category_scores.violence, 'number');
