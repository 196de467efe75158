// A chat completion, as in the README of OpenAI's library, and its headers.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI();

const { data: completion, response } = await client.chat.completions
  .create({
    model: process.env.MODEL ?? 'gpt-4o-mini',
    messages: [
      { role: 'developer', content: 'Talk like a pirate.' },
      { role: 'user', content: 'Are semicolons optional in JavaScript?' },
    ],
    max_tokens: 100,
  })
  .withResponse();

assert.equal(completion.object, 'chat.completion');
assert.ok(completion.choices[0].message.content);
assert.ok(completion.usage.total_tokens > 0);
assert.ok(completion._request_id);
assert.ok(response.headers.get('x-headgate-job-id'));
