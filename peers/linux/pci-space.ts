/** Configuration space of a modern virtio function with one I/O BAR (virtio 1.4 §4.1.4). */
import type { V86PciDevice } from './v86.ts';

export const BAR_BYTES = 256;

/** What lies where in the BAR. */
export const REGION = {
  COMMON: { offset: 0x00, lengthBytes: 0x3c },
  ISR: { offset: 0x40, lengthBytes: 1 },
  DEVICE: { offset: 0x50, lengthBytes: 0x20 },
  /** One register for each queue. */
  NOTIFY: { offset: 0x80, lengthBytes: 0x40, multiplier: 4 },
} as const;

/** cfg_type of struct virtio_pci_cap. */
const CapType = { COMMON: 1, NOTIFY: 2, ISR: 3, DEVICE: 4 } as const;

const VENDOR_ID = 0x1af4;
/** A modern device's PCI id is this plus its device id. */
const MODERN_DEVICE_ID = 0x1040;
const COMMAND_IO_AND_MASTER = 0x0005;
const STATUS_CAPABILITIES = 0x0010;
const CLASS_OTHER = 0xff;
const CAPABILITY_POINTER = 0x34;
const INTERRUPT_PIN = 0x3d;
const FIRST_CAPABILITY = 0x40;
const VENDOR_CAPABILITY = 0x09;
const CAP_BYTES = 16;
const SPACE_BYTES = 256;

export function pciFunction(pciId: number, deviceId: number, port: number): V86PciDevice {
  const space = new Uint8Array(SPACE_BYTES);
  const view = new DataView(space.buffer);
  view.setUint16(0x00, VENDOR_ID, true);
  view.setUint16(0x02, MODERN_DEVICE_ID + deviceId, true);
  view.setUint16(0x04, COMMAND_IO_AND_MASTER, true);
  view.setUint16(0x06, STATUS_CAPABILITIES, true);
  view.setUint8(0x08, 1);
  view.setUint8(0x0b, CLASS_OTHER);
  // Bit 0: the BAR is in I/O space.
  view.setUint32(0x10, port | 1, true);
  view.setUint16(0x2c, VENDOR_ID, true);
  view.setUint16(0x2e, deviceId, true);
  view.setUint8(CAPABILITY_POINTER, FIRST_CAPABILITY);
  view.setUint8(INTERRUPT_PIN, 1);
  const { COMMON, NOTIFY, ISR, DEVICE } = REGION;
  const multiplier = new Uint8Array(Uint32Array.of(NOTIFY.multiplier).buffer);
  const capabilities = [
    { type: CapType.COMMON, region: COMMON, extra: [] },
    { type: CapType.NOTIFY, region: NOTIFY, extra: [...multiplier] },
    { type: CapType.ISR, region: ISR, extra: [] },
    { type: CapType.DEVICE, region: DEVICE, extra: [] },
  ];
  let at = FIRST_CAPABILITY;
  for (const [i, { type, region, extra }] of capabilities.entries()) {
    const lengthBytes = CAP_BYTES + extra.length;
    const next = i < capabilities.length - 1 ? at + lengthBytes : 0;
    space.set([VENDOR_CAPABILITY, next, lengthBytes, type], at);
    view.setUint32(at + 8, region.offset, true);
    view.setUint32(at + 12, region.lengthBytes, true);
    space.set(extra, at + CAP_BYTES);
    at += lengthBytes;
  }
  return {
    pci_id: pciId,
    name: 'virtio-balloon',
    pci_space: [...space],
    pci_bars: [{ size: BAR_BYTES }],
  };
}
