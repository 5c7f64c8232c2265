/** What travels of a machine beside its memory, and that the destination takes up. */
import { BallastError } from '../../shared/index.ts';
import { type State, StateFields } from '../state/fields.ts';
import type { Vmm } from '../vmm.ts';
import type { DeviceState } from './stream.ts';

/** The run loop with the balloon device. */
const MACHINE = 'balloon';
const MACHINE_VERSION = 1;
const DIGEST_CHARACTERS = 64;

export interface MachineFacts {
  /** Digest of the source's event log: the destination's goes on from it. */
  readonly sourceLog: string;
  /** Whether the guest runs when it has arrived. */
  readonly isRunning: boolean;
}

export function saveStates(
  vmm: Vmm,
  { sourceLog, isRunning }: MachineFacts,
): readonly DeviceState[] {
  const state: State = { source_log: sourceLog, runs: isRunning, machine: vmm.saveState() };
  return [{ device: MACHINE, version: MACHINE_VERSION, state: Buffer.from(JSON.stringify(state)) }];
}

/** @throws BallastError MESSAGE_INVALID: what came is not the state of such a machine. */
export function loadStates(vmm: Vmm, states: readonly DeviceState[]): MachineFacts {
  const stranger = states.find(({ device }) => device !== MACHINE);
  if (stranger) throw invalid(`${stranger.device}: there is no such device`);
  const [own] = states;
  if (!own) throw invalid(`${MACHINE}: expected its state, found none`);
  if (own.version !== MACHINE_VERSION) {
    throw invalid(`${MACHINE}: expected version ${MACHINE_VERSION}, found ${own.version}`);
  }
  const fields = new StateFields(MACHINE, parsed(own.state));
  const facts: MachineFacts = {
    sourceLog: fields.text('source_log', DIGEST_CHARACTERS),
    isRunning: fields.bool('runs'),
  };
  vmm.loadState(fields.object('machine'));
  return facts;
}

function parsed(state: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(state.buffer, state.byteOffset, state.length).toString());
  } catch {
    throw invalid(`${MACHINE}: expected JSON`);
  }
}

function invalid(what: string): BallastError {
  return new BallastError('MESSAGE_INVALID', `deviceState: ${what}`);
}
