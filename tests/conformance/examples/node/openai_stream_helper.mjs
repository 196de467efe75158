// A stream by the helper that emits events and gathers the completion.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI();

const runner = client.chat.completions
  .stream({
    model: process.env.MODEL ?? 'gpt-4o-mini',
    messages: [{ role: 'user', content: 'Say this is a test' }],
    max_tokens: 600,
  })
  .on('content', (delta) => pieces.push(delta));
const pieces = [];

const completion = await runner.finalChatCompletion();
assert.equal(pieces.join(''), completion.choices[0].message.content);
