import { expect, test } from 'vitest';
import { devicesMarkdown } from '../../../../host/balloon/devices-doc.ts';
import { DEVICE_PROFILES, DEVICE_QUIRKS } from '../../../../protocol/index.ts';

test('docs/devices.md says what the tables of profiles and quirks say', async () => {
  const text = devicesMarkdown();
  for (const name of [...DEVICE_PROFILES, ...DEVICE_QUIRKS]) expect(text).toContain(`\`${name}\``);
  await expect(text).toMatchFileSnapshot('../../../../docs/devices.md');
});
