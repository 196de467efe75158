// The answer in the form of a zod schema, by `chat.completions.parse`.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';

const Step = z.object({ explanation: z.string(), output: z.string() });
const MathResponse = z.object({ steps: z.array(Step), final_answer: z.string() });

const client = new OpenAI();

const completion = await client.chat.completions.parse({
  model: process.env.MODEL ?? 'gpt-4o-mini',
  messages: [
    { role: 'system', content: 'You are a helpful math tutor.' },
    { role: 'user', content: 'solve 8x + 31 = 2' },
  ],
  response_format: zodResponseFormat(MathResponse, 'math_response'),
  max_tokens: 400,
});

const message = completion.choices[0].message;
assert.equal(typeof message.parsed.final_answer, 'string');
assert.ok(Array.isArray(message.parsed.steps));
