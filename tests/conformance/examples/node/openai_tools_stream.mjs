// The arguments of a tool call come in pieces, and the helper gathers them.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI();

const stream = client.chat.completions.stream({
  model: process.env.MODEL ?? 'gpt-4o-mini',
  messages: [{ role: 'user', content: 'What is the weather like in Paris today?' }],
  max_tokens: 200,
  tools: [
    {
      type: 'function',
      function: {
        name: 'get_weather',
        parameters: { type: 'object', properties: { location: { type: 'string' } }, required: ['location'] },
      },
    },
  ],
  tool_choice: 'required',
});

const completion = await stream.finalChatCompletion();
const [call] = completion.choices[0].message.tool_calls;
assert.equal(call.function.name, 'get_weather');
assert.equal(typeof JSON.parse(call.function.arguments).location, 'string');
assert.equal(completion.choices[0].finish_reason, 'tool_calls');
