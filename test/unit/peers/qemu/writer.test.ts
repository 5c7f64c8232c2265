import { expect, test } from 'vitest';
import { writerFirmware } from '../../../../peers/qemu/writer.ts';

const RESET_VECTOR = 0xfff0;

test('the firmware fills its segment, and the reset vector jumps to its start', () => {
  const firmware = writerFirmware();
  expect(firmware.length).toBe(0x10000);
  const view = new DataView(firmware.buffer);
  expect(view.getUint8(RESET_VECTOR)).toBe(0xe9);
  const target = RESET_VECTOR + 3 + view.getInt16(RESET_VECTOR + 1, true);
  expect(target & 0xffff).toBe(0);
});
