import { MESSAGES, type Message } from '../protocol/index.ts';

/** What may give the guest something to do at once; memory messages change only memory. */
export function wakes({ name }: Message): boolean {
  return name === 'console' || MESSAGES[name].group === 'virtio' || name === 'irq';
}
