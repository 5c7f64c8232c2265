/**
 * What a hostile host does to our guest, each with the outcome that is left to it: answers that are
 * none, used buffers that nobody gave, configuration that changes as it likes, memory that is not
 * there, and whatever can be typed on the console.
 */
import { MESSAGES, type Message, type MessageName, u16Bytes, u32Bytes } from '../protocol/index.ts';
import { u32sOf } from './avail.ts';
import { ANY, type Outcome } from './case.ts';
import { consoleLine } from './console-lines.ts';
import type { Draw } from './draw.ts';
import { type GuestMachine, RAM_PAGES, run } from './guest-machine.ts';
import { positional, type Raw } from './raw.ts';
import { anyMessage, namesOf, number, u32 } from './values.ts';

export interface HostMistake {
  /** A frame of its own, ahead of the one that lets the guest run on. */
  readonly frame?: readonly Raw[];
  /** The frame lets the guest run. */
  readonly runs?: boolean;
  /** What becomes of the honest messages while the guest runs on. */
  readonly tamper?: (message: Message) => Raw | null;
  /** What the host does before that. */
  act?(): void;
  readonly allowed: readonly Outcome[];
}

export type HostMaker = (draw: Draw, machine: GuestMachine) => HostMistake | null;

const COUNTED: readonly Outcome[] = ['counted'];
const ENDED: readonly Outcome[] = ['ended'];
/** What an earlier case has begun may be counted in this one. */
const SERVED: readonly Outcome[] = ['served', 'counted'];

function used(queue: number, heads: readonly number[], written: readonly number[]): Raw[] {
  const headBytes = u16Bytes(Uint16Array.from(heads));
  return [MESSAGES.used.id, queue, headBytes, u32Bytes(Uint32Array.from(written))];
}

function ranges(...pairs: readonly number[]): Uint8Array {
  return u32sOf(...pairs);
}

/** Ranges of frames that are there. */
function someRanges(draw: Draw): Uint8Array {
  const first = draw.below(RAM_PAGES);
  return ranges(first, draw.below(Math.min(64, RAM_PAGES - first) + 1));
}

/** Ranges that are none of this machine's memory. */
function noRanges(draw: Draw): Uint8Array {
  return draw.pick([
    ranges(RAM_PAGES, 1),
    ranges(0, RAM_PAGES + 1),
    ranges(0, RAM_PAGES, 0, 1),
    ranges(0xffff_ffff, 0xffff_ffff),
    ranges(1),
    new Uint8Array(5),
  ]);
}

/** A reply of the device as any other host would have it. */
function falsified(draw: Draw, message: Message): Raw {
  switch (message.name) {
    case 'deviceInfo':
      return [MESSAGES.deviceInfo.id, draw.pick([5, 0, 1, 13]), number(draw, 0xffff), u32(draw)];
    case 'deviceFeatures':
      return [MESSAGES.deviceFeatures.id, u32(draw), u32(draw) | draw.below(2)];
    case 'status':
      return [MESSAGES.status.id, draw.below(256)];
    case 'queue':
      return [
        MESSAGES.queue.id,
        message.index,
        draw.pick([128, 0, 1, 2, 3, 0x8000, 0xffff, 1000]),
        draw.chance(1, 2),
      ];
    case 'config':
      return [
        MESSAGES.config.id,
        u32(draw),
        draw.chance(1, 4) ? draw.bytes(draw.below(20)) : u32sOf(u32(draw)),
      ];
    default:
      return positional(message);
  }
}

const REPLIES: readonly MessageName[] = [
  'deviceInfo',
  'deviceFeatures',
  'status',
  'queue',
  'config',
];

function isReply({ name }: Message): boolean {
  return REPLIES.includes(name);
}

/** The queues that the driver has set up. */
function liveQueues({ device }: GuestMachine): number[] {
  return [0, 1, 2, 3, 4].filter((index) => device.virtio.queue(index) !== undefined);
}

export const HOST_MISTAKES: Readonly<Record<string, HostMaker>> = {
  'nothing wrong': () => ({ allowed: SERVED }),
  'used: no such queue': (draw) => ({
    frame: [used(draw.pick([5, 9, 255, 0xffff]), [0], [0])],
    allowed: COUNTED,
  }),
  'used: a head outside the ring': (draw, machine) => {
    const queues = liveQueues(machine);
    if (queues.length === 0) return null;
    const heads = Array.from({ length: draw.pick([1, 2, 64]) }, () =>
      draw.pick([0x8000, 0xffff, 2048]),
    );
    return { frame: [used(draw.pick(queues), heads, heads)], allowed: COUNTED };
  },
  'used: half a head': (draw, machine) => {
    const queues = liveQueues(machine);
    if (queues.length === 0) return null;
    const heads = draw.bytes(draw.pick([1, 3, 255]));
    return {
      frame: [[MESSAGES.used.id, draw.pick(queues), heads, draw.bytes(4)]],
      allowed: COUNTED,
    };
  },
  'used: lists that disagree': (draw, machine) => {
    const queues = liveQueues(machine);
    if (queues.length === 0) return null;
    const lengths = draw.bytes(draw.pick([0, 1, 3, 8]));
    const heads = u16Bytes(Uint16Array.of(draw.below(4)));
    return { frame: [[MESSAGES.used.id, draw.pick(queues), heads, lengths]], allowed: COUNTED };
  },
  'used: any head, any length': (draw, machine) => {
    const heads = Array.from({ length: draw.pick([1, 2, 16]) }, () => draw.below(128));
    const queue = draw.pick([...liveQueues(machine), draw.below(6)]);
    return {
      frame: [
        used(
          queue,
          heads,
          heads.map(() => u32(draw)),
        ),
      ],
      allowed: SERVED,
    };
  },
  'used: lost': () => ({
    tamper: (message) => (message.name === 'used' ? null : positional(message)),
    allowed: ANY,
  }),
  'used: twice': () => ({
    tamper: (message) =>
      message.name === 'used'
        ? [
            MESSAGES.used.id,
            message.queue,
            Uint8Array.from([...message.heads, ...message.heads]),
            Uint8Array.from([...message.written_bytes, ...message.written_bytes]),
          ]
        : positional(message),
    allowed: SERVED,
  }),
  'irq: no such queue': (draw) => ({
    frame: [[MESSAGES.irq.id, draw.pick([5, 255, 0x7fff, 0xfffe])]],
    allowed: COUNTED,
  }),
  'irq: spurious': (draw, machine) => ({
    frame: [[MESSAGES.irq.id, draw.pick([0xffff, ...liveQueues(machine)])]],
    allowed: SERVED,
  }),
  'irq: lost': () => ({
    tamper: (message) => (message.name === 'irq' ? null : positional(message)),
    allowed: ANY,
  }),
  'configChanged: any generation': (draw) => ({
    frame: Array.from({ length: draw.pick([1, 2, 64]) }, () => [
      MESSAGES.configChanged.id,
      u32(draw),
    ]),
    allowed: SERVED,
  }),
  'reply: nobody waits': (draw, machine) => {
    if (machine.access) return null;
    const name = draw.pick(REPLIES);
    return { frame: [anyMessage(draw, name)], allowed: ENDED };
  },
  'reply: falsified': (draw) => ({
    tamper: (message) => (isReply(message) ? falsified(draw, message) : positional(message)),
    allowed: ANY,
  }),
  'config: any target and any id': (draw, machine) => ({
    act: () => machine.device.virtio.configChanged(),
    tamper: (message) =>
      message.name === 'config'
        ? [
            MESSAGES.config.id,
            message.generation,
            u32sOf(draw.pick([0, 1, 2, 0x8000_0001, 0xffff_ffff, 64, 4096])),
          ]
        : positional(message),
    allowed: ANY,
  }),
  'config: of another length': (draw, machine) => ({
    act: () => machine.device.virtio.configChanged(),
    tamper: (message) =>
      message.name === 'config'
        ? [MESSAGES.config.id, message.generation, draw.bytes(draw.pick([3, 0, 5, 4096]))]
        : positional(message),
    allowed: ANY,
  }),
  'reply: of another kind': (draw, machine) => ({
    act: () => machine.device.virtio.configChanged(),
    tamper: (message) =>
      isReply(message) ? anyMessage(draw, draw.pick(REPLIES)) : positional(message),
    allowed: ANY,
  }),
  'run: into the past': (draw, machine) => ({
    runs: true,
    frame: [run(Math.floor((machine.now * draw.below(4)) / 4))],
    allowed: machine.access ? ENDED : SERVED,
  }),
  'run: twice in a frame': (_draw, machine) => ({
    runs: true,
    frame: [run(machine.now), run(machine.now)],
    allowed: machine.access ? ENDED : ANY,
  }),
  'memory: outside RAM': (draw) => {
    const data = draw.bytes(4);
    const message = draw.pick<Raw>([
      [MESSAGES.read.id, noRanges(draw)],
      [MESSAGES.discard.id, noRanges(draw)],
      [MESSAGES.write.id, noRanges(draw), data],
      [MESSAGES.countFree.id, noRanges(draw)],
    ]);
    return { frame: [message], allowed: ENDED };
  },
  'memory: inside RAM': (draw) => {
    const message = draw.pick<Raw>([
      [MESSAGES.read.id, someRanges(draw)],
      [MESSAGES.discard.id, someRanges(draw)],
      [MESSAGES.write.id, someRanges(draw), draw.bytes(draw.pick([256, 0, 3, 4]))],
      [MESSAGES.countFree.id, someRanges(draw)],
      [MESSAGES.getHistory.id, u32(draw)],
    ]);
    return { frame: [message], allowed: SERVED };
  },
  'dirty log: no piece of it': (draw) => {
    const [first, length] = draw.pick([
      [1, 4],
      [RAM_PAGES, 4],
      [0, RAM_PAGES / 8 + 4],
      [0xffff_ffe0, 4],
      [31, 0],
    ] as const);
    return { frame: [[MESSAGES.clearDirtyLog.id, first, new Uint8Array(length)]], allowed: ENDED };
  },
  'dirty log: any order': (draw) => ({
    frame: Array.from({ length: draw.pick([1, 3, 8]) }, () =>
      draw.pick<Raw>([
        [MESSAGES.getDirtyLog.id, draw.chance(1, 2)],
        [
          MESSAGES.dirtyLogEnable.id,
          draw.chance(1, 2),
          draw.chance(1, 2),
          draw.pick([0, 1, 4096, 0xffff_ffff]),
        ],
        [MESSAGES.clearDirtyLog.id, 32 * draw.below(RAM_PAGES / 32), draw.bytes(4)],
      ]),
    ),
    allowed: SERVED,
  }),
  'loadRam: of any length, anywhere': (draw) => ({
    frame: [
      [
        MESSAGES.loadRam.id,
        draw.pick([0, 32, 7, RAM_PAGES - 32, RAM_PAGES, 0xffff_ffff]),
        draw.bytes(draw.pick([0, 1, 4])),
        draw.bytes(draw.pick([0, 1, 4, 64, 128])),
      ],
    ],
    allowed: ANY,
  }),
  'console: no such command': (draw) => ({
    frame: [
      [
        MESSAGES.console.id,
        draw.pick(['', 'x', '__proto__ a=1', 'constructor', 'x'.repeat(4096), '\n\u0000']),
      ],
    ],
    allowed: SERVED,
  }),
  'console: any line': (draw, machine) => ({
    frame: [
      [MESSAGES.console.id, consoleLine(draw, machine.guest.system)],
      [MESSAGES.getConsole.id],
    ],
    allowed: SERVED,
  }),
  'oracle: any question': (draw) => {
    const names = [
      'getFreeSet',
      'getErased',
      'getStatistics',
      'getGuestDigest',
      'getHistory',
    ] as const;
    return { frame: [anyMessage(draw, draw.pick(names))], allowed: SERVED };
  },
  'hello or bye in the middle': (draw) => ({
    frame: [anyMessage(draw, draw.pick(['hello', 'bye', 'error']))],
    allowed: ENDED,
  }),
  'messages of any kind': (draw) => ({
    frame: Array.from({ length: draw.pick([1, 2, 4, 16]) }, () => {
      const name = draw.pick(
        namesOf('host', true).filter((one) => one !== 'run' && one !== 'verify'),
      );
      return anyMessage(draw, name);
    }),
    allowed: ANY,
  }),
  'frames: nothing in it': () => ({ frame: [], allowed: SERVED }),
};
