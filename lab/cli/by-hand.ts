import type { Command } from 'commander';
import type { StrategyName } from '../../protocol/control.ts';
import { formatAddress, parseAddress } from '../../protocol/index.ts';
import { ExitStatus } from '../../shared/index.ts';
import { guestConfigOf } from '../plan/processes.ts';
import { planOf } from '../plan/settings.ts';
import { Child, describeDeath } from '../process/child.ts';
import { onExit } from '../process/cleanup.ts';
import { loadScenario } from '../scenario/load.ts';
import type { Scenario } from '../scenario/scenario.ts';
import { GUEST_GUIDE, HOST_GUIDE } from './guide.ts';
import { collect, parseSeed, parseStrategy } from './options.ts';
import { complain } from './output.ts';
import { type SimulationFlags, simulate } from './run.ts';

/** `ballast host` and `ballast guest`: each process by hand, on any socket, on one machine or two. */

interface HandFlags extends Omit<SimulationFlags, 'strategies' | 'jobs'> {
  readonly strategy?: StrategyName;
}

interface HostFlags extends HandFlags {
  readonly listen: string;
  readonly migrateTo?: string;
  readonly incoming?: string;
}

/** Arguments with which another process gets the same machine: it is refused if it has another. */
function sameMachine(argument: string, { strategies }: Scenario, flags: HandFlags): string {
  const words = [argument, '--strategy', strategies[0] ?? 'none'];
  if (flags.seed !== undefined) words.push('--seed', String(flags.seed));
  for (const override of flags.set ?? []) words.push('--set', override);
  return words.map(quoted).join(' ');
}

/** For a POSIX shell. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** The steps of the destination: those behind the first migration. */
function afterMigration(scenario: Scenario): Scenario {
  const at = scenario.steps.findIndex(({ kind }) => kind === 'migrate');
  return { ...scenario, steps: at < 0 ? [] : scenario.steps.slice(at + 1) };
}

export function addHostCommand(program: Command, done: (status: number) => void): void {
  const command = program
    .command('host')
    .description('the hypervisor alone: waits for one guest, then runs the steps of the scenario')
    .argument('<scenario>', 'as for run')
    .requiredOption('--listen <address>', 'where the guest connects: unix:/path or tcp:host:port')
    .option('--migrate-to <address>', 'migrations go to the host that waits there with --incoming')
    .option(
      '--incoming <address>',
      'take the guest over from another host, and run what follows its first migrate',
    );
  addHandOptions(command)
    .option('--json <file>', 'write the results; - writes them to stdout')
    .addHelpText('after', HOST_GUIDE)
    .action(async (argument: string, flags: HostFlags) => {
      const listen = parseAddress(flags.listen);
      const loaded = await loadForOne(argument, flags);
      const incoming = flags.incoming ? parseAddress(flags.incoming) : null;
      const scenario = incoming ? afterMigration(loaded) : loaded;
      const same = sameMachine(argument, scenario, flags);
      const onListening = (address: typeof listen) => {
        const text = formatAddress(address);
        if (incoming) {
          complain(
            `waiting for a migration at ${text}; send it with: ballast host ${same} --listen … --migrate-to ${text}`,
          );
          return;
        }
        complain(
          `waiting for a guest at ${text}; start it with: ballast guest ${same} --connect ${text}`,
        );
      };
      done(
        await simulate('host', scenario, flags, {
          listen,
          onListening,
          ...(incoming ? { incoming } : {}),
          ...(flags.migrateTo ? { migrateTo: parseAddress(flags.migrateTo) } : {}),
        }),
      );
    });
}

export function addGuestCommand(program: Command, done: (status: number) => void): void {
  const command = program
    .command('guest')
    .description('the guest alone: connects to a host that waits for it')
    .argument('<scenario>', 'the same as the host was given')
    .requiredOption('--connect <address>', 'unix:/path or tcp:host:port');
  addHandOptions(command)
    .addHelpText('after', GUEST_GUIDE)
    .action(async (argument: string, flags: HandFlags & { connect: string }) => {
      const connect = parseAddress(flags.connect);
      const scenario = await loadForOne(argument, flags);
      done(await runGuest(scenario, flags, connect));
    });
}

function addHandOptions(command: Command): Command {
  return command
    .option('--strategy <name>', "hinting strategy (default: the scenario's first)", parseStrategy)
    .option('--seed <n>', 'seed of everything that is random', parseSeed)
    .option('--set <key=value>', 'override a key of the scenario; repeatable', collect)
    .option('--log <dir>', 'write the event log');
}

function loadForOne(argument: string, flags: HandFlags): Promise<Scenario> {
  return loadScenario(argument, {
    overrides: flags.set ?? [],
    ...(flags.strategy ? { strategies: [flags.strategy] } : {}),
    ...(flags.seed === undefined ? {} : { seed: flags.seed }),
  }).then((scenario) => ({
    ...scenario,
    strategies: scenario.strategies.slice(0, 1),
    // One machine: without what the variants override.
    variants: [],
  }));
}

async function runGuest(
  scenario: Scenario,
  flags: HandFlags,
  connect: ReturnType<typeof parseAddress>,
): Promise<number> {
  const plan = planOf(scenario, scenario.strategies[0] ?? 'none', scenario.name);
  const config = guestConfigOf(plan, { logDirectory: flags.log ?? null });
  const child = new Child('guest', () => {});
  const withdraw = onExit(() => child.kill());
  child.send({ connect, config } as never);
  const death = await child.died;
  withdraw();
  if (death.code === ExitStatus.OK) return ExitStatus.OK;
  complain(
    death.code !== null && death.lastWords
      ? death.lastWords.replace(/^ballast( guest)?: /, '')
      : describeDeath(death).message,
  );
  return death.code === ExitStatus.BAD_INPUT ? ExitStatus.BAD_INPUT : ExitStatus.PEER_LOST;
}
