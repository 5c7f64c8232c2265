/**
 * What a hostile driver does to our device, each with the outcome that the specification and QEMU
 * leave it: status, features, configuration space and queues here, buffers in `buffer-mistakes.ts`.
 */
import { BALLOON_QUEUES, BalloonConfig, bit, DeviceStatus, MESSAGES } from '../protocol/index.ts';
import { ANY, type Outcome, REJECTED } from './case.ts';
import type { Draw } from './draw.ts';
import {
  type HostMachine,
  RAM_PAGES,
  S_DRIVER_OK,
  S_FEATURES_OK,
  type State,
  setQueue,
} from './host-machine.ts';
import { positional, type Raw } from './raw.ts';
import { anyMessage, namesOf, number, u32 } from './values.ts';

/** What one case sends, and what must come of it. */
export interface Mistake {
  /** Posted ahead of the exit of one run. */
  readonly posted: readonly Raw[];
  /** Sent as the access that the driver waits for. */
  readonly access?: Raw;
  readonly allowed: readonly Outcome[];
  /** Looked at afterwards: null, or what is wrong. */
  check?(machine: HostMachine): string | null;
}

/** Null: it cannot be done in this state, or on this device. */
export type Maker = (draw: Draw, machine: HostMachine, state: State) => Mistake | null;

export const COUNTED: readonly Outcome[] = ['counted'];
export const SERVED: readonly Outcome[] = ['served'];
export const IGNORED: readonly Outcome[] = ['ignored'];
/** As ignored, where the device may be using buffers of its own accord. */
const QUIET: readonly Outcome[] = ['ignored', 'served'];

/** States in which queues are served; a machine that stops serves them when it goes on. */
export function isLive(state: State): boolean {
  return state === 'live' || state === 'hinting' || state === 'failed' || state === 'stopped';
}

/** DRIVER has been set. */
function hasDriver(state: State): boolean {
  return state !== 'reset' && state !== 'acknowledged';
}

function status(value: number): Raw {
  return [MESSAGES.setStatus.id, value];
}

function config(offset: number, data: Uint8Array): Raw {
  return [MESSAGES.setConfig.id, offset, data];
}

/** A reply of that name came with the frames that followed. */
function answered(name: string): (machine: HostMachine) => string | null {
  return ({ guest }) =>
    guest.received.some((message) => message.name === name) ? null : `no ${name} came`;
}

export const DRIVER_MISTAKES: Readonly<Record<string, Maker>> = {
  'nothing wrong': () => ({ posted: [], allowed: QUIET }),
  'status: a bit cleared': (draw, { device }) => {
    const held = [0, 1, 2, 3, 7].filter((one) => (device.virtio.status & bit(one)) !== 0);
    if (held.length < 2) return null;
    const value =
      device.virtio.status & ~bit(draw.pick(held)) & ~bit(DeviceStatus.DEVICE_NEEDS_RESET);
    return { posted: [status(value)], allowed: COUNTED };
  },
  'status: a bit that no driver has': (_draw, { device }) => ({
    posted: [status(device.virtio.status | bit(5))],
    allowed: COUNTED,
  }),
  'status: DRIVER_OK before FEATURES_OK': (_draw, _machine, state) =>
    state === 'reset' || state === 'acknowledged' || state === 'driver'
      ? { posted: [status(S_DRIVER_OK)], allowed: COUNTED }
      : null,
  'status: any': (draw) => ({ posted: [status(draw.below(256))], allowed: ANY }),
  'status: reset': (_draw, _machine) => ({
    posted: [status(0)],
    allowed: QUIET,
    check: ({ device }) =>
      device.virtio.status === 0 ? null : 'the status is not 0 after a reset',
  }),
  'features: not offered': (draw, { offered }, state) => {
    if (state !== 'driver') return null;
    const bits = [63, 7, 8, 24, 33, 37, 50].filter((one) => ((offered >> BigInt(one)) & 1n) === 0n);
    const features = offered | (1n << BigInt(draw.pick(bits)));
    const words = [Number(features & 0xffff_ffffn), Number(features >> 32n)] as const;
    return {
      posted: [[MESSAGES.setDriverFeatures.id, ...words], status(S_FEATURES_OK)],
      allowed: QUIET,
      check: ({ device }) =>
        (device.virtio.status & bit(DeviceStatus.FEATURES_OK)) === 0
          ? null
          : 'FEATURES_OK was granted for a feature that was not offered',
    };
  },
  'features: without VERSION_1': (_draw, { offered }, state) =>
    state !== 'driver'
      ? null
      : {
          posted: [
            [MESSAGES.setDriverFeatures.id, Number(offered & 0xffff_ffffn), 0],
            status(S_FEATURES_OK),
          ],
          allowed: QUIET,
          check: ({ device }) =>
            (device.virtio.status & bit(DeviceStatus.FEATURES_OK)) === 0
              ? null
              : 'FEATURES_OK was granted without VERSION_1',
        },
  'features: at the wrong time': (draw, _machine, state) =>
    state === 'driver'
      ? null
      : { posted: [[MESSAGES.setDriverFeatures.id, u32(draw), u32(draw)]], allowed: COUNTED },
  'getConfig: outside the space': (draw) => ({
    posted: [],
    access: [
      MESSAGES.getConfig.id,
      draw.pick([20, 24, 0xfffc, 0xffff_fffc, 0xffff_ffff]),
      draw.pick([4, 1, 8, 0xffff_ffff]),
    ],
    allowed: COUNTED,
    check: answered('config'),
  }),
  'getConfig: longer than the space': (draw) => ({
    posted: [],
    access: [MESSAGES.getConfig.id, draw.below(20), draw.pick([21, 1 << 16, 0xffff_ffff])],
    allowed: COUNTED,
    check: answered('config'),
  }),
  'getConfig: no bytes': (draw) => ({
    posted: [],
    access: [MESSAGES.getConfig.id, draw.below(16), 0],
    allowed: COUNTED,
    check: answered('config'),
  }),
  'getConfig: inside': (draw) => ({
    posted: [],
    access: [MESSAGES.getConfig.id, draw.below(4), 1 + draw.below(4)],
    allowed: QUIET,
    check: answered('config'),
  }),
  'setConfig: before DRIVER': (draw, _machine, state) =>
    hasDriver(state)
      ? null
      : { posted: [config(BalloonConfig.offsets.actual, draw.bytes(4))], allowed: COUNTED },
  'setConfig: read-only field': (draw) => ({
    posted: [
      config(
        draw.pick([BalloonConfig.offsets.num_pages, BalloonConfig.offsets.free_page_hint_cmd_id]),
        draw.bytes(4),
      ),
    ],
    allowed: COUNTED,
  }),
  'setConfig: outside the space': (draw) => ({
    posted: [
      config(draw.pick([20, 0xffff, 0xffff_fffc, 0xffff_ffff]), draw.bytes(draw.pick([4, 1, 64]))),
    ],
    allowed: COUNTED,
  }),
  'setConfig: part of a field': (draw) => ({
    posted: [
      config(BalloonConfig.offsets.actual + draw.below(4), draw.bytes(draw.pick([3, 1, 2, 0]))),
    ],
    allowed: COUNTED,
  }),
  'setConfig: over a whole page': (draw) => ({
    posted: [config(0, new Uint8Array(4096).fill(draw.below(256)))],
    allowed: COUNTED,
  }),
  'setConfig: actual': (draw, _machine, state) =>
    hasDriver(state) && state !== 'suspended'
      ? {
          posted: [config(BalloonConfig.offsets.actual, bytesOf(draw.below(RAM_PAGES)))],
          allowed: QUIET,
        }
      : null,
  'setConfig: actual beyond RAM': (draw) => ({
    posted: [
      config(
        BalloonConfig.offsets.actual,
        bytesOf(draw.pick([RAM_PAGES + 1, 2 ** 31, 0xffff_ffff])),
      ),
    ],
    allowed: COUNTED,
  }),
  'setQueue: size': (draw, machine) => {
    const queue = positional(setQueue(draw.pick(machine.queues).index)) as Raw[];
    queue[2] = draw.pick([0, 0xffff, 0x8001, 2048, 4096]);
    return { posted: [queue], allowed: COUNTED };
  },
  'setQueue: alignment': (draw, machine) => {
    const queue = positional(setQueue(draw.pick(machine.queues).index)) as Raw[];
    const [part, offset] = draw.pick([
      [3, 1],
      [3, 8],
      [4, 1],
      [5, 1],
      [5, 2],
    ] as const);
    queue[part] = (queue[part] as number) + offset;
    return { posted: [queue], allowed: COUNTED };
  },
  'setQueue: no such queue': (draw, machine) => {
    const taken = machine.queues.map(({ index }) => index);
    const index = draw.pick(
      [BALLOON_QUEUES.length, 9, 255, 0xffff, 0x8000].filter((one) => !taken.includes(one)),
    );
    return { posted: [positional(setQueue(index))], allowed: COUNTED };
  },
  'setQueue: at the wrong time': (draw, machine, state) =>
    state === 'queues' || state === 'features'
      ? null
      : { posted: [positional(setQueue(draw.pick(machine.queues).index))], allowed: COUNTED },
  'resetQueue: not negotiated or nothing to reset': (draw) => ({
    posted: [[MESSAGES.resetQueue.id, draw.pick([9, 255, 0xffff])]],
    allowed: COUNTED,
  }),
  'getQueue: no such queue': (draw) => ({
    posted: [],
    access: [MESSAGES.getQueue.id, draw.pick([9, 255, 0xffff])],
    allowed: QUIET,
    check: ({ guest }) => {
      const reply = guest.received.find((message) => message.name === 'queue');
      return reply?.name === 'queue' && reply.max_size === 0
        ? null
        : 'a queue that is not has a size';
    },
  }),
  'get…: answered whatever the state': (draw) => {
    const [id, name] = draw.pick([
      [MESSAGES.getStatus.id, 'status'],
      [MESSAGES.getDeviceFeatures.id, 'deviceFeatures'],
      [MESSAGES.getDeviceInfo.id, 'deviceInfo'],
    ] as const);
    return { posted: [], access: [id], allowed: QUIET, check: answered(name) };
  },
  'get…: without a waiting vCPU': (draw) => ({
    posted: [
      draw.pick<Raw>([
        [MESSAGES.getStatus.id],
        [MESSAGES.getDeviceFeatures.id],
        [MESSAGES.getDeviceInfo.id],
        [MESSAGES.getQueue.id, 0],
        [MESSAGES.getConfig.id, 0, 4],
      ]),
    ],
    allowed: ['ended'],
  }),
  'access: of a message without an answer': (draw) => ({
    posted: [],
    access: draw.pick<Raw>([
      status(0),
      [MESSAGES.bye.id],
      [MESSAGES.resetQueue.id, 0],
      config(4, new Uint8Array(4)),
    ]),
    allowed: ['ended'],
  }),
  'a reply that nobody asked for': (draw) => ({
    posted: [
      draw.pick<Raw>([
        [MESSAGES.records.id, new Uint8Array(8)],
        [MESSAGES.dirtyLog.id, new Uint8Array(128)],
        [MESSAGES.freeSet.id, new Uint8Array(128)],
        [MESSAGES.statistics.id, []],
        [MESSAGES.exit.id, 0, 0, 0],
        [MESSAGES.consoleOutput.id, 0, []],
      ]),
    ],
    allowed: REJECTED,
  }),
  'messages of any kind': (draw) => ({
    posted: Array.from({ length: draw.pick([1, 2, 4, 8, 32]) }, () =>
      anyMessage(draw, draw.pick(namesOf('guest', true))),
    ),
    allowed: ANY,
  }),
  'driver messages of any kind': (draw) => ({
    posted: Array.from({ length: draw.pick([1, 2, 4, 16]) }, () => someDriverMessage(draw)),
    allowed: ANY,
  }),
};

/** With values that mean something to this device. */
function someDriverMessage(draw: Draw): Raw {
  switch (draw.below(6)) {
    case 0:
      return status(draw.pick([0, 1, 3, S_FEATURES_OK, S_DRIVER_OK, S_DRIVER_OK | 16, 0x8f, 0xff]));
    case 1:
      return [
        MESSAGES.setDriverFeatures.id,
        draw.pick([0x3f, 0, 0x7f, 0x3000_003f]),
        draw.pick([1, 0, 5, 0x30d]),
      ];
    case 2:
      return config(draw.pick([4, 0, 8, 12, 16]), draw.bytes(draw.pick([4, 1, 2, 8])));
    case 3:
      return [
        MESSAGES.setQueue.id,
        draw.below(7),
        draw.pick([16, 0, 1, 3, 128, 1024]),
        number(draw, 2 ** 53 - 1),
        number(draw, 2 ** 53 - 1),
        number(draw, 2 ** 53 - 1),
      ];
    case 4:
      return [MESSAGES.resetQueue.id, draw.below(7)];
    default:
      return anyMessage(draw, 'avail');
  }
}

function bytesOf(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}
