// The list of models in pages, and the error of one that does not exist.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';

const client = new Anthropic();

const names = [];
for await (const model of client.models.list({ limit: 5 })) names.push(model.id);
assert.ok(names.includes('claude-haiku-4-5'));
assert.equal(new Set(names).size, names.length);
assert.equal((await client.models.retrieve('claude-haiku-4-5')).type, 'model');
await assert.rejects(() => client.models.retrieve('no-such-model'), Anthropic.NotFoundError);
