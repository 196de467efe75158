// The list of models, one of them, and the error of one that does not exist.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI();

const names = [];
for await (const model of client.models.list()) names.push(model.id);
assert.ok(names.includes('gpt-4o-mini'));
assert.equal((await client.models.retrieve('gpt-4o-mini')).object, 'model');
await assert.rejects(
  () => client.models.retrieve('no-such-model'),
  (error) => error instanceof OpenAI.NotFoundError && error.code === 'model_not_found',
);
