import { expect, test } from 'vitest';
import { MESSAGES } from '../../../protocol/index.ts';
import { messagesMarkdown } from '../../../protocol/messages-doc.ts';

test('docs/messages.md says what the table of messages says', async () => {
  const text = messagesMarkdown();
  for (const name of Object.keys(MESSAGES)) expect(text).toContain(`\`${name}\``);
  await expect(text).toMatchFileSnapshot('../../../docs/messages.md');
});
