/**
 * The order of a session, through the code that serves sockets: greetings that differ, come late,
 * twice or never; frames that nobody asked for; byes and errors in the middle; a peer that hangs up.
 */
import { hostHello, hostLink, MESSAGES, type Message, serveGuest } from '../protocol/index.ts';
import { guestHelloMessage, hostHelloMessage } from '../protocol/ipc/hello.ts';
import { BallastError } from '../shared/index.ts';
import { u32sOf } from './avail.ts';
import {
  ANY,
  type Direction,
  endOf,
  judge,
  type Kind,
  type Outcome,
  type Session,
  type Verdict,
} from './case.ts';
import type { Draw } from './draw.ts';
import { PipeEnd } from './pipe.ts';
import { packFrame, positional, type Raw, rawToken } from './raw.ts';
import { anyMessage, kindsOf, namesOf, right } from './values.ts';

const FACTS = { recordSizeBytes: 4, ramPages: 64, vcpus: 1 };
const ENDED: readonly Outcome[] = ['ended'];
const SERVED: readonly Outcome[] = ['served'];

type Side = 'host' | 'guest';
/** Bytes that the hostile side sends first, then after its greeting was accepted. */
interface Script {
  readonly hello?: Uint8Array | null;
  readonly rest?: readonly Uint8Array[];
  readonly hangsUp?: boolean;
  readonly allowed: readonly Outcome[];
}

function helloOf(side: Side): Raw[] {
  return positional(side === 'host' ? hostHelloMessage() : guestHelloMessage(FACTS));
}

function frame(...messages: readonly Raw[]): Uint8Array {
  return packFrame(messages);
}

/** The greeting with one field changed into another right value of its kind. */
function otherHello(draw: Draw, side: Side): Uint8Array {
  const hello = helloOf(side);
  // A host does not say what the machine is: what it puts there means nothing.
  const fields = side === 'host' ? [1, 2, 3, 4] : [1, 2, 3, 4, 5, 8];
  const at = draw.pick(fields);
  const kind = kindsOf('hello')[at - 1]!;
  const before = hello[at];
  do hello[at] = right(draw, kind);
  while (hello[at] === before);
  return frame(hello);
}

const SCRIPTS: Readonly<Record<string, (draw: Draw, side: Side) => Script>> = {
  'nothing wrong': () => ({ allowed: SERVED }),
  'hello: another value': (draw, side) => ({
    hello: otherHello(draw, side),
    allowed: side === 'host' ? ENDED : ANY,
  }),
  'hello: RAM that makes no sense': (draw, side) => {
    const hello = helloOf('guest');
    hello[6] = draw.pick([0, 2 ** 28 + 1, 0xffff_ffff]);
    hello[7] = draw.pick([
      u32sOf(),
      u32sOf(1),
      u32sOf(5, 0),
      u32sOf(8, 8, 4, 4),
      u32sOf(0, 65),
      new Uint8Array(7),
    ]);
    return side === 'host' ? { allowed: SERVED } : { hello: frame(hello), allowed: ENDED };
  },
  'hello: missing': (draw, side) => {
    const name = draw.pick(namesOf(side, true).filter((one) => one !== 'hello' && one !== 'bye'));
    return { hello: frame(anyMessage(draw, name)), allowed: ENDED };
  },
  'hello: not alone': (draw, side) => ({
    hello: frame(
      helloOf(side),
      anyMessage(draw, draw.pick(namesOf(side, true).filter((one) => one !== 'bye'))),
    ),
    allowed: ENDED,
  }),
  'hello: no frame': (draw) => ({
    hello: draw.pick([
      new Uint8Array(4),
      frame(rawToken(0xc1)),
      Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0),
      frame(),
    ]),
    allowed: ENDED,
  }),
  'hello: again': (_draw, side) => ({ rest: [frame(helloOf(side))], allowed: ENDED }),
  'error instead of an answer': (_draw) => ({
    rest: [frame([MESSAGES.error.id, 'PEER_CLOSED', 'so much for that'])],
    allowed: ENDED,
  }),
  'error of any code and text': (draw) => ({
    rest: [
      frame([
        MESSAGES.error.id,
        right(draw, 'str'),
        draw.pick(['', 'two\nlines', 'x'.repeat(4096)]),
      ]),
    ],
    allowed: ENDED,
  }),
  'bye, and more behind it': (draw, side) => ({
    rest: [frame([MESSAGES.bye.id]), frame(anyMessage(draw, draw.pick(namesOf(side, true))))],
    allowed: ANY,
  }),
  'bye in the middle of a frame': (_draw, side) => ({
    rest: [
      frame(
        [MESSAGES.bye.id],
        side === 'host' ? [MESSAGES.getConsole.id] : [MESSAGES.exit.id, 0, 0, 0],
      ),
    ],
    allowed: ENDED,
  }),
  'frames that nobody asked for': (draw, side) => ({
    rest: Array.from({ length: draw.pick([2, 3, 8]) }, () =>
      frame(side === 'guest' ? [MESSAGES.exit.id, 0, 0, 0] : [MESSAGES.getConsole.id]),
    ),
    allowed: side === 'guest' ? ENDED : SERVED,
  }),
  'the other side’s message': (draw, side) => ({
    rest: [frame(anyMessage(draw, draw.pick(namesOf(side, false))))],
    allowed: ENDED,
  }),
  'hangs up': (draw) => ({
    rest: draw.chance(1, 2) ? [Uint8Array.of(9, 0, 0, 0, 0x91)] : [],
    hangsUp: true,
    allowed: ENDED,
  }),
  'hangs up without a word': () => ({ hello: null, hangsUp: true, allowed: ENDED }),
  noise: (draw) => ({
    rest: [draw.bytes(draw.pick([1, 4, 5, 64]))],
    hangsUp: true,
    allowed: ENDED,
  }),
};
const LABELS = Object.keys(SCRIPTS);

class SessionsSession implements Session {
  trace: string[] = [];
  readonly #side: Side;

  constructor(side: Side) {
    this.#side = side;
  }

  async next(draw: Draw): Promise<Verdict> {
    const label = draw.pick(LABELS);
    const script = SCRIPTS[label]!(draw, this.#side);
    const sent = [script.hello, ...(script.rest ?? [])];
    this.trace = sent.map((bytes) =>
      bytes ? Buffer.from(bytes.subarray(0, 96)).toString('hex') : '–',
    );
    const outcome = await (this.#side === 'host' ? toGuest(script) : toHost(script));
    return judge(label, outcome, script.allowed);
  }

  close(): null {
    return null;
  }
}

/** A hostile host: a guest that answers whatever it is asked with nothing. */
async function toGuest(script: Script): Promise<Outcome> {
  const pipe = new PipeEnd();
  let answers = 0;
  const service = serveGuest(
    pipe.socket,
    () => {
      answers++;
      return [];
    },
    FACTS,
  );
  await receiving();
  if (script.hello !== null) pipe.arrive(script.hello ?? frame(helloOf('host')));
  for (const bytes of script.rest ?? []) pipe.arrive(bytes);
  if (script.hangsUp) pipe.hangUp();
  else if (!script.rest) pipe.arrive(frame([MESSAGES.getConsole.id]));
  const end = await endedYet(service.closed);
  pipe.destroy();
  if (end) return endedWith(end);
  return answers > 0 || end === null ? 'served' : 'ignored';
}

/** A hostile guest: a host that greets it and asks one thing. */
async function toHost(script: Script): Promise<Outcome> {
  const pipe = new PipeEnd();
  const link = hostLink(pipe.socket);
  const rest = script.rest ?? [frame([MESSAGES.consoleOutput.id, 0, []])];
  let asked = 0;
  // Later, as over any wire: a link asks first and waits then.
  pipe.onBytes = () => queueMicrotask(() => arrived());
  const arrived = (): void => {
    // The greeting is answered with the greeting, and the first question with everything else.
    asked++;
    if (asked === 1 && script.hello !== null) pipe.arrive(script.hello ?? frame(helloOf('guest')));
    if (asked === 2) for (const bytes of rest) pipe.arrive(bytes);
    if (script.hangsUp && (asked === 2 || script.hello === null)) pipe.hangUp();
  };
  try {
    await receiving();
    await hostHello(link);
    const answer = await link.exchange([{ name: 'getConsole' } satisfies Message]);
    // What it is an answer to is for who asked.
    if (answer.at(-1)?.name !== 'consoleOutput') return 'ended';
    const end = await endedYet(link.closed);
    if (end) return endedWith(end);
    return 'served';
  } catch (error) {
    return endedWith(endOf(error));
  } finally {
    pipe.destroy();
  }
}

/** Both ends of a session listen one tick after they were made. */
function receiving(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** Undefined: the session goes on. */
async function endedYet(
  closed: Promise<BallastError | null>,
): Promise<BallastError | null | undefined> {
  return Promise.race([closed, Promise.resolve().then(() => undefined)]);
}

function endedWith(end: BallastError): Outcome {
  if (!(end instanceof BallastError)) throw end;
  return 'ended';
}

export function sessionsOf(direction: Direction): Kind {
  const side = direction === 'guest-to-host' ? 'guest' : 'host';
  return {
    name: 'sessions',
    direction,
    about: 'greetings, byes, errors, frames that nobody asked for, a peer that hangs up',
    weight: 5,
    casesPerSession: 32,
    open: () => new SessionsSession(side),
  };
}
