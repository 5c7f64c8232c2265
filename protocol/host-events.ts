import { EventEmitter } from 'eventemitter3';
import type { HostEvent, HostEventName, HostEvents } from './control.ts';

/** Every name, for whoever forwards them all. */
export const HOST_EVENT_NAMES = [
  'MIGRATION',
  'MIGRATION_PASS',
  'BALLOON_CHANGE',
  'STOP',
  'RESUME',
] as const satisfies readonly HostEventName[];

/** Typed events of the host for observers; the same on the host and in the laboratory. */
export class HostEventEmitter extends EventEmitter<HostEvents> {
  publish(event: HostEvent): void {
    // Each name's listeners get that name's event, which the emitter's type cannot follow here.
    const emitter = this as unknown as EventEmitter<Record<string, [HostEvent]>>;
    emitter.emit(event.event, event);
  }
}
