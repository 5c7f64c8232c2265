import { loadScenario, type Run, runScenario } from '../../lab/index.ts';

/** The runs of a scenario in scenarios/, by the names of its variants. */
export async function runsByVariant(
  name: string,
  overrides: readonly string[] = [],
): Promise<Readonly<Record<string, Run>>> {
  const scenario = await loadScenario(name, { overrides });
  const runs = await runScenario(scenario, { jobs: 2 });
  return Object.fromEntries(runs.map((run) => [run.variant ?? run.strategy, run]));
}

/** What a run says against itself: nothing when all is well. */
export function complaintsOf(run: Run): unknown[] {
  return [
    ...run.failed_steps,
    ...run.audit_problems,
    ...run.expectations.filter(({ holds }) => !holds),
    ...run.lost,
  ];
}
