// A stand-in for host/main and guest/main: answers the laboratory's commands without emulating
// anything. `node stand-in.mjs host|guest [behaviour]`.
const [role, behaviour] = process.argv.slice(2);
let nowNs = 0;
let actualPages = 0;
let targetPages = 0;

const status = () => ({
  now_ns: nowNs,
  has_guest: true,
  migration: 'none',
  ram_pages: 16384,
  num_pages: targetPages,
  actual_pages: actualPages,
  protocol_violations: 0,
  counters: {},
});

const commands = {
  listen: ({ listen }) => {
    if (behaviour === 'port-in-use')
      throw { code: 'ADDRESS_IN_USE', message: 'tcp:x:1: expected a free address' };
    return listen;
  },
  incoming: () => ({
    stream: { kind: 'tcp', host: '127.0.0.1', port: 1 },
    guest: { kind: 'tcp', host: '127.0.0.1', port: 2 },
  }),
  beginMigration: () => null,
  finishMigration: () => ({ migration: { status: 'completed' } }),
  arrive: () => {
    throw { code: 'PEER_CLOSED', message: 'the guest did not come' };
  },
  accept: () => ({ ramPages: 16384, vcpus: 1 }),
  runUntil: ({ at_ns }) => {
    nowNs = at_ns;
    // A balloon that gives up after 10,000 pages.
    actualPages +=
      Math.sign(targetPages - actualPages) * Math.min(5000, Math.abs(targetPages - actualPages));
    actualPages = Math.min(actualPages, 10000);
    return status();
  },
  console: () => null,
  balloon: ({ target_pages }) => {
    targetPages = target_pages;
    return null;
  },
  status,
  verify: () => [],
  finish: () => ({ event_log_sha256: '0'.repeat(64), peak_rss_bytes: { guest: 1, host: 1 } }),
};

process.on('disconnect', () => process.exit(0));
process.on('message', (message) => {
  if (role === 'guest') return;
  if (message.command === 'finishMigration' && behaviour !== 'lost-at-arrival') return; // never ends
  if (message.command === 'verify' && behaviour === 'crash') {
    process.stderr.write('AssertionError: must hold: something\n    at somewhere\n');
    process.exit(1);
  }
  if (message.command === 'verify' && behaviour === 'lost') {
    process.send({
      id: message.id,
      error: { code: 'PEER_CLOSED', message: 'the guest closed the channel' },
    });
    setTimeout(() => process.exit(3), 20);
    return;
  }
  try {
    process.send({ id: message.id, result: commands[message.command](message.params) });
  } catch (error) {
    process.send({ id: message.id, error });
  }
  if (message.command === 'finish') process.disconnect();
});
